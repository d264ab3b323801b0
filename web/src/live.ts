// The live page: the list, the grid of tiles, the open topic, keys; where it stands is in the URL.

import { Detail, type Tab, TABS } from "./detail.ts";
import { DemoCamera } from "./demo.ts";
import { byId, make, order, sample, setText } from "./dom.ts";
import { sparkline } from "./draw.ts";
import type { Access } from "./feed.ts";
import { bytesText, millisecondsText, rateText, strings } from "./strings.ts";
import { Tile } from "./tile.ts";
import { type Listed, Topics } from "./topics.ts";

const TOKEN_KEY = "framegate.token";
const THEME_KEY = "framegate.theme";

/** The field of every file of this page that names the path of the frame routes. */
const TOPICS_FIELD = "framegate-topics";
/** That which names the topic on which this page may publish, if any. */
const DEMO_FIELD = "framegate-demo";
/** Ages of frames below this are no news: one frame at 30 Hz. */
const AGE_NEWS_MS = 34;
/** Points of a sparkline. */
const SPARK = 40;

const grid = byId("grid");
const list = byId("list");
const empty = byId("empty");
const tokenForm = byId("token");
const filter = byId("filter") as HTMLInputElement;
const keys = byId("keys") as HTMLDialogElement;
const tiles = new Map<string, Tile>();
const rows = new Map<string, HTMLTableRowElement>();

let topics: Topics;
let access: Access;
let detail: Detail | null = null;
let paused = false;
let demo: DemoCamera | null = null;

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const name = (entry.target as HTMLElement).dataset["topic"];
    if (name !== undefined) tiles.get(name)?.show(entry.isIntersecting);
  }
});

// --- the URL

function place(): { open: string | null; filter: string; tab: Tab } {
  const query = new URLSearchParams(location.hash.slice(1));
  const tab = TABS.find((name) => name === query.get("tab")) ?? "picture";
  return { open: query.get("topic"), filter: query.get("filter") ?? "", tab };
}

function go(change: { open?: string | null; filter?: string; tab?: Tab }): void {
  const now = { ...place(), ...change };
  const query = new URLSearchParams();
  if (now.open !== null) query.set("topic", now.open);
  if (now.filter !== "") query.set("filter", now.filter);
  if (now.tab !== "picture") query.set("tab", now.tab);
  const hash = query.toString();
  history.replaceState(null, "", hash === "" ? location.pathname + location.search : `#${hash}`);
}

// --- what is shown

function shown(): Listed[] {
  const wanted = filter.value.trim().toLowerCase();
  return topics.topics.filter((topic) => topic.name.toLowerCase().includes(wanted));
}

function render(): void {
  renderLink();
  const visible = shown();
  const names = new Set(topics.topics.map((topic) => topic.name));
  for (const [name, tile] of tiles) {
    if (!names.has(name)) {
      watcher.unobserve(tile.element);
      tile.end();
      tiles.delete(name);
      rows.delete(name);
    }
  }
  for (const topic of topics.topics) {
    const tile = tiles.get(topic.name);
    if (tile === undefined) add(topic);
    else tile.update(topic);
    renderRow(topic);
  }
  order(grid, visible.flatMap((topic) => tiles.get(topic.name)?.element ?? []));
  order(list, visible.flatMap((topic) => rows.get(topic.name) ?? []));
  renderEmpty(visible.length);
  const open = place().open;
  const topic = topics.topics.find((one) => one.name === open);
  if (detail !== null && topic !== undefined) detail.update(topic);
  if (detail === null && topic !== undefined) openDetail(topic);
}

function renderLink(): void {
  const { state } = topics;
  const link = byId("link");
  link.dataset["state"] = paused && state.name === "live" ? "paused" : state.name;
  const texts = strings.link;
  if (state.name === "lost") setText(link, texts.lost(state.seconds));
  else setText(link, paused && state.name === "live" ? strings.paused : texts[state.name]);
  document.body.toggleAttribute("data-lost", state.name === "lost");
  const rate = topics.topics.reduce((sum, topic) => sum + topic.rate, 0);
  const dropped = topics.topics.reduce((sum, topic) => sum + topic.dropped, 0);
  const age = lateness();
  const words = [dropped > 0 ? rateText(dropped) : null, age !== null && age > AGE_NEWS_MS ? millisecondsText(age) : null] as const;
  setText(byId("sum"), strings.sum(topics.topics.length, rateText(rate), ...words));
  tokenForm.hidden = state.name !== "denied";
  if (state.name === "denied" && tokenForm.childElementCount === 0) askForToken();
}

/** How old frames were at most when they were drawn, but for one in a hundred. */
function lateness(): number | null {
  const ages = [...tiles.values()].flatMap((tile) => tile.ages).sort((one, other) => one - other);
  return ages[Math.floor(ages.length * 0.99)] ?? null;
}

function renderEmpty(visible: number): void {
  const hidden = topics.state.name !== "live" || visible > 0;
  // What is written there stays as it is: somebody may be copying it.
  const kind = topics.topics.length > 0 ? "no match" : "nothing";
  if (hidden === empty.hidden && (hidden || empty.dataset["kind"] === kind)) return;
  empty.hidden = hidden;
  empty.dataset["kind"] = kind;
  if (hidden) return;
  const words = strings.empty;
  if (topics.topics.length > 0) {
    empty.replaceChildren(make("p", {}, strings.noMatch));
    return;
  }
  const curl = `curl -H 'Content-Type: image/jpeg' --data-binary @picture.jpg ${location.origin}${access.prefix}/camera/front`;
  const start = make("button", { type: "button" }, strings.demo.start);
  start.addEventListener("click", () => demo?.toggle());
  empty.replaceChildren(
    make("h2", {}, words.heading),
    ...sample(words.text, words.python("camera/front"), strings.detail),
    ...sample(words.curl, curl, strings.detail),
    ...(demo === null ? [] : [make("p", {}, words.demo), start]),
  );
}

function add(topic: Listed): void {
  const tile = new Tile(topic, access, () => openByName(topic.name));
  tile.pause(paused);
  tiles.set(topic.name, tile);
  watcher.observe(tile.element);
}

function renderRow(topic: Listed): void {
  let row = rows.get(topic.name);
  if (row === undefined) {
    const open = make("button", { type: "button" }, topic.name);
    open.addEventListener("click", () => openByName(topic.name));
    const spark = make("canvas", { class: "spark", width: "36", height: "16", "aria-hidden": "true" });
    const rate = make("td", {}, spark, make("span"));
    row = make("tr", {}, make("td", {}, open), rate, ...Array.from({ length: 5 }, () => make("td")));
    rows.set(topic.name, row);
  }
  row.setAttribute("aria-current", String(detail?.topic.name === topic.name));
  const [, rate, ...cells] = row.cells;
  const [spark, number] = rate?.children ?? [];
  if (number !== undefined) setText(number, rateText(topic.rate));
  if (spark instanceof HTMLCanvasElement) sparkline(topic.rates, SPARK, spark);
  const dropped = topic.dropped > 0 ? `! ${rateText(topic.dropped)}` : "0";
  const texts = [bytesText(topic.slot_bytes), topic.publishers, topic.subscribers, topic.leases, dropped].map(String);
  texts.forEach((text, index) => {
    const cell = cells[index];
    if (cell !== undefined) setText(cell, text);
  });
  cells[4]?.classList.toggle("bad", topic.dropped > 0);
}

// --- the open topic

function openByName(name: string): void {
  const topic = topics.topics.find((one) => one.name === name);
  if (topic !== undefined) openDetail(topic);
}

function openDetail(topic: Listed): void {
  detail?.end();
  go({ open: topic.name });
  detail = new Detail(topic, access, byId("detail"), (tab) => go({ tab }), closeDetail, place().tab);
  for (const [name, row] of rows) row.setAttribute("aria-current", String(name === topic.name));
}

function closeDetail(): void {
  if (detail === null) return;
  const name = detail.topic.name;
  detail.end();
  detail = null;
  go({ open: null, tab: "picture" });
  rows.get(name)?.setAttribute("aria-current", "false");
  tiles.get(name)?.element.focus();
}

// --- who may look

function askForToken(): void {
  const words = strings.token;
  const input = make("input", { type: "password", autocomplete: "off", id: "token-value" });
  tokenForm.append(
    make("h2", {}, words.heading), make("p", {}, words.text),
    make("label", { for: "token-value" }, words.label), input, make("button", { type: "submit" }, words.submit),
  );
  tokenForm.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN_KEY, input.value);
    useToken(input.value);
    input.value = "";
    void topics.run();
  });
}

function useToken(token: string | null): void {
  topics.token = token;
  access.token = token;
}

// --- buttons and keys

function pause(): void {
  paused = !paused;
  const button = byId("pause");
  button.setAttribute("aria-pressed", String(paused));
  setText(button, paused ? strings.resume : strings.pause);
  for (const tile of tiles.values()) tile.pause(paused);
  renderLink();
}

function theme(): void {
  const root = document.documentElement;
  const dark = root.dataset["theme"] ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  root.dataset["theme"] = dark === "dark" ? "light" : "dark";
  localStorage.setItem(THEME_KEY, root.dataset["theme"]);
}

function showKeys(): void {
  if (keys.childElementCount === 0) {
    const rowsOfKeys = strings.keys.list.flatMap(([key, what]) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, what)]);
    const close = make("button", { type: "button", autofocus: "" }, strings.detail.close);
    close.addEventListener("click", () => keys.close());
    keys.append(make("h2", {}, strings.keys.heading), make("dl", {}, ...rowsOfKeys), close);
  }
  if (!keys.open) keys.showModal();
}

/** From tile to tile by arrows, as the grid lies. */
function move(event: KeyboardEvent): void {
  const all = [...grid.children] as HTMLElement[];
  const at = all.indexOf(document.activeElement as HTMLElement);
  if (at < 0) return;
  const top = all[0]?.offsetTop;
  const columns = Math.max(all.filter((tile) => tile.offsetTop === top).length, 1);
  const steps: Record<string, number> = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
  const next = all[at + (steps[event.key] ?? 0)];
  if (next !== undefined) {
    event.preventDefault();
    next.focus();
  }
}

function pressed(event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
  const target = event.target as HTMLElement;
  if (event.key === "Escape") {
    if (target === filter) filter.blur();
    else closeDetail();
    return;
  }
  if (target.matches("input")) return;
  if (event.key.startsWith("Arrow")) {
    move(event);
    return;
  }
  // Space on a button is a click.
  if (event.key === " " && target.matches("button")) return;
  const actions: Record<string, () => void> = {
    "/": () => filter.focus(),
    " ": pause,
    f: () => detail?.freeze(),
    ".": () => detail?.step(),
    d: () => detail?.download(),
    z: () => detail?.zoom(),
    t: theme,
    "?": showKeys,
  };
  const action = actions[event.key];
  if (action === undefined) return;
  event.preventDefault();
  action();
}

function showDemo(isOn: boolean): void {
  const button = byId("demo");
  button.hidden = false;
  button.setAttribute("aria-pressed", String(isOn));
  setText(button, isOn ? strings.demo.stop : strings.demo.start);
}

/** On a narrow window, the list comes when it is asked for. */
function drawer(): void {
  const isOpen = document.body.toggleAttribute("data-drawer");
  byId("drawer").setAttribute("aria-expanded", String(isOpen));
}

/** Where the frame routes are, and on which topic this page may publish. */
async function topicsPath(): Promise<[string, string | null]> {
  for (;;) {
    try {
      const answer = await fetch(location.pathname, { method: "HEAD", cache: "no-store" });
      const path = answer.headers.get(TOPICS_FIELD);
      if (path !== null) return [path, answer.headers.get(DEMO_FIELD)];
    } catch {
      // The server is not there yet.
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function begin(): Promise<void> {
  const saved = localStorage.getItem(THEME_KEY);
  if (saved === "dark" || saved === "light") document.documentElement.dataset["theme"] = saved;
  const columns = strings.columns;
  document.querySelector("thead tr")?.append(...Object.values(columns).map((name) => make("th", { scope: "col" }, name)));
  const [prefix, demoTopic] = await topicsPath();
  if (demoTopic !== null) {
    demo = new DemoCamera(prefix, demoTopic, showDemo);
    showDemo(false);
  }
  access = { prefix, token: null };
  topics = new Topics(prefix, render);
  useToken(sessionStorage.getItem(TOKEN_KEY));
  filter.value = place().filter;
  filter.addEventListener("input", () => {
    go({ filter: filter.value });
    render();
  });
  byId("pause").addEventListener("click", pause);
  byId("demo").addEventListener("click", () => demo?.toggle());
  byId("drawer").addEventListener("click", drawer);
  byId("theme").addEventListener("click", theme);
  byId("help").addEventListener("click", showKeys);
  document.addEventListener("keydown", pressed);
  document.addEventListener("visibilitychange", () => {
    for (const tile of tiles.values()) tile.look();
    detail?.look();
    if (!document.hidden) void topics.run();
  });
  await topics.run();
}

void begin();
