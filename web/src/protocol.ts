// What goes over the wire: docs/reference/topics-protocol.md.

/** A topic as `GET /topics` lists it. */
export interface Topic {
  name: string;
  dtype: string | null;
  shape: (number | null)[] | null;
  slots: number;
  slot_bytes: number;
  sequence: number;
  publishers: number;
  subscribers: number;
  /** Who answers calls to this name. */
  responders: number;
  /** Frames that are held, once for each holder. */
  leases: number;
  /** Frames that the subscribers of now lost. */
  lost: number;
}

/** Who takes part in a topic, as `GET /topics/{topic}?view=participants` says. */
export interface Participant {
  name: string;
  pid: number;
  role: string;
  policy: string | null;
  alive: boolean;
  frames: number;
  lost: number;
  lag: number;
  holds: number;
  oldest_ms: number | null;
  behind_ms: number | null;
}

/** What a frame is; it holds until another one is said. */
export interface FrameHead {
  dtype: string | null;
  shape: number[] | null;
  contentType: string | null;
}

export interface Frame {
  kind: "raw" | "picture";
  mediaType: string;
  sequence: number;
  /** Milliseconds since 1970. */
  published: number;
  /** The publisher's own time in seconds. */
  timestamp: number | null;
  head: FrameHead;
  payload: Uint8Array<ArrayBuffer>;
}

export class ProtocolError extends Error {}

const VERSION = 1;
const HEAD_BYTES = 32;
const HAS_EXTENSION = 1;
const MEDIA_TYPES = ["application/octet-stream", "image/jpeg", "image/webp", "image/png"];
const ACKNOWLEDGEMENT_BYTES = 9;

/** Takes a message apart; `before` is the head of the frame before. */
export function readFrame(message: ArrayBuffer, before: FrameHead): Frame {
  if (message.byteLength < HEAD_BYTES) throw new ProtocolError(`a message of ${message.byteLength} bytes`);
  const view = new DataView(message);
  const version = view.getUint8(0);
  if (version !== VERSION) throw new ProtocolError(`version ${version} of the protocol`);
  const kind = view.getUint8(1);
  const mediaType = MEDIA_TYPES[kind];
  if (mediaType === undefined) throw new ProtocolError(`a payload of kind ${kind}`);
  const begin = view.getUint16(2, true);
  if (begin < HEAD_BYTES || begin > message.byteLength) throw new ProtocolError(`a head of ${begin} bytes`);
  let head = before;
  if (view.getUint32(4, true) & HAS_EXTENSION) {
    const said = JSON.parse(new TextDecoder().decode(new Uint8Array(message, HEAD_BYTES, begin - HEAD_BYTES))) as Record<string, unknown>;
    head = {
      dtype: typeof said["dtype"] === "string" ? said["dtype"] : null,
      shape: Array.isArray(said["shape"]) ? said["shape"].map(Number) : null,
      contentType: typeof said["content_type"] === "string" ? said["content_type"] : null,
    };
  }
  const timestamp = view.getFloat64(24, true);
  return {
    kind: kind === 0 ? "raw" : "picture",
    mediaType: kind === 0 && head.contentType !== null ? head.contentType : mediaType,
    sequence: Number(view.getBigUint64(8, true)),
    published: Number(view.getBigUint64(16, true) / 1000n) / 1000,
    timestamp: Number.isNaN(timestamp) ? null : timestamp,
    head,
    payload: new Uint8Array(message, begin),
  };
}

/** Says that a frame was shown: the next one may come. */
export function acknowledgement(sequence: number): ArrayBuffer {
  const message = new ArrayBuffer(ACKNOWLEDGEMENT_BYTES);
  const view = new DataView(message);
  view.setUint8(0, VERSION);
  view.setBigUint64(1, BigInt(sequence), true);
  return message;
}

/** How a topic is asked for, so that it can be drawn. */
export type View = { format: "jpeg"; width: number } | { format: "raw" };

const RAW_BYTES_MAX = 1024 * 1024;
/** A side of a picture has at least so many pixels; smaller arrays are drawn as numbers. */
const SIDE_MIN = 16;

/** How much a viewer takes: pixels across, and bytes of a matrix that it colours itself. */
export interface Size {
  width: number;
  heatBytes: number;
}

/** How frames like this are drawn; null when they are not. */
export function viewOf(head: FrameHead, bytes: number, { width, heatBytes }: Size): View | null {
  if (head.contentType?.startsWith("image/")) return { format: "jpeg", width };
  const shape = head.shape;
  // Depth, temperatures, weights: colours tell more than greys, and their values can be read.
  if (shape?.length === 2 && head.dtype !== "uint8" && bytes <= heatBytes) return { format: "raw" };
  if (shape !== null && head.dtype !== null && isPicture(head.dtype, shape)) return { format: "jpeg", width };
  return bytes <= RAW_BYTES_MAX ? { format: "raw" } : null;
}

function isPicture(dtype: string, shape: number[]): boolean {
  const [height, width, channels] = shape;
  if (height === undefined || width === undefined || dtype.startsWith("complex") || dtype === "bool") return false;
  if (height < SIDE_MIN || width < SIDE_MIN) return false;
  return shape.length === 2 || (shape.length === 3 && [1, 3, 4].includes(channels ?? 0));
}

export function pathOf(prefix: string, topic: string): string {
  return `${prefix}/${topic}`;
}

export function socketUrl(path: string, view: View, rate: number): string {
  const query = new URLSearchParams({ format: view.format, rate: String(rate) });
  if (view.format === "jpeg") query.set("width", String(view.width));
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return `${scheme}://${location.host}${path}?${query}`;
}
