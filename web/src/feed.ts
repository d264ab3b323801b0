// One topic over one WebSocket: the newest frame, acknowledged when it was shown. Who does not look is sent nothing.

import { acknowledgement, pathOf, type Frame, type FrameHead, ProtocolError, readFrame, type Size, socketUrl, type Topic, type View, viewOf } from "./protocol.ts";

export type FeedState =
  | { name: "opening" }
  | { name: "waiting" }
  | { name: "live" }
  | { name: "too large"; bytes: number }
  | { name: "denied" }
  | { name: "refused"; why: string }
  | { name: "ended" }
  | { name: "lost" };

export interface Access {
  prefix: string;
  token: string | null;
}

/** Frames per second that one viewer asks for at most. */
export const RATE_MAX = 30;
/** Ages of frames that are remembered. */
const AGES = 128;
/** A frame that is older comes from a clock that is not ours. */
export const AGE_MAX_MS = 60_000;
const RETRY_FIRST_MS = 500;
const RETRY_LAST_MS = 8000;
/** Close codes of ours (RFC 6455, 7.4.1). */
const NORMAL = 1000;

const UNKNOWN: FrameHead = { dtype: null, shape: null, contentType: null };

export class Feed {
  state: FeedState = { name: "opening" };
  frame: Frame | null = null;
  /** Frames of the topic that were not sent, because this viewer was slower. */
  skipped = 0;
  /** When frames came, in the last two seconds. */
  #arrivals: number[] = [];
  /** How old frames were when they were drawn, in milliseconds: the last ones. */
  ages: number[] = [];
  #openedAt = 0;
  #socket: WebSocket | null = null;
  #head: FrameHead = UNKNOWN;
  #owed: number | null = null;
  #looking = false;
  #frozen = false;
  /** While frozen: one frame may pass. */
  #stepping = false;
  /** While frozen: a frame that was on its way already. The next step shows it. */
  #held: Frame | null = null;
  /** Whether `frame` is still to be drawn. */
  #undrawn = false;
  #retry: number | undefined;
  #retryMs = RETRY_FIRST_MS;
  #run = 0;

  constructor(
    readonly topic: Topic,
    readonly access: Access,
    readonly size: Size,
    /** Called when there is a frame to be shown, or another state. */
    readonly changed: () => void,
  ) {}

  /** Frames per second that arrived in the last two seconds. */
  rate(now = performance.now()): number {
    const recent = this.#arrivals.filter((at) => now - at <= 2000);
    this.#arrivals = recent;
    const first = recent[0];
    return first === undefined || recent.length < 2 ? 0 : ((recent.length - 1) * 1000) / Math.max(now - first, 1);
  }

  /** Whether it has been open for so long that its rate means something. */
  isSettled(now = performance.now()): boolean {
    return this.#socket !== null && now - this.#openedAt > 3000;
  }

  /** Somebody can see it, or nobody can. */
  look(looking: boolean): void {
    if (looking === this.#looking) return;
    this.#looking = looking;
    if (looking) void this.#open();
    else this.#close();
  }

  get frozen(): boolean {
    return this.#frozen;
  }

  freeze(frozen: boolean): void {
    this.#frozen = frozen;
    this.#stepping = false;
    if (!frozen && this.#held !== null) this.#pass(this.#held);
    else if (!frozen && !this.#undrawn) this.#acknowledge();
    this.changed();
  }

  /** Lets one frame through while frozen. */
  step(): void {
    this.#frozen = true;
    // A frame that is still to be drawn is the next one that is seen.
    if (this.#undrawn) return;
    if (this.#held !== null) {
      this.#pass(this.#held);
      return;
    }
    this.#stepping = true;
    this.#acknowledge();
  }

  /** The frame was drawn: the next one may come. */
  shown(): void {
    this.#undrawn = false;
    const age = this.frame === null ? -1 : Date.now() - this.frame.published;
    if (age >= 0 && age < AGE_MAX_MS) {
      this.ages.push(age);
      if (this.ages.length > AGES) this.ages.shift();
    }
    if (!this.#frozen) this.#acknowledge();
  }

  #acknowledge(): void {
    if (this.#owed === null || this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#socket.send(acknowledgement(this.#owed));
    this.#owed = null;
  }

  #set(state: FeedState): void {
    this.state = state;
    this.changed();
  }

  #close(): void {
    this.#run += 1;
    clearTimeout(this.#retry);
    this.#socket?.close(NORMAL);
    this.#socket = null;
    this.#owed = null;
    this.#held = null;
    this.#arrivals = [];
    this.ages = [];
  }

  /** How the topic is to be asked for. A topic that may hold anything is known by its newest frame. */
  async #view(): Promise<View | null | undefined> {
    const { dtype, shape, slot_bytes } = this.topic;
    if (dtype !== null && shape?.every((side) => side !== null)) {
      return viewOf({ dtype, shape: shape as number[], contentType: null }, slot_bytes, this.size);
    }
    const answer = await fetch(`${pathOf(this.access.prefix, this.topic.name)}?view=latest`, {
      method: "HEAD",
      headers: authorization(this.access.token),
    });
    if (answer.status === 401 || answer.status === 403) {
      this.#set({ name: "denied" });
      return undefined;
    }
    if (!answer.ok || answer.status === 204) {
      this.#set({ name: "waiting" });
      return undefined;
    }
    const said = answer.headers.get("Frame-Shape");
    const head = {
      dtype: answer.headers.get("Frame-Dtype"),
      shape: said === null ? null : said.split(",").map(Number),
      contentType: answer.headers.get("Content-Type"),
    };
    return viewOf(head, Number(answer.headers.get("Content-Length") ?? this.topic.slot_bytes), this.size);
  }

  async #open(): Promise<void> {
    this.#run += 1;
    const run = this.#run;
    let view: View | null | undefined;
    try {
      view = await this.#view();
    } catch {
      this.#set({ name: "lost" });
    }
    if (run !== this.#run || !this.#looking) return;
    if (view === undefined) {
      this.#again();
      return;
    }
    if (view === null) {
      this.#set({ name: "too large", bytes: this.topic.slot_bytes });
      return;
    }
    this.#connect(view);
  }

  #connect(view: View): void {
    const url = socketUrl(pathOf(this.access.prefix, this.topic.name), view, RATE_MAX);
    const token = this.access.token;
    const socket = new WebSocket(url, token === null ? [] : ["framegate.v1", `framegate.bearer.${base64url(token)}`]);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    this.#head = UNKNOWN;
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.#openedAt = performance.now();
      if (this.frame === null) this.#set({ name: "waiting" });
    };
    socket.onmessage = (event: MessageEvent<ArrayBuffer | string>) => {
      if (socket === this.#socket) this.#received(event.data);
    };
    socket.onclose = (event) => {
      if (socket !== this.#socket) return;
      this.#socket = null;
      this.#owed = null;
      if (this.state.name === "refused") return;
      if (event.code === NORMAL && opened) this.#set({ name: "ended" });
      else this.#set({ name: "lost" });
      this.#again();
    };
  }

  #received(data: ArrayBuffer | string): void {
    if (typeof data === "string") {
      // A problem (RFC 9457): the frame cannot be had in this form.
      this.#refuse(titleOf(data));
      return;
    }
    let frame: Frame;
    try {
      frame = readFrame(data, this.#head);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#refuse(error.message);
      return;
    }
    this.#head = frame.head;
    this.#owed = frame.sequence;
    this.#arrivals.push(performance.now());
    this.#retryMs = RETRY_FIRST_MS;
    if (this.#frozen && !this.#stepping) this.#held = frame;
    else this.#pass(frame);
  }

  /** The frame is the one to be seen now. */
  #pass(frame: Frame): void {
    if (this.frame !== null && frame.sequence > this.frame.sequence + 1) {
      this.skipped += frame.sequence - this.frame.sequence - 1;
    }
    this.frame = frame;
    this.#held = null;
    this.#stepping = false;
    this.#undrawn = true;
    this.#set({ name: "live" });
  }

  #refuse(why: string): void {
    this.#socket?.close(NORMAL);
    this.#set({ name: "refused", why });
  }

  #again(): void {
    const wait = this.#retryMs * (0.75 + Math.random() / 2);
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_LAST_MS);
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => {
      if (this.#looking) void this.#open();
    }, wait);
  }
}

export function authorization(token: string | null): Record<string, string> {
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

/** RFC 4648, section 5, without padding: what a subprotocol may be made of. */
function base64url(text: string): string {
  const bytes = new TextEncoder().encode(text);
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function titleOf(problem: string): string {
  try {
    const said = JSON.parse(problem) as Record<string, unknown>;
    return String(said["detail"] ?? said["title"] ?? problem);
  } catch {
    return problem;
  }
}
