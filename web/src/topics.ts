// The list of topics, asked for once a second while the page is seen.

import { type Access, authorization } from "./feed.ts";
import { type Participant, pathOf, type Topic } from "./protocol.ts";

export type ListState = { name: "connecting" } | { name: "live" } | { name: "denied" } | { name: "off" } | { name: "lost"; seconds: number };

const INTERVAL_MS = 1000;
/** While topics come and go, as they do when programs have just been started. */
const INTERVAL_SOON_MS = 250;
/** For so long after the last one did. */
const SETTLED_MS = 3000;
/** Of less time than this no rate is made: slow topics would seem to stand still. */
const RATE_MS = 900;
/** Lists that a rate is remembered for. */
const HISTORY = 40;
const RETRY_LAST_S = 8;

export interface Listed extends Topic {
  /** Frames per second, from two lists. */
  rate: number;
  /** The same of the lists before, newest last. */
  rates: number[];
  /** Frames that subscribers lost, per second. */
  dropped: number;
  /** When its last publisher was seen to have left; milliseconds since 1970. */
  left: number | null;
}

/** What was known of a topic a list ago. */
interface Seen {
  sequence: number;
  at: number;
  rates: number[];
  lost: number;
  dropped: number;
  publishers: number;
  left: number | null;
}

export class Topics {
  state: ListState = { name: "connecting" };
  topics: Listed[] = [];
  token: string | null = null;
  #before = new Map<string, Seen>();
  #timer: number | undefined;
  /** When other topics were there than a list ago. */
  #otherAt = performance.now();
  #failures = 0;

  constructor(
    readonly prefix: string,
    readonly changed: () => void,
  ) {}

  /** Asks now, and then again and again. */
  async run(): Promise<void> {
    clearTimeout(this.#timer);
    if (!document.hidden) await this.#ask();
    const isSettled = this.topics.length > 0 && performance.now() - this.#otherAt > SETTLED_MS;
    const usual = isSettled ? INTERVAL_MS : INTERVAL_SOON_MS;
    const wait = this.state.name === "lost" ? this.state.seconds * 1000 : usual;
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
    const isOther = topics.length !== this.#before.size || topics.some((topic) => !this.#before.has(topic.name));
    if (isOther) this.#otherAt = now;
    this.topics = topics.map((topic) => {
      const before = this.#before.get(topic.name);
      let rate = before?.rates.at(-1) ?? 0;
      let dropped = before?.dropped ?? 0;
      const isLong = before !== undefined && now - before.at >= RATE_MS;
      if (isLong) {
        const measured = (Math.max(topic.sequence - before.sequence, 0) * 1000) / (now - before.at);
        // Smoothed over a few seconds, but not when it stops or starts.
        rate = measured === 0 || rate === 0 ? measured : rate * 0.6 + measured * 0.4;
        // It falls when one who lost some leaves.
        dropped = (Math.max(topic.lost - before.lost, 0) * 1000) / (now - before.at);
      }
      let left = before?.left ?? null;
      if (topic.publishers > 0) left = null;
      else if (before !== undefined && before.publishers > 0) left = Date.now();
      const rates = isLong ? [...before.rates.slice(1 - HISTORY), rate] : (before?.rates ?? []);
      const since = isLong || before === undefined ? { sequence: topic.sequence, lost: topic.lost, at: now } : before;
      seen.set(topic.name, { ...since, rates, dropped, publishers: topic.publishers, left });
      return { ...topic, rate, rates, dropped, left };
    });
    this.#before = seen;
  }
}

/** Who takes part in a topic; null where that cannot be had. */
export async function participantsOf(topic: string, access: Access): Promise<Participant[] | null> {
  try {
    const answer = await fetch(`${pathOf(access.prefix, topic)}?view=participants`, { headers: authorization(access.token), cache: "no-store" });
    return answer.ok ? ((await answer.json()) as { participants: Participant[] }).participants : null;
  } catch {
    return null;
  }
}
