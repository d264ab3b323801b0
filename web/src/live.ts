// The live page: the list, the grid of tiles, the open topic, keys; where it stands is in the URL.

import { Detail } from "./detail.ts";
import { byId, make, order, setText } from "./dom.ts";
import type { Access } from "./feed.ts";
import { bytesText, rateText, strings } from "./strings.ts";
import { Tile } from "./tile.ts";
import { type Listed, Topics } from "./topics.ts";

type Tab = "picture" | "data" | "links";

const TOKEN_KEY = "framegate.token";
const THEME_KEY = "framegate.theme";

/** The field of every file of this page that names the path of the frame routes. */
const TOPICS_FIELD = "framegate-topics";

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

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const name = (entry.target as HTMLElement).dataset["topic"];
    if (name !== undefined) tiles.get(name)?.show(entry.isIntersecting);
  }
});

// --- the URL

function place(): { open: string | null; filter: string; tab: Tab } {
  const query = new URLSearchParams(location.hash.slice(1));
  const tab = query.get("tab");
  return { open: query.get("topic"), filter: query.get("filter") ?? "", tab: tab === "data" || tab === "links" ? tab : "picture" };
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
  setText(byId("sum"), strings.sum(topics.topics.length, rateText(rate)));
  tokenForm.hidden = state.name !== "denied";
  if (state.name === "denied" && tokenForm.childElementCount === 0) askForToken();
}

function renderEmpty(visible: number): void {
  empty.hidden = topics.state.name !== "live" || visible > 0;
  if (empty.hidden) return;
  const words = strings.empty;
  if (topics.topics.length > 0) {
    empty.replaceChildren(make("p", {}, strings.noMatch));
    return;
  }
  const curl = `curl -H 'Content-Type: image/jpeg' --data-binary @picture.jpg ${location.origin}${access.prefix}/camera/front`;
  empty.replaceChildren(
    make("h2", {}, words.heading), make("p", {}, words.text), make("pre", { tabindex: "0" }, words.python("camera/front")),
    make("p", {}, words.curl), make("pre", { tabindex: "0" }, curl),
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
    row = make("tr", {}, make("td", {}, open), make("td"), make("td"), make("td"), make("td"));
    rows.set(topic.name, row);
  }
  row.setAttribute("aria-current", String(detail?.topic.name === topic.name));
  const cells = [rateText(topic.rate), bytesText(topic.slot_bytes), String(topic.publishers), String(topic.subscribers)];
  cells.forEach((text, index) => {
    const cell = row.cells[index + 1];
    if (cell !== undefined) setText(cell, text);
  });
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
  const actions: Record<string, () => void> = {
    "/": () => filter.focus(),
    " ": target.matches("button") ? () => undefined : pause,
    f: () => detail?.freeze(),
    ".": () => detail?.step(),
    d: () => detail?.download(),
    t: theme,
    "?": showKeys,
  };
  const action = actions[event.key];
  if (action === undefined || (event.key === " " && target.matches("button"))) return;
  event.preventDefault();
  action();
}

/** Where the frame routes are. */
async function topicsPath(): Promise<string> {
  for (;;) {
    try {
      const answer = await fetch(location.pathname, { method: "HEAD", cache: "no-store" });
      const path = answer.headers.get(TOPICS_FIELD);
      if (path !== null) return path;
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
  const prefix = await topicsPath();
  access = { prefix, token: null };
  topics = new Topics(prefix, render);
  useToken(sessionStorage.getItem(TOKEN_KEY));
  filter.value = place().filter;
  filter.addEventListener("input", () => {
    go({ filter: filter.value });
    render();
  });
  byId("pause").addEventListener("click", pause);
  byId("theme").addEventListener("click", theme);
  byId("help").addEventListener("click", showKeys);
  document.addEventListener("keydown", pressed);
  document.addEventListener("visibilitychange", () => {
    for (const tile of tiles.values()) tile.seen();
    detail?.seen();
    if (!document.hidden) void topics.run();
  });
  await topics.run();
}

void begin();
