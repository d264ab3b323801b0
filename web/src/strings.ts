// Every text that the page shows.

export const strings = {
  title: "framegate live",
  link: {
    connecting: "connecting",
    live: "live",
    lost: (seconds: number) => `connection lost, next try in ${seconds} s`,
    denied: "no permission",
    off: "frame routes are off",
  },
  paused: "paused",
  pause: "Pause",
  resume: "Go on",
  sum: (topics: number, rate: string) => `${topics} ${topics === 1 ? "topic" : "topics"}, ${rate} frames/s`,
  filter: "Filter topics",
  columns: { name: "Topic", rate: "Hz", size: "Size", publishers: "Pub", subscribers: "Sub" },
  tile: {
    waiting: (publishers: number) =>
      publishers === 0 ? "no frame yet, and no publisher" : `no frame yet, ${publishers} publisher${publishers === 1 ? "" : "s"}`,
    opening: "opening",
    gone: (time: string) => `the publisher left at ${time}; this is its last frame`,
    stale: (seconds: string) => `last frame ${seconds} s ago`,
    ended: "the topic was removed",
    denied: "you may not read this topic",
    tooLarge: (size: string) => `no picture: ${size} a frame is too much to draw here`,
    bytes: (size: string) => `${size} of raw bytes`,
    refused: (why: string) => why,
    frozen: "frozen",
  },
  empty: {
    heading: "Nothing is published yet",
    text: "Publish an array from any process on this machine, and it appears here without a reload:",
    python: (topic: string) =>
      ["import numpy, framegate", `with framegate.Publisher("${topic}", dtype="uint8", shape=(480, 640, 3)) as publisher:`,
        "    while True:", "        publisher.send(numpy.random.randint(0, 255, (480, 640, 3), numpy.uint8))"].join("\n"),
    curl: "or send a picture over HTTP, where the configuration lets topics be made:",
  },
  noMatch: "no topic matches the filter",
  token: {
    heading: "These topics are for who has a token",
    text: "It is kept in this tab only.",
    label: "Token",
    submit: "Look",
  },
  detail: {
    close: "Close",
    tabs: { picture: "Picture", data: "Data", links: "Links" },
    freeze: "Freeze",
    thaw: "Go on",
    step: "Step",
    download: "Download frame",
    copy: "Copy",
    copied: "Copied",
    pixel: (x: number, y: number, value: string) => `x ${x}, y ${y}: ${value}`,
    range: (low: string, high: string) => `smallest ${low}, largest ${high}`,
    facts: {
      name: "Topic", type: "Type", size: "Bytes", sequence: "Frame", published: "Published", timestamp: "Publisher's time",
      age: "Age here", rate: "Rate here", skipped: "Skipped here", slots: "Slots", publishers: "Publishers", subscribers: "Subscribers",
    },
    values: "First values",
    none: "–",
  },
  keys: {
    heading: "Keys",
    list: [
      ["/", "filter"],
      ["arrows", "from tile to tile"],
      ["Enter", "open the tile"],
      ["Esc", "close"],
      ["Space", "pause all"],
      ["f", "freeze the open frame"],
      [".", "step to the next frame"],
      ["d", "download the open frame"],
      ["t", "light or dark"],
      ["?", "this list"],
    ] as const,
  },
  theme: "Light or dark",
  help: "Keys",
} as const;

export function bytesText(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let index = 0;
  while (bytes >= 1024 && index < units.length - 1) {
    bytes /= 1024;
    index += 1;
  }
  return `${index === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${units[index] ?? ""}`;
}

export function millisecondsText(milliseconds: number): string {
  if (milliseconds < 10) return `${milliseconds.toFixed(1)} ms`;
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  return `${(milliseconds / 1000).toFixed(1)} s`;
}

export function rateText(rate: number): string {
  return rate >= 100 ? String(Math.round(rate)) : rate.toFixed(1);
}

export function numberText(value: number): string {
  if (!Number.isFinite(value) || Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return size >= 1e6 || size < 1e-3 ? value.toExponential(3) : value.toPrecision(5);
}
