// One topic in the grid: its picture, its name, how it is.

import { draw } from "./draw.ts";
import { make, setText } from "./dom.ts";
import { type Access, Feed } from "./feed.ts";
import { bytesText, millisecondsText, rateText, strings } from "./strings.ts";
import type { Listed } from "./topics.ts";

const WIDTH = 480;
/** A topic that moved before and has not since is shown as old. */
const STALE_MS = 3000;
/** With reduced motion, a picture a second. */
const STILL_MS = 1000;

const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Tile {
  readonly element: HTMLButtonElement;
  readonly feed: Feed;
  #canvas = make("canvas", { width: "320", height: "180" });
  #note = make("span", { class: "note" });
  #facts = make("span", { class: "facts" });
  #drawn = 0;
  #drawing = false;
  #visible = false;
  #paused = false;

  constructor(
    public topic: Listed,
    access: Access,
    opened: () => void,
  ) {
    this.feed = new Feed(topic, access, WIDTH, () => this.#changed());
    this.#canvas.setAttribute("role", "img");
    this.#canvas.setAttribute("aria-label", topic.name);
    this.element = make(
      "button",
      { class: "tile", type: "button", "data-topic": topic.name },
      make("span", { class: "stage" }, this.#canvas, this.#note),
      make("span", { class: "title" }, make("span", { class: "name" }, topic.name), this.#facts),
    );
    this.element.addEventListener("click", opened);
    this.update(topic);
  }

  show(visible: boolean): void {
    this.#visible = visible;
    this.#look();
  }

  pause(paused: boolean): void {
    this.#paused = paused;
    this.#look();
  }

  #look(): void {
    this.feed.look(this.#visible && !this.#paused && !document.hidden);
  }

  /** The page was hidden, or is seen again. */
  seen(): void {
    this.#look();
  }

  end(): void {
    this.feed.end();
  }

  /** Once a second, with what the list says. */
  update(topic: Listed): void {
    this.topic = topic;
    this.#words();
  }

  #changed(): void {
    const frame = this.feed.frame;
    if (frame === null || frame.sequence === this.#drawn || this.#drawing || this.feed.state.name !== "live") {
      this.#words();
      return;
    }
    this.#drawing = true;
    const wait = still.matches && this.#drawn > 0 ? STILL_MS : 0;
    setTimeout(() => requestAnimationFrame(() => void this.#draw()), wait);
  }

  async #draw(): Promise<void> {
    const frame = this.feed.frame;
    try {
      if (frame !== null) {
        await draw(frame, this.#canvas);
        this.#drawn = frame.sequence;
        this.element.dataset["sequence"] = String(frame.sequence);
      }
    } finally {
      this.#drawing = false;
      this.feed.shown();
      this.#words();
    }
  }

  #words(): void {
    const [state, note] = this.#state();
    this.element.dataset["state"] = state;
    setText(this.#note, note);
    const frame = this.feed.frame;
    const age = frame === null ? null : Date.now() - frame.published;
    const rate = state === "live" ? this.feed.rate() : this.topic.rate;
    // A clock that differs is no age.
    const known = age !== null && age >= 0 && age < 60_000 && state === "live";
    setText(this.#facts, `${rateText(rate)} Hz${known ? `, ${millisecondsText(age)}` : ""}`);
  }

  #state(): [string, string] {
    const { feed, topic } = this;
    const frame = feed.frame;
    const texts = strings.tile;
    switch (feed.state.name) {
      case "denied":
        return ["denied", texts.denied];
      case "too large":
        return ["too-large", texts.tooLarge(bytesText(feed.state.bytes))];
      case "refused":
        return ["refused", texts.refused(feed.state.why)];
      case "ended":
        return ["gone", texts.ended];
      case "lost":
        return ["lost", ""];
      default:
    }
    if (frame === null) return topic.sequence === 0 ? ["waiting", texts.waiting(topic.publishers)] : ["opening", texts.opening];
    const age = Date.now() - frame.published;
    if (topic.publishers === 0 && topic.left !== null) return ["gone", texts.gone(new Date(topic.left).toLocaleTimeString())];
    if (topic.rate === 0 && age > STALE_MS) return ["stale", texts.stale((age / 1000).toFixed(0))];
    return ["live", feed.frozen ? texts.frozen : ""];
  }
}
