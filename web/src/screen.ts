// The newest frame of a topic on a canvas, drawn as fast as the browser draws and no faster, and in words how it is.

import { draw, type Drawn } from "./draw.ts";
import { make, setText } from "./dom.ts";
import { type Access, Feed, RATE_MAX } from "./feed.ts";
import type { Frame, Size } from "./protocol.ts";
import { bytesText, rateText, strings } from "./strings.ts";
import type { Listed } from "./topics.ts";

/** A topic that moved before and has not since is shown as old. */
const STALE_MS = 3000;
/** Less than this share of what was asked for is slow. */
const SLOW_SHARE = 0.6;

/** What a topic looks like to a style sheet, and to a reader. */
export type Seen = [name: string, note: string];

export class Screen {
  readonly feed: Feed;
  readonly canvas = make("canvas", { width: "320", height: "180", role: "img" });
  readonly note = make("span", { class: "note" });
  /** The frame that is drawn. After a lost link it may come again, under the same number. */
  #drawn: Frame | null = null;
  #drawing = false;

  constructor(
    public topic: Listed,
    access: Access,
    size: Size,
    /** Between two frames at least, in milliseconds. */
    readonly pause: () => number,
    /** A frame was drawn. */
    readonly shown: (frame: Frame, drawn: Drawn) => void,
    /** Something else is to be said. */
    readonly changed: () => void,
  ) {
    this.feed = new Feed(topic, access, size, () => this.#changed());
    this.canvas.setAttribute("aria-label", topic.name);
  }

  #changed(): void {
    const frame = this.feed.frame;
    if (frame === null || frame === this.#drawn || this.#drawing || this.feed.state.name !== "live") {
      this.changed();
      return;
    }
    this.#drawing = true;
    const wait = this.#drawn === null ? 0 : this.pause();
    setTimeout(() => requestAnimationFrame(() => void this.#draw()), wait);
  }

  async #draw(): Promise<void> {
    const frame = this.feed.frame;
    try {
      if (frame !== null) {
        const drawn = await draw(frame, this.canvas);
        this.#drawn = frame;
        this.shown(frame, drawn);
      }
    } finally {
      this.#drawing = false;
      this.feed.shown();
      this.changed();
    }
  }

  /** How the topic is, as its feed and the list of topics know. */
  state(): Seen {
    const { feed, topic } = this;
    const texts = strings.tile;
    switch (feed.state.name) {
      case "denied":
        return ["denied", texts.denied];
      case "too large":
        return ["too-large", texts.tooLarge(bytesText(feed.state.bytes))];
      case "refused":
        return ["refused", feed.state.why];
      case "ended":
        return ["gone", texts.ended];
      case "lost":
        return ["lost", ""];
      default:
    }
    const frame = feed.frame;
    if (frame === null && topic.sequence === 0 && topic.responders > 0) return ["calls", texts.calls(topic.responders)];
    if (frame === null) return topic.sequence === 0 ? ["waiting", texts.waiting(topic.publishers)] : ["opening", texts.opening];
    const age = Date.now() - frame.published;
    if (topic.publishers === 0 && topic.left !== null) return ["gone", texts.gone(new Date(topic.left).toLocaleTimeString())];
    if (topic.rate === 0 && age > STALE_MS) return ["stale", texts.stale((age / 1000).toFixed(0))];
    if (feed.frozen) return ["live", texts.frozen];
    return ["live", this.isSlow() ? texts.slow(rateText(feed.rate()), rateText(topic.rate)) : ""];
  }

  /** Whether this viewer sees far fewer frames than it asked for. */
  isSlow(): boolean {
    const { feed, topic } = this;
    const asked = Math.min(topic.rate, RATE_MAX, 1000 / Math.max(this.pause(), 1));
    return feed.isSettled() && !feed.frozen && topic.rate > 0 && feed.rate() < asked * SLOW_SHARE;
  }

  /** Says so; gives the state's name. */
  tell(): string {
    const [name, note] = this.state();
    setText(this.note, note);
    return name;
  }
}
