// A camera of the page itself, where the server lets it publish (while developing): a ball over a gradient, with a frame counter.

import { pathOf } from "./protocol.ts";

/** As `rust/py/src/live.rs` makes the topic. */
const [HEIGHT, WIDTH] = [180, 320];
const FRAMES_PER_SECOND = 30;
const HEAD_BYTES = 32;
const RADIUS = 14;

/** To and fro over `span` places. */
function bounce(step: number, span: number): number {
  const place = step % (2 * span);
  return place < span ? place : 2 * span - place;
}

export class DemoCamera {
  #socket: WebSocket | null = null;
  #timer: number | undefined;
  #canvas = new OffscreenCanvas(WIDTH, HEIGHT);
  #number = 0;
  #isTaken = true;

  constructor(
    readonly prefix: string,
    readonly topic: string,
    /** It began, or ended. */
    readonly changed: (isOn: boolean) => void,
  ) {}

  get isOn(): boolean {
    return this.#socket !== null;
  }

  toggle(): void {
    if (this.isOn) this.#end();
    else this.#begin();
  }

  #begin(): void {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    // Commas stand as they are, which URLSearchParams would not leave them.
    const query = `mode=publish&dtype=uint8&shape=${HEIGHT},${WIDTH},4`;
    const socket = new WebSocket(`${scheme}://${location.host}${pathOf(this.prefix, this.topic)}?${query}`);
    this.#socket = socket;
    this.#isTaken = true;
    socket.onopen = () => {
      this.#timer = setInterval(() => this.#send(socket), 1000 / FRAMES_PER_SECOND);
    };
    // Each frame is answered: published, or refused because no slot was free. Either way the next may go.
    socket.onmessage = () => {
      this.#isTaken = true;
    };
    socket.onclose = () => {
      if (this.#socket === socket) this.#end();
    };
    this.changed(true);
  }

  #end(): void {
    clearInterval(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
    this.changed(false);
  }

  #send(socket: WebSocket): void {
    const context = this.#canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    if (context === null || !this.#isTaken || socket.readyState !== WebSocket.OPEN) return;
    this.#isTaken = false;
    this.#draw(context);
    const pixels = context.getImageData(0, 0, WIDTH, HEIGHT).data;
    const message = new Uint8Array(HEAD_BYTES + pixels.length);
    const head = new DataView(message.buffer);
    head.setUint8(0, 1);
    head.setUint16(2, HEAD_BYTES, true);
    head.setFloat64(24, Date.now() / 1000, true);
    message.set(pixels, HEAD_BYTES);
    socket.send(message);
    this.#number += 1;
  }

  #draw(context: OffscreenCanvasRenderingContext2D): void {
    const ground = context.createLinearGradient(0, 0, 0, HEIGHT);
    ground.addColorStop(0, "#28527a");
    ground.addColorStop(1, "#8ac4d0");
    context.fillStyle = ground;
    context.fillRect(0, 0, WIDTH, HEIGHT);
    context.fillStyle = "#fbeeac";
    context.beginPath();
    context.arc(RADIUS + bounce(3 * this.#number, WIDTH - 2 * RADIUS), RADIUS + bounce(2 * this.#number, HEIGHT - 2 * RADIUS), RADIUS, 0, 2 * Math.PI);
    context.fill();
    context.font = "16px monospace";
    context.fillText(`frame ${this.#number}`, 10, HEIGHT - 12);
  }
}
