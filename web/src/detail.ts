// The open topic: its picture in full size, its data, and how to get at it from elsewhere.

import { draw, dumpLines, type Drawn } from "./draw.ts";
import { download, make, setText } from "./dom.ts";
import { type Access, Feed } from "./feed.ts";
import { numbersOf, npyOf } from "./numbers.ts";
import { type Frame, pathOf } from "./protocol.ts";
import { bytesText, millisecondsText, numberText, rateText, strings } from "./strings.ts";
import type { Listed } from "./topics.ts";

const WIDTH = 1280;
const VALUES = 64;
const DUMP_BYTES = 256;

type Tab = "picture" | "data" | "links";
const TABS: readonly Tab[] = ["picture", "data", "links"];

export class Detail {
  readonly feed: Feed;
  #canvas = make("canvas", { width: "640", height: "360" });
  #note = make("p", { class: "note" });
  #under = make("p", { "aria-live": "off" });
  #values = make("pre", { tabindex: "0" });
  #facts = new Map<keyof typeof strings.detail.facts, HTMLElement>();
  #panels: Record<Tab, HTMLElement>;
  #tabs: Record<Tab, HTMLButtonElement>;
  #freeze: HTMLButtonElement;
  #drawing = false;
  #drawn = 0;
  #range: Drawn["range"] = null;

  constructor(
    public topic: Listed,
    readonly access: Access,
    readonly element: HTMLElement,
    readonly chosen: (tab: Tab) => void,
    closed: () => void,
    tab: Tab,
  ) {
    const words = strings.detail;
    this.feed = new Feed(topic, access, WIDTH, () => this.#changed());
    this.#freeze = make("button", { type: "button", id: "freeze", "aria-pressed": "false" }, words.freeze);
    this.#freeze.addEventListener("click", () => this.freeze());
    const step = make("button", { type: "button", id: "step" }, words.step);
    step.addEventListener("click", () => this.step());
    const save = make("button", { type: "button", id: "download" }, words.download);
    save.addEventListener("click", () => this.download());
    const close = make("button", { type: "button", id: "close" }, words.close);
    close.addEventListener("click", closed);

    const facts = make("dl");
    for (const [key, label] of Object.entries(words.facts)) {
      const value = make("dd", {}, words.none);
      this.#facts.set(key as keyof typeof words.facts, value);
      facts.append(make("dt", {}, label), value);
    }
    this.#panels = {
      picture: make("div", { role: "tabpanel" }, make("div", { class: "large" }, this.#canvas, this.#note), this.#under),
      data: make("div", { role: "tabpanel" }, facts, make("h2", {}, words.values), this.#values),
      links: make("div", { role: "tabpanel" }, ...this.#links()),
    };
    const bar = make("div", { class: "bar", role: "tablist" });
    this.#tabs = Object.fromEntries(
      TABS.map((name) => {
        const button = make("button", { type: "button", role: "tab", id: `tab-${name}` }, words.tabs[name]);
        button.addEventListener("click", () => this.choose(name));
        bar.append(button);
        return [name, button];
      }),
    ) as Record<Tab, HTMLButtonElement>;
    element.replaceChildren(
      make("h2", {}, topic.name),
      make("div", { class: "bar" }, this.#freeze, step, save, make("span", { class: "space" }), close),
      bar,
      ...TABS.map((name) => this.#panels[name]),
    );
    element.hidden = false;
    this.#canvas.addEventListener("mousemove", (event) => this.#pixel(event));
    this.#canvas.addEventListener("click", () => this.#canvas.toggleAttribute("data-zoom"));
    this.choose(tab);
    this.feed.look(true);
    this.update(topic);
  }

  choose(tab: Tab): void {
    for (const name of TABS) {
      this.#panels[name].hidden = name !== tab;
      this.#tabs[name].setAttribute("aria-selected", String(name === tab));
    }
    this.chosen(tab);
  }

  seen(): void {
    this.feed.look(!document.hidden);
  }

  end(): void {
    this.feed.end();
    this.element.hidden = true;
    this.element.replaceChildren();
  }

  freeze(): void {
    this.feed.freeze(!this.feed.frozen);
    this.#words();
  }

  step(): void {
    this.feed.step();
    this.#words();
  }

  /** The frame that is shown, as a file: an array as .npy, the rest as it came. */
  download(): void {
    const frame = this.feed.frame;
    if (frame === null) return;
    const npy = frame.kind === "raw" ? npyOf(frame.head, frame.payload) : null;
    const ending = npy !== null ? "npy" : (frame.mediaType.split("/")[1] ?? "bin").replace("octet-stream", "bin");
    const name = `${this.topic.name.replaceAll("/", "-")}-${frame.sequence}.${ending}`;
    download(npy ?? new Blob([frame.payload], { type: frame.mediaType }), name);
  }

  update(topic: Listed): void {
    this.topic = topic;
    this.#words();
  }

  #changed(): void {
    const frame = this.feed.frame;
    if (frame !== null && frame.sequence !== this.#drawn && !this.#drawing && this.feed.state.name === "live") {
      this.#drawing = true;
      requestAnimationFrame(() => void this.#draw());
      return;
    }
    this.#words();
  }

  async #draw(): Promise<void> {
    const frame = this.feed.frame;
    try {
      if (frame !== null) {
        const { range } = await draw(frame, this.#canvas);
        this.#range = range;
        this.#drawn = frame.sequence;
        this.element.dataset["sequence"] = String(frame.sequence);
        if (!this.#panels.data.hidden) setText(this.#values, valuesText(frame));
        setText(this.#under, range === null ? "" : strings.detail.range(numberText(range[0]), numberText(range[1])));
      }
    } finally {
      this.#drawing = false;
      this.feed.shown();
      this.#words();
    }
  }

  #words(): void {
    const { feed, topic } = this;
    const words = strings.detail;
    this.#freeze.setAttribute("aria-pressed", String(feed.frozen));
    setText(this.#freeze, feed.frozen ? words.thaw : words.freeze);
    setText(this.#note, this.#state());
    const frame = feed.frame;
    const age = frame === null ? null : Date.now() - frame.published;
    const facts: Record<keyof typeof words.facts, string> = {
      name: topic.name,
      type: frame === null ? typeText(topic.dtype, topic.shape) : typeText(frame.head.dtype, frame.head.shape, frame.mediaType),
      size: frame === null ? words.none : bytesText(frame.payload.byteLength),
      sequence: frame === null ? words.none : String(frame.sequence),
      published: frame === null ? words.none : new Date(frame.published).toISOString().replace("T", " ").replace("Z", ""),
      timestamp: frame?.timestamp == null ? words.none : `${frame.timestamp} s`,
      age: age === null || age < 0 ? words.none : millisecondsText(age),
      rate: `${rateText(feed.rate())} Hz`,
      skipped: String(feed.skipped),
      slots: `${topic.slots} × ${bytesText(topic.slot_bytes)}`,
      publishers: String(topic.publishers),
      subscribers: String(topic.subscribers),
    };
    for (const [key, element] of this.#facts) setText(element, facts[key]);
  }

  #state(): string {
    const state = this.feed.state;
    const texts = strings.tile;
    switch (state.name) {
      case "denied": return texts.denied;
      case "too large": return texts.tooLarge(bytesText(state.bytes));
      case "refused": return texts.refused(state.why);
      case "ended": return texts.ended;
      case "waiting": return texts.waiting(this.topic.publishers);
      case "live": return this.feed.frozen ? texts.frozen : "";
      default: return "";
    }
  }

  #pixel(event: MouseEvent): void {
    const context = this.#canvas.getContext("2d");
    const frame = this.feed.frame;
    if (context === null || frame === null || this.#canvas.clientWidth === 0) return;
    const x = Math.floor((event.offsetX / this.#canvas.clientWidth) * this.#canvas.width);
    const y = Math.floor((event.offsetY / this.#canvas.clientHeight) * this.#canvas.height);
    const numbers = frame.kind === "raw" ? numbersOf(frame.head, frame.payload) : null;
    const columns = numbers?.shape[numbers.shape.length - 1] ?? 0;
    let value: string;
    if (numbers !== null && columns === this.#canvas.width && this.#range !== null) {
      value = numberText(numbers.at(y * columns + x));
    } else if (frame.kind === "picture") {
      value = [...context.getImageData(x, y, 1, 1).data.slice(0, 3)].join(", ");
    } else {
      return;
    }
    setText(this.#under, strings.detail.pixel(x, y, value));
  }

  #links(): HTMLElement[] {
    const url = location.origin + pathOf(this.access.prefix, this.topic.name);
    const name = this.topic.name;
    const header = this.access.token === null ? "" : "-H 'Authorization: Bearer TOKEN' ";
    const samples: [string, string][] = [
      ["Newest frame", `curl ${header}-o frame.npy '${url}?view=latest&format=npy'`],
      ["MJPEG, for <img>, OpenCV, ffmpeg", `${url}?view=mjpeg`],
      ["Publish a picture", `curl ${header}-H 'Content-Type: image/jpeg' --data-binary @picture.jpg '${url}'`],
      ["WebSocket", `${socketOrigin()}${pathOf(this.access.prefix, name)}?format=raw`],
      ["Python, on this machine", `import framegate\n\nfor frame in framegate.Subscriber("${name}"):\n    with frame:\n        print(frame.sequence, frame.numpy().shape)`],
      ["Terminal", `platform topic hz ${name}`],
    ];
    return samples.flatMap(([title, text]) => {
      const copy = make("button", { type: "button" }, strings.detail.copy);
      copy.addEventListener("click", () => {
        void navigator.clipboard.writeText(text).then(() => setText(copy, strings.detail.copied));
      });
      return [make("div", { class: "copy" }, make("strong", {}, title), copy), make("pre", { tabindex: "0" }, text)];
    });
  }
}

function socketOrigin(): string {
  return location.origin.replace(/^http/, "ws");
}

function typeText(dtype: string | null, shape: (number | null)[] | null, mediaType?: string): string {
  if (dtype === null) return mediaType ?? strings.detail.none;
  return `${dtype} ${(shape ?? []).map((side) => side ?? "?").join(" × ")}`;
}

function valuesText(frame: Frame): string {
  const numbers = frame.kind === "raw" ? numbersOf(frame.head, frame.payload) : null;
  if (numbers === null) return dumpLines(frame.payload, DUMP_BYTES).join("\n");
  const count = Math.min(numbers.length, VALUES);
  const values = Array.from({ length: count }, (_, index) => numberText(numbers.at(index)));
  return values.join(" ") + (count < numbers.length ? " …" : "");
}
