// Who takes part in the open topic: what each one holds, how far behind it is, what it lost. Asked for once a second while it is seen.

import { make, setText } from "./dom.ts";
import type { Access } from "./feed.ts";
import type { Participant } from "./protocol.ts";
import { millisecondsText, strings } from "./strings.ts";
import { participantsOf } from "./topics.ts";

const INTERVAL_MS = 1000;
/** A frame that is held for longer is marked. */
const OLD_MS = 1000;

export class Readers {
  readonly element: HTMLElement;
  #body = make("tbody");
  #note = make("p");
  #timer: number | undefined;
  #isOn = false;

  constructor(
    readonly topic: string,
    readonly access: Access,
  ) {
    const words = strings.readers;
    const heads = Object.values(words.columns).map((name) => make("th", { scope: "col" }, name));
    this.element = make(
      "div",
      { class: "wide", tabindex: "0", role: "group", "aria-label": strings.detail.tabs.readers },
      make("table", { id: "readers" }, make("thead", {}, make("tr", {}, ...heads)), this.#body),
      this.#note,
    );
  }

  look(looking: boolean): void {
    if (looking === this.#isOn) return;
    this.#isOn = looking;
    clearTimeout(this.#timer);
    if (looking) void this.#ask();
  }

  async #ask(): Promise<void> {
    const found = await participantsOf(this.topic, this.access);
    if (!this.#isOn) return;
    if (found !== null) this.#show(found);
    else setText(this.#note, strings.readers.unknown);
    this.#timer = setTimeout(() => void this.#ask(), INTERVAL_MS);
  }

  #show(found: Participant[]): void {
    const words = strings.readers;
    setText(this.#note, found.length === 0 ? words.nobody : words.explained);
    while (this.#body.rows.length > found.length) this.#body.deleteRow(-1);
    found.forEach((one, index) => {
      const row = this.#body.rows[index] ?? this.#body.insertRow();
      const reads = one.role === "subscriber";
      const isOld = reads && (one.oldest_ms ?? 0) > OLD_MS;
      const texts: [string, boolean][] = [
        [one.name === "" ? strings.detail.none : one.name, false],
        [String(one.pid), false],
        [one.alive ? (one.policy ?? one.role) : words.dead(one.policy ?? one.role), !one.alive],
        [String(one.frames), false],
        [reads ? String(one.lost) : strings.detail.none, false],
        [reads ? words.behind(one.lag, one.behind_ms === null ? "" : millisecondsText(one.behind_ms)) : strings.detail.none, false],
        [words.holds(one.holds, one.oldest_ms === null ? "" : millisecondsText(one.oldest_ms), isOld), isOld],
      ];
      texts.forEach(([text, isBad], column) => {
        const cell = row.cells[column] ?? row.insertCell();
        setText(cell, text);
        cell.classList.toggle("bad", isBad);
      });
    });
  }
}
