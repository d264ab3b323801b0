// One topic in the grid: its picture, its name, how it is.

import { make, setText } from "./dom.ts";
import { type Access, AGE_MAX_MS } from "./feed.ts";
import { Screen } from "./screen.ts";
import { millisecondsText, rateText } from "./strings.ts";
import type { Listed } from "./topics.ts";

const SIZE = { width: 480, heatBytes: 256 * 1024 };
/** With reduced motion, a picture a second. */
const STILL_MS = 1000;
/** Numbers below a picture change so often at most: they are to be read, and each change is a layout. */
const FACTS_MS = 250;
/** A tile is fed when it has been in sight for so long: who scrolls past sees what is there already. */
const LOOK_MS = 80;
/** While somebody scrolls, pictures change so often at most: moving the page comes first. */
const SCROLLING_MS = 250;
/** For so long after the page was moved. */
const SCROLLED_MS = 200;

const still = matchMedia("(prefers-reduced-motion: reduce)");
let scrolledAt = -Infinity;
// Also of elements inside, which do not bubble.
document.addEventListener("scroll", () => (scrolledAt = performance.now()), { capture: true, passive: true });

/** Milliseconds between two pictures of a tile at least. */
function pauseMs(): number {
  if (still.matches) return STILL_MS;
  return performance.now() - scrolledAt < SCROLLED_MS ? SCROLLING_MS : 0;
}

export class Tile {
  readonly element: HTMLButtonElement;
  #screen: Screen;
  #facts = make("span", { class: "facts" });
  #visible = false;
  #paused = false;
  #factsAt = 0;
  #showing: number | undefined;

  constructor(topic: Listed, access: Access, opened: () => void) {
    this.#screen = new Screen(
      topic,
      access,
      SIZE,
      pauseMs,
      (frame) => {
        this.element.dataset["sequence"] = String(frame.sequence);
      },
      () => this.#words(),
    );
    this.element = make(
      "button",
      { class: "tile", type: "button", "data-topic": topic.name },
      make("span", { class: "stage" }, this.#screen.canvas, this.#screen.note),
      make("span", { class: "title" }, make("span", { class: "name" }, topic.name), this.#facts),
    );
    this.element.addEventListener("click", opened);
    this.#words();
  }

  show(visible: boolean): void {
    this.#visible = visible;
    clearTimeout(this.#showing);
    if (visible) this.#showing = setTimeout(() => this.look(), LOOK_MS);
    else this.look();
  }

  pause(paused: boolean): void {
    this.#paused = paused;
    this.look();
  }

  /** To be called when the page was hidden, or is seen again. */
  look(): void {
    this.#screen.feed.look(this.#visible && !this.#paused && !document.hidden);
  }

  end(): void {
    clearTimeout(this.#showing);
    this.#screen.feed.look(false);
  }

  /** Once a second, with what the list says. */
  update(topic: Listed): void {
    this.#screen.topic = topic;
    this.#words();
  }

  /** How old the last frames were when they were drawn, in milliseconds. */
  get ages(): readonly number[] {
    return this.#screen.feed.ages;
  }

  #words(): void {
    const { feed, topic } = this.#screen;
    const state = this.#screen.tell();
    if (this.element.dataset["state"] !== state) this.#factsAt = 0;
    this.element.dataset["state"] = state;
    this.element.toggleAttribute("data-slow", state === "live" && this.#screen.isSlow());
    const now = performance.now();
    if (now - this.#factsAt < FACTS_MS) return;
    this.#factsAt = now;
    const age = feed.frame === null ? null : Date.now() - feed.frame.published;
    const isKnown = age !== null && age >= 0 && age < AGE_MAX_MS && state === "live";
    const rate = state === "live" ? feed.rate() : topic.rate;
    setText(this.#facts, `${rateText(rate)} Hz${isKnown ? `, ${millisecondsText(age)}` : ""}`);
  }
}
