// Every text that the page shows.

export const strings = {
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
  sum: (topics: number, rate: string, dropped: string | null, age: string | null) =>
    [
      `${topics} ${topics === 1 ? "topic" : "topics"}, ${rate} frames/s`,
      ...(dropped === null ? [] : [`${dropped} lost/s`]),
      ...(age === null ? [] : [`99 % shown within ${age}`]),
    ].join(", "),
  columns: { name: "Topic", rate: "Hz", size: "Size", publishers: "Pub", subscribers: "Sub", leases: "Held", dropped: "Lost/s" },
  topics: "Topics",
  tile: {
    waiting: (publishers: number) =>
      publishers === 0 ? "no frame yet, and no publisher" : `no frame yet, ${publishers} publisher${publishers === 1 ? "" : "s"}`,
    calls: (responders: number) => `no frames: calls are answered here, by ${responders} responder${responders === 1 ? "" : "s"}`,
    opening: "opening",
    gone: (time: string) => `the publisher left at ${time}; this is its last frame`,
    stale: (seconds: string) => `last frame ${seconds} s ago`,
    ended: "the topic was removed",
    denied: "you may not read this topic",
    tooLarge: (size: string) => `no picture: ${size} a frame is too much to draw here`,
    frozen: "frozen",
    slow: (rate: string, of: string) => `slow: ${rate} of ${of} Hz arrive here`,
  },
  empty: {
    heading: "Nothing is published yet",
    text: "Publish an array from any process on this machine, and it appears here without a reload:",
    python: (topic: string) =>
      ["import numpy, framegate", `with framegate.Publisher("${topic}", dtype="uint8", shape=(480, 640, 3)) as publisher:`,
        "    while True:", "        publisher.send(numpy.random.randint(0, 255, (480, 640, 3), numpy.uint8))"].join("\n"),
    demo: "or let this page be a camera:",
    curl: "or send a picture over HTTP, where the configuration lets topics be made:",
  },
  demo: { start: "Start demo camera", stop: "Stop demo camera" },
  noMatch: "no topic matches the filter",
  token: {
    heading: "These topics are for who has a token",
    text: "It is kept in this tab only.",
    label: "Token",
    submit: "Look",
  },
  detail: {
    close: "Close",
    tabs: { picture: "Picture", data: "Data", readers: "Readers", links: "Links", record: "Record" },
    freeze: "Freeze",
    thaw: "Go on",
    step: "Step",
    download: "Download frame",
    copy: "Copy",
    copied: "Copied",
    selected: "Selected",
    record: {
      text: "These record on the machine of the topic, every frame until Ctrl-C; no publisher waits for the disk. Foxglove and rerun read the file.",
      mcap: "Record",
      replay: "Play it again",
      video: "Record pictures as a video, from anywhere",
    },
    pixel: (x: number, y: number, value: string) => `x ${x}, y ${y}: ${value}`,
    range: (low: string, high: string) => `smallest ${low}, largest ${high}`,
    facts: {
      name: "Topic", type: "Type", size: "Bytes", sequence: "Frame", published: "Published", timestamp: "Publisher's time",
      age: "Age here", rate: "Rate here", skipped: "Skipped here", slots: "Slots", publishers: "Publishers", subscribers: "Subscribers",
      leases: "Frames held", lost: "Lost by subscribers",
    },
    values: "First values",
    none: "–",
  },
  readers: {
    columns: { name: "Name", pid: "Pid", policy: "Policy", frames: "Frames", lost: "Lost", behind: "Behind", holds: "Holds" },
    dead: (policy: string) => `✕ ${policy}, dead`,
    behind: (frames: number, time: string) => (frames === 0 ? "0" : `${frames}${time === "" ? "" : `, ${time}`}`),
    holds: (frames: number, time: string, isOld: boolean) => `${isOld ? "! " : ""}${frames}${time === "" ? "" : `, ${time}`}`,
    explained: "Behind: frames not taken yet, and for how long. Holds: frames (or slots being filled) and the age of the oldest; ! over 1 s.",
    nobody: "Nobody takes part.",
    unknown: "Who takes part cannot be seen now.",
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
      ["z", "zoom into the open frame, and out"],
      ["t", "light or dark"],
      ["?", "this list"],
    ] as const,
  },
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
