// Frames onto a canvas: pictures as they are, arrays as plots and heat maps, other bytes as a dump.

import type { Frame } from "./protocol.ts";
import { type Numbers, numbersOf, rangeOf } from "./numbers.ts";
import { numberText } from "./strings.ts";

/** What was drawn, for who wants to say it in words. */
export interface Drawn {
  /** Of the frame as it was sent, in pixels; of a plot, null. */
  width: number | null;
  height: number | null;
  range: [number, number] | null;
  /** What lies at a pixel of the canvas; null: a plot. */
  value: ((x: number, y: number) => string | null) | null;
}

const PLOT = { width: 640, height: 360, margin: 12 };
const DUMP_BYTES = 256;
/** Curves of a plot of shape (rows, curves). */
const CURVES_MAX = 8;

/** Colours of curves and of the map, told apart by people who see few colours (viridis; Okabe and Ito). */
const CURVES = ["#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#0072b2", "#d55e00", "#f0e442", "#999999"];
const VIRIDIS: readonly (readonly [number, number, number])[] = [
  [68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [109, 205, 89], [180, 222, 44], [253, 231, 37],
];

export async function draw(frame: Frame, canvas: HTMLCanvasElement): Promise<Drawn> {
  const context = canvas.getContext("2d", { alpha: false });
  if (context === null) throw new Error("this browser has no canvas");
  if (frame.kind === "picture" || frame.mediaType.startsWith("image/")) {
    const bitmap = await createImageBitmap(new Blob([frame.payload], { type: frame.mediaType }));
    resize(canvas, bitmap.width, bitmap.height);
    context.drawImage(bitmap, 0, 0);
    const size = { width: bitmap.width, height: bitmap.height };
    bitmap.close();
    const value = (x: number, y: number) => [...context.getImageData(x, y, 1, 1).data.slice(0, 3)].join(", ");
    return { ...size, range: null, value };
  }
  const numbers = numbersOf(frame.head, frame.payload);
  if (numbers === null || numbers.length === 0) {
    dump(frame.payload, canvas, context);
    return { width: null, height: null, range: null, value: null };
  }
  const range = rangeOf(numbers);
  const [rows = 1, columns = 1] = sidesOf(numbers.shape);
  if (numbers.length <= CURVES_MAX) bars(numbers, range, canvas, context);
  else if (columns <= CURVES_MAX || rows === 1) curves(numbers, range, canvas, context);
  else return { width: null, height: null, range, value: heat(numbers, range, canvas, context) };
  return { width: null, height: null, range, value: null };
}

/** Rows and columns, of what has more dimensions all rows. */
function sidesOf(shape: number[]): [number, number] {
  if (shape.length < 2) return [1, shape[0] ?? 1];
  const columns = shape[shape.length - 1] ?? 1;
  return [shape.slice(0, -1).reduce((product, side) => product * side, 1), columns];
}

function resize(canvas: HTMLCanvasElement, width: number, height: number): void {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
}

function clear(canvas: HTMLCanvasElement, context: CanvasRenderingContext2D): void {
  resize(canvas, PLOT.width, PLOT.height);
  context.fillStyle = "#1f2328";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.font = "16px ui-monospace, monospace";
}

/** How a tensor's images (its last two dimensions) lie beside each other, so that the whole is about as wide as a tile. */
interface Planes {
  height: number;
  width: number;
  across: number;
  down: number;
}

/** Between two images of a tensor, in pixels. */
const GAP = 1;

function planesOf(shape: number[]): Planes {
  const [height = 1, width = 1] = shape.slice(-2);
  const count = shape.slice(0, -2).reduce((product, side) => product * side, 1);
  const across = Math.min(count, Math.max(1, Math.round(Math.sqrt((count * height * 16) / (width * 9)))));
  return { height, width, across, down: Math.ceil(count / across) };
}

/** Colours for the numbers from the smallest to the largest, as pixels (little endian: alpha first). */
const COLOURS = Uint32Array.from({ length: 256 }, (_, index) => {
  const [red = 0, green = 0, blue = 0] = mixed((index / 255) * (VIRIDIS.length - 1));
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
});
const NO_NUMBER = 0xff808080;

/** A heat map; gives what says which number a pixel stands for. */
function heat(
  numbers: Numbers, range: [number, number] | null, canvas: HTMLCanvasElement, context: CanvasRenderingContext2D,
): (x: number, y: number) => string | null {
  const { height, width, across, down } = planesOf(numbers.shape);
  resize(canvas, across * (width + GAP) - GAP, down * (height + GAP) - GAP);
  const image = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer).fill(NO_NUMBER);
  const [low, high] = range ?? [0, 1];
  const scale = high > low ? (COLOURS.length - 1) / (high - low) : 0;
  let index = 0;
  for (let plane = 0; index < numbers.length; plane += 1) {
    const left = (plane % across) * (width + GAP);
    const top = Math.floor(plane / across) * (height + GAP);
    for (let row = 0; row < height; row += 1) {
      let at = (top + row) * canvas.width + left;
      for (let column = 0; column < width; column += 1) {
        const value = numbers.at(index);
        index += 1;
        const place = Math.round(Math.min(Math.max((value - low) * scale, 0), COLOURS.length - 1));
        pixels[at] = COLOURS[place] ?? NO_NUMBER;
        at += 1;
      }
    }
  }
  context.putImageData(image, 0, 0);
  return (x, y) => {
    const [column, row] = [x % (width + GAP), y % (height + GAP)];
    const plane = Math.floor(y / (height + GAP)) * across + Math.floor(x / (width + GAP));
    const item = (plane * height + row) * width + column;
    return column < width && row < height && item < numbers.length ? numberText(numbers.at(item)) : null;
  };
}

function mixed(place: number): number[] {
  const index = Math.min(Math.floor(place), VIRIDIS.length - 2);
  const below = VIRIDIS[index] ?? [0, 0, 0];
  const above = VIRIDIS[index + 1] ?? below;
  const share = place - index;
  return below.map((part, channel) => Math.round(part + ((above[channel] ?? part) - part) * share));
}

/** The last rates of a topic as a line, as high as the largest. */
export function sparkline(rates: readonly number[], count: number, canvas: HTMLCanvasElement): void {
  const context = canvas.getContext("2d");
  if (context === null) return;
  const { width, height } = canvas;
  context.clearRect(0, 0, width, height);
  const most = Math.max(...rates, 1e-9);
  context.strokeStyle = getComputedStyle(canvas).color;
  context.lineWidth = 1.5;
  context.beginPath();
  rates.forEach((rate, index) => {
    context.lineTo(width - 1 - (rates.length - 1 - index) * ((width - 2) / (count - 1)), height - 2 - (rate / most) * (height - 4));
  });
  context.stroke();
}

function curves(numbers: Numbers, range: [number, number] | null, canvas: HTMLCanvasElement, context: CanvasRenderingContext2D): void {
  clear(canvas, context);
  const [low, high] = range ?? [0, 1];
  const [rows, columns] = sidesOf(numbers.shape);
  const [count, points] = numbers.shape.length < 2 || rows === 1 ? [1, numbers.length] : [columns, rows];
  const width = canvas.width - 2 * PLOT.margin;
  const height = canvas.height - 2 * PLOT.margin - 20;
  const y = (value: number) => PLOT.margin + 20 + height - (high > low ? (value - low) / (high - low) : 0.5) * height;
  for (let curve = 0; curve < count; curve += 1) {
    context.strokeStyle = CURVES[curve % CURVES.length] ?? "#ffffff";
    context.lineWidth = 2;
    context.beginPath();
    for (let point = 0; point < points; point += 1) {
      const value = numbers.at(count === 1 ? point : point * count + curve);
      const x = PLOT.margin + (points > 1 ? (point / (points - 1)) * width : width / 2);
      if (Number.isFinite(value)) context.lineTo(x, y(value));
    }
    context.stroke();
  }
  context.fillStyle = "#d0d7de";
  context.fillText(`${numberText(low)} to ${numberText(high)}`, PLOT.margin, PLOT.margin + 12);
}

function bars(numbers: Numbers, range: [number, number] | null, canvas: HTMLCanvasElement, context: CanvasRenderingContext2D): void {
  clear(canvas, context);
  const [low, high] = range ?? [0, 0];
  const [bottom, top] = [Math.min(low, 0), Math.max(high, 0)];
  const row = (canvas.height - 2 * PLOT.margin) / numbers.length;
  const begin = PLOT.margin + 150;
  const width = canvas.width - begin - PLOT.margin;
  const x = (value: number) => begin + (top > bottom ? (value - bottom) / (top - bottom) : 0) * width;
  for (let index = 0; index < numbers.length; index += 1) {
    const value = numbers.at(index);
    const y = PLOT.margin + index * row;
    context.fillStyle = "#d0d7de";
    context.fillText(`${index}  ${numberText(value)}`, PLOT.margin, y + row / 2 + 5, begin - 2 * PLOT.margin);
    if (!Number.isFinite(value)) continue;
    context.fillStyle = CURVES[index % CURVES.length] ?? "#ffffff";
    context.fillRect(Math.min(x(0), x(value)), y + row * 0.2, Math.max(Math.abs(x(value) - x(0)), 2), row * 0.6);
  }
}

function dump(payload: Uint8Array, canvas: HTMLCanvasElement, context: CanvasRenderingContext2D): void {
  clear(canvas, context);
  context.fillStyle = "#d0d7de";
  dumpLines(payload, DUMP_BYTES).forEach((line, index) => {
    context.fillText(line, PLOT.margin, PLOT.margin + 16 + index * 20, canvas.width - 2 * PLOT.margin);
  });
}

/** Lines as `hexdump -C` writes them. */
export function dumpLines(payload: Uint8Array, bytes: number): string[] {
  const lines = [];
  for (let at = 0; at < Math.min(payload.length, bytes); at += 16) {
    const row = [...payload.subarray(at, Math.min(at + 16, bytes))];
    const hex = row.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const text = row.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(4, "0")}  ${hex.padEnd(47)}  ${text}`);
  }
  return lines;
}
