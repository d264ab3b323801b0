// The list of topics, asked for once a second while the page is seen.

import { authorization } from "./feed.ts";
import type { Topic } from "./protocol.ts";

export type ListState = { name: "connecting" } | { name: "live" } | { name: "denied" } | { name: "off" } | { name: "lost"; seconds: number };

const INTERVAL_MS = 1000;
const RETRY_LAST_S = 8;

export interface Listed extends Topic {
  /** Frames per second, from two lists. */
  rate: number;
  /** When its last publisher was seen to have left; milliseconds since 1970. */
  left: number | null;
}

/** What was known of a topic a list ago. */
interface Seen {
  sequence: number;
  at: number;
  rate: number;
  publishers: number;
  left: number | null;
}

export class Topics {
  state: ListState = { name: "connecting" };
  topics: Listed[] = [];
  token: string | null = null;
  #before = new Map<string, Seen>();
  #timer: number | undefined;
  #failures = 0;

  constructor(
    readonly prefix: string,
    readonly changed: () => void,
  ) {}

  /** Asks now, and then again and again. */
  async run(): Promise<void> {
    clearTimeout(this.#timer);
    if (!document.hidden) await this.#ask();
    const wait = this.state.name === "lost" ? this.state.seconds * 1000 : INTERVAL_MS;
    this.#timer = setTimeout(() => void this.run(), wait);
  }

  async #ask(): Promise<void> {
    try {
      const answer = await fetch(this.prefix, { headers: { Accept: "application/json", ...authorization(this.token) }, cache: "no-store" });
      if (answer.status === 401 || answer.status === 403) {
        this.#set({ name: "denied" });
        return;
      }
      if (answer.status === 404) {
        this.#set({ name: "off" });
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      const said = (await answer.json()) as { topics: Topic[] };
      this.#note(said.topics);
      this.#failures = 0;
      this.#set({ name: "live" });
    } catch {
      this.#failures += 1;
      this.#set({ name: "lost", seconds: Math.min(2 ** (this.#failures - 1), RETRY_LAST_S) });
    }
  }

  #set(state: ListState): void {
    this.state = state;
    this.changed();
  }

  #note(topics: Topic[]): void {
    const now = performance.now();
    const seen = new Map<string, Seen>();
    this.topics = topics.map((topic) => {
      const before = this.#before.get(topic.name);
      let rate = before?.rate ?? 0;
      if (before !== undefined && now > before.at) {
        const measured = (Math.max(topic.sequence - before.sequence, 0) * 1000) / (now - before.at);
        // Smoothed over a few seconds, but not when it stops or starts.
        rate = measured === 0 || rate === 0 ? measured : rate * 0.6 + measured * 0.4;
      }
      let left = before?.left ?? null;
      if (topic.publishers > 0) left = null;
      else if (before !== undefined && before.publishers > 0) left = Date.now();
      seen.set(topic.name, { sequence: topic.sequence, at: now, rate, publishers: topic.publishers, left });
      return { ...topic, rate, left };
    });
    this.#before = seen;
  }
}
