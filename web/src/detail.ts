// The open topic: its picture in full size, its data, and how to get at it from elsewhere.

import { dumpLines, type Drawn } from "./draw.ts";
import { download, make, sample, setText } from "./dom.ts";
import type { Access } from "./feed.ts";
import { numbersOf, npyOf } from "./numbers.ts";
import { Readers } from "./readers.ts";
import { type Frame, pathOf } from "./protocol.ts";
import { Screen } from "./screen.ts";
import { bytesText, millisecondsText, numberText, rateText, strings } from "./strings.ts";
import type { Listed } from "./topics.ts";

const SIZE = { width: 1280, heatBytes: 4 * 1024 * 1024 };
const VALUES = 64;
const DUMP_BYTES = 256;

export const TABS = ["picture", "data", "readers", "links", "record"] as const;
export type Tab = (typeof TABS)[number];

export class Detail {
  #screen: Screen;
  #under = make("p", { "aria-live": "off" });
  #values = make("pre", { tabindex: "0" });
  #facts = new Map<keyof typeof strings.detail.facts, HTMLElement>();
  #panels: Record<Tab, HTMLElement>;
  #tabs: Record<Tab, HTMLButtonElement>;
  #freeze: HTMLButtonElement;
  #drawn: Drawn | null = null;
  /** The pixel below the pointer, or none. */
  #pointed: [number, number] | null = null;
  #readers: Readers;

  constructor(
    topic: Listed,
    readonly access: Access,
    readonly element: HTMLElement,
    readonly chosen: (tab: Tab) => void,
    closed: () => void,
    tab: Tab,
  ) {
    const words = strings.detail;
    this.#screen = new Screen(topic, access, SIZE, () => 0, (frame, drawn) => this.#shown(frame, drawn), () => this.#words());
    const { canvas, note } = this.#screen;
    this.#readers = new Readers(topic.name, access);
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
      picture: make("div", { role: "tabpanel" }, make("div", { class: "large" }, canvas, note), this.#under),
      data: make("div", { role: "tabpanel" }, facts, make("h2", {}, words.values), this.#values),
      readers: make("div", { role: "tabpanel" }, this.#readers.element),
      links: make("div", { role: "tabpanel" }, ...this.#links()),
      record: make("div", { role: "tabpanel" }, ...this.#record()),
    };
    for (const name of TABS) {
      this.#panels[name].id = `panel-${name}`;
      this.#panels[name].setAttribute("aria-labelledby", `tab-${name}`);
    }
    const bar = make("div", { class: "bar", role: "tablist" });
    this.#tabs = Object.fromEntries(
      TABS.map((name) => {
        const button = make("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}` }, words.tabs[name]);
        button.addEventListener("click", () => this.choose(name));
        button.addEventListener("keydown", (event) => this.#turn(event, name));
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
    canvas.addEventListener("mousemove", (event) => this.#point(event));
    canvas.addEventListener("mouseleave", () => this.#point(null));
    canvas.addEventListener("click", () => this.zoom());
    this.choose(tab);
    this.look();
    this.#words();
  }

  get topic(): Listed {
    return this.#screen.topic;
  }

  choose(tab: Tab): void {
    for (const name of TABS) {
      this.#panels[name].hidden = name !== tab;
      this.#tabs[name].setAttribute("aria-selected", String(name === tab));
      this.#tabs[name].tabIndex = name === tab ? 0 : -1;
    }
    this.chosen(tab);
    this.look();
  }

  /** From tab to tab by arrows. */
  #turn(event: KeyboardEvent, from: Tab): void {
    const step = { ArrowRight: 1, ArrowLeft: TABS.length - 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const next = TABS[(TABS.indexOf(from) + step) % TABS.length] ?? from;
    this.choose(next);
    this.#tabs[next].focus();
  }

  /** Pixel for pixel, to be scrolled; or the whole. */
  zoom(): void {
    this.#screen.canvas.toggleAttribute("data-zoom");
  }

  /** To be called when the page was hidden, or is seen again. */
  look(): void {
    this.#screen.feed.look(!document.hidden);
    this.#readers.look(!document.hidden && !this.#panels.readers.hidden);
  }

  end(): void {
    this.#screen.feed.look(false);
    this.#readers.look(false);
    this.element.hidden = true;
    this.element.replaceChildren();
  }

  freeze(): void {
    this.#screen.feed.freeze(!this.#screen.feed.frozen);
  }

  step(): void {
    this.#screen.feed.step();
    this.#words();
  }

  /** The frame that is shown, as a file: an array as .npy, the rest as it came. */
  download(): void {
    const frame = this.#screen.feed.frame;
    if (frame === null) return;
    const npy = frame.kind === "raw" ? npyOf(frame.head, frame.payload) : null;
    const ending = npy !== null ? "npy" : (frame.mediaType.split("/")[1] ?? "bin").replace("octet-stream", "bin");
    const name = `${this.topic.name.replaceAll("/", "-")}-${frame.sequence}.${ending}`;
    download(npy ?? new Blob([frame.payload], { type: frame.mediaType }), name);
  }

  update(topic: Listed): void {
    this.#screen.topic = topic;
    this.#words();
  }

  #shown(frame: Frame, drawn: Drawn): void {
    this.#drawn = drawn;
    this.element.dataset["sequence"] = String(frame.sequence);
    if (!this.#panels.data.hidden) setText(this.#values, valuesText(frame));
    this.#explain();
  }

  #words(): void {
    const { feed, topic } = this.#screen;
    const words = strings.detail;
    this.#freeze.setAttribute("aria-pressed", String(feed.frozen));
    setText(this.#freeze, feed.frozen ? words.thaw : words.freeze);
    this.#screen.tell();
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
      leases: String(topic.leases),
      lost: String(topic.lost),
    };
    for (const [key, element] of this.#facts) setText(element, facts[key]);
  }

  #point(event: MouseEvent | null): void {
    const { canvas } = this.#screen;
    const isOver = event !== null && canvas.clientWidth > 0 && canvas.clientHeight > 0;
    this.#pointed = isOver
      ? [Math.floor((event.offsetX / canvas.clientWidth) * canvas.width), Math.floor((event.offsetY / canvas.clientHeight) * canvas.height)]
      : null;
    this.#explain();
  }

  /** What the pixel below the pointer stands for, else what the numbers are between. */
  #explain(): void {
    const { range, value } = this.#drawn ?? { range: null, value: null };
    const words = strings.detail;
    const pixel = this.#pointed === null ? null : (value?.(...this.#pointed) ?? null);
    if (this.#pointed !== null && pixel !== null) setText(this.#under, words.pixel(...this.#pointed, pixel));
    else setText(this.#under, range === null ? "" : words.range(numberText(range[0]), numberText(range[1])));
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
    return samples.flatMap(([title, text]) => sample(title, text, strings.detail));
  }

  #record(): HTMLElement[] {
    const name = this.topic.name;
    const file = `${name.replaceAll("/", "-")}.mcap`;
    const { text, mcap, replay, video } = strings.detail.record;
    const url = location.origin + pathOf(this.access.prefix, name);
    return [
      make("p", {}, text),
      ...sample(mcap, `platform topic record ${name} -o ${file}`, strings.detail),
      ...sample(replay, `platform topic replay ${file} --prefix replay/`, strings.detail),
      ...sample(video, `ffmpeg -f mpjpeg -i '${url}?view=mjpeg' -c copy ${file.replace(/mcap$/, "mkv")}`, strings.detail),
    ];
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
