// Shows the frames that the server reads from shared memory. Each picture is acknowledged after it was drawn, and only
// then does the server send the newest one: a slow viewer skips pictures and never falls behind.
const HEADER_BYTES = 24; // framegate/demo/app.py, PICTURE
const element = (id) => document.getElementById(id);
const context = element("picture").getContext("2d", { alpha: false });
const arrivals = [];
let last = 0;
let skipped = 0;
let paused = false;
let owed = null; // the socket whose picture is not acknowledged because the viewer paused

function state(name, text) {
  element("state").dataset.state = name;
  element("state").textContent = text;
}

function milliseconds(microseconds) {
  return microseconds < 1000 ? `${microseconds} µs` : `${(microseconds / 1000).toFixed(1)} ms`;
}

function cross(x, y) {
  context.strokeStyle = "#d1242f";
  context.lineWidth = 2;
  context.beginPath();
  context.moveTo(x - 26, y);
  context.lineTo(x + 26, y);
  context.moveTo(x, y - 26);
  context.lineTo(x, y + 26);
  context.stroke();
}

function show(buffer) {
  const header = new DataView(buffer, 0, HEADER_BYTES);
  const sequence = Number(header.getBigUint64(0, true));
  const width = header.getUint16(16, true);
  const height = header.getUint16(18, true);
  context.putImageData(new ImageData(new Uint8ClampedArray(buffer, HEADER_BYTES), width, height), 0, 0);
  const x = header.getInt16(20, true);
  if (x >= 0) cross(x, header.getInt16(22, true));

  const now = performance.now();
  arrivals.push(now);
  while (arrivals.length > 1 && now - arrivals[0] > 2000) arrivals.shift();
  if (last > 0 && sequence > last + 1) skipped += sequence - last - 1;
  last = sequence;
  element("sequence").textContent = String(sequence);
  if (arrivals.length > 5) {
    const rate = ((arrivals.length - 1) * 1000) / (now - arrivals[0]);
    element("rate").textContent = `${rate.toFixed(1)} frames/s`;
  }
  element("latency").textContent = milliseconds(header.getUint32(8, true));
  element("detector").textContent = milliseconds(header.getUint32(12, true));
  element("skipped").textContent = String(skipped);
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/frames`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = (event) => {
    if (typeof event.data === "string") {
      state("waiting", event.data);
      return;
    }
    show(event.data);
    state("live", paused ? "paused" : "live");
    if (paused) owed = socket;
    else requestAnimationFrame(() => socket.send("drawn"));
  };
  socket.onclose = () => {
    state("lost", "connection lost, trying again");
    owed = null;
    setTimeout(connect, 1000);
  };
}

element("pause").onclick = () => {
  paused = !paused;
  element("pause").setAttribute("aria-pressed", String(paused));
  element("pause").textContent = paused ? "Go on" : "Pause";
  state("live", paused ? "paused" : "live");
  if (!paused && owed !== null) {
    owed.send("drawn");
    owed = null;
  }
};

connect();
