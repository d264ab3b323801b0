// Elements without a framework. Texts are text nodes, always: names of topics come from anybody.

type Child = Node | string;

export function make<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Record<string, string> = {},
  ...children: Child[]
): HTMLElementTagNameMap[Name] {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export function byId(id: string): HTMLElement {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element;
}

/** Changes a text only when it differs: screen readers and layout are left in peace. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Gives children an order, with as few moves as possible: focus stays where it is. */
export function order(parent: Element, children: readonly Element[]): void {
  children.forEach((child, index) => {
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
  });
  while (parent.children.length > children.length) parent.lastElementChild?.remove();
}

/** A title, a text to take along, and a button that copies it. */
export function sample(title: string, text: string, words: { copy: string; copied: string; selected: string }): HTMLElement[] {
  const code = make("pre", { tabindex: "0" }, text);
  const copy = make("button", { type: "button" }, words.copy);
  copy.addEventListener("click", () => {
    // Over plain HTTP from another machine there is no clipboard: the text is selected then, for who presses Ctrl-C.
    const clipboard = navigator.clipboard as Clipboard | undefined;
    if (clipboard === undefined) {
      getSelection()?.selectAllChildren(code);
      setText(copy, words.selected);
      return;
    }
    void clipboard.writeText(text).then(() => setText(copy, words.copied));
  });
  return [make("div", { class: "copy" }, make("strong", {}, title), copy), code];
}

export function download(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  // The browser has taken it by the next turn.
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
