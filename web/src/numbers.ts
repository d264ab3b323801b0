// Arrays as numbers: dtypes, smallest and largest, the .npy form.

import type { FrameHead } from "./protocol.ts";

/** Reads item `index` of an array. */
export type Reader = (index: number) => number;

interface Dtype {
  bytes: number;
  /** As numpy writes it into a file. */
  npy: string;
  read: (view: DataView, at: number) => number;
}

const DTYPES: Record<string, Dtype> = {
  bool: { bytes: 1, npy: "|b1", read: (view, at) => view.getUint8(at) },
  uint8: { bytes: 1, npy: "|u1", read: (view, at) => view.getUint8(at) },
  int8: { bytes: 1, npy: "|i1", read: (view, at) => view.getInt8(at) },
  uint16: { bytes: 2, npy: "<u2", read: (view, at) => view.getUint16(at, true) },
  int16: { bytes: 2, npy: "<i2", read: (view, at) => view.getInt16(at, true) },
  uint32: { bytes: 4, npy: "<u4", read: (view, at) => view.getUint32(at, true) },
  int32: { bytes: 4, npy: "<i4", read: (view, at) => view.getInt32(at, true) },
  uint64: { bytes: 8, npy: "<u8", read: (view, at) => Number(view.getBigUint64(at, true)) },
  int64: { bytes: 8, npy: "<i8", read: (view, at) => Number(view.getBigInt64(at, true)) },
  float16: { bytes: 2, npy: "<f2", read: (view, at) => half(view.getUint16(at, true)) },
  float32: { bytes: 4, npy: "<f4", read: (view, at) => view.getFloat32(at, true) },
  float64: { bytes: 8, npy: "<f8", read: (view, at) => view.getFloat64(at, true) },
};

/** IEEE 754 binary16. */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

export interface Numbers {
  shape: number[];
  length: number;
  at: Reader;
}

/** The frame as an array of real numbers, if it is one. */
export function numbersOf(head: FrameHead, payload: Uint8Array<ArrayBuffer>): Numbers | null {
  const dtype = head.dtype === null ? undefined : DTYPES[head.dtype];
  if (dtype === undefined || head.shape === null) return null;
  const length = head.shape.reduce((product, side) => product * side, 1);
  if (length * dtype.bytes > payload.byteLength) return null;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  return { shape: head.shape, length, at: (index) => dtype.read(view, index * dtype.bytes) };
}

/** Smallest and largest of the finite ones. */
export function rangeOf(numbers: Numbers): [number, number] | null {
  let low = Infinity;
  let high = -Infinity;
  for (let index = 0; index < numbers.length; index += 1) {
    const value = numbers.at(index);
    if (value < low && value !== -Infinity) low = value;
    if (value > high && value !== Infinity) high = value;
  }
  return low <= high ? [low, high] : null;
}

/** A file that `numpy.load` reads (format 1.0); null where the frame is no such array. */
export function npyOf(head: FrameHead, payload: Uint8Array<ArrayBuffer>): Blob | null {
  const dtype = head.dtype === null ? undefined : DTYPES[head.dtype];
  if (dtype === undefined || head.shape === null) return null;
  const sides = head.shape.length === 1 ? `${head.shape[0] ?? 0},` : head.shape.join(", ");
  const text = `{'descr': '${dtype.npy}', 'fortran_order': False, 'shape': (${sides}), }`;
  // Magic, version and length are 10 bytes; the whole is a multiple of 64 and ends in a newline.
  const padded = text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11) + "\n";
  const begin = new Uint8Array([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, padded.length & 0xff, padded.length >> 8]);
  return new Blob([begin, padded, payload]);
}
