// All tenants: sort, search, open.

import { count, el, pill, rate, severity, show, span, text } from "./dom.js";
import { model, onUpdate } from "./model.js";
import { table } from "./table.js";

const byName = (a, b) => (a.tenant < b.tenant ? -1 : a.tenant > b.tenant ? 1 : 0);
const by = (key) => (a, b) => a[key] - b[key];
const number = (key, label, say = count, rest = {}) => ({
  key, label, less: by(key), downFirst: true, class: "number", ...rest,
  set: (cell, row) => {
    const words = say(row[key]);
    if (cell.firstChild.data !== words) cell.firstChild.data = words;
    if (rest.isBad) cell.classList.toggle("alarm", row[key] > 0);
  },
});

const COLUMNS = [
  {
    key: "tenant", label: "Tenant", less: byName, make: () => el("a", { class: "id", tabindex: -1 }),
    set: (cell, row) => {
      const link = cell.firstChild;
      if (link.textContent === row.tenant) return;
      link.textContent = row.tenant;
      link.title = row.tenant;
      link.setAttribute("href", `#/tenant/${encodeURIComponent(row.tenant)}`);
    },
  },
  {
    key: "status", label: "State", less: (a, b) => severity(a.status) + a.is_muted - severity(b.status) - b.is_muted, downFirst: true, class: "state",
    make: () => { const node = el("span", {}, pill(), el("span", { class: "pill off", hidden: true }, el("i", { "aria-hidden": "true" }, "⊘"), "muted")); return node; },
    set: (cell, row) => {
      const [state, muted] = cell.firstChild.children;
      state.set(row.status);
      show(muted, row.is_muted);
    },
  },
  number("in", "In/s", rate),
  number("out", "Stored/s", rate, { class: "number wide" }),
  number("in_flight", "In flight"),
  number("age", "Oldest", (age) => (age > 0 ? span(age) : "-"), { class: "number wide" }),
  number("stored", "Stored ever", count, { class: "number wide" }),
  number("refused", "Refused", count, { class: "number wide" }),
  number("dead_lettered", "Dead letters", count, { class: "number wide", isBad: true }),
  number("attempts_failed", "Failed tries", count, { class: "number wide" }),
  number("restarts", "Restarts", count, { class: "number wide" }),
];

// Kept from one visit to the next.
const state = { search: "", only: "all", sort: { key: "tenant", down: false }, marked: null, top: 0 };

export const FILTERS = {
  all: ["All", () => true],
  trouble: ["In trouble", (row) => severity(row.status) >= 4 || row.uncompensated > 0],
  busy: ["Busy", (row) => row.in > 0 || row.in_flight > 0],
  muted: ["Muted", (row) => row.is_muted],
  paused: ["Paused", (row) => row.status === "stopped"],
};

export function tenants(main, signal, { only } = {}) {
  if (only in FILTERS) state.only = only;
  let shown = [];
  const search = el("input", { type: "search", placeholder: "Search tenants", "aria-label": "Search tenants", value: state.search, spellcheck: "false", class: "search" });
  const said = el("span", { class: "muted" });
  const chips = Object.entries(FILTERS).map(([key, [label]]) => {
    const number = el("b");
    const chip = el("button", { type: "button", class: "chip", onclick: () => { state.only = key; refresh(false); } }, label, number);
    return [key, chip, number];
  });
  const open = (row) => { location.hash = `#/tenant/${encodeURIComponent(row.tenant)}`; };
  const grid = table(COLUMNS, { label: "Tenants", sort: state.sort, open, onSort: () => refresh(false), empty: "No tenant is like that." });
  const node = el("div", { class: "fill-view" },
    el("h1", { class: "sr" }, "Tenants"),
    el("div", { class: "tools" }, search, el("div", { class: "chips", role: "group", "aria-label": "Which tenants" }, ...chips.map(([, chip]) => chip)), said),
    grid);
  main.replaceChildren(node);

  search.addEventListener("input", () => { state.search = search.value; grid.scrollTop = 0; refresh(false); });
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      grid.markFirst();
    }
  });

  function refresh(isLive) {
    const wanted = state.search.trim().toLowerCase();
    const numbers = Object.fromEntries(Object.keys(FILTERS).map((key) => [key, 0]));
    const fits = FILTERS[state.only][1];
    const found = [];
    for (const row of model.tenants) {
      for (const key in FILTERS) if (FILTERS[key][1](row)) numbers[key]++;
      if (fits(row) && (!wanted || row.tenant.toLowerCase().includes(wanted))) found.push(row);
    }
    for (const [key, chip, number] of chips) {
      chip.setAttribute("aria-pressed", key === state.only);
      text(number, count(numbers[key]));
    }
    const column = COLUMNS.find(({ key }) => key === state.sort.key);
    // Ties are by name, whichever way.
    const sign = state.sort.down ? -1 : 1;
    if (isLive && grid.isHeld()) {
      // No row runs away from under the pointer.
      const places = new Map(shown.map((row, at) => [row.tenant, at]));
      found.sort((a, b) => (places.get(a.tenant) ?? 1e9) - (places.get(b.tenant) ?? 1e9));
    } else {
      found.sort((a, b) => sign * column.less(a, b) || byName(a, b));
    }
    shown = found;
    text(said, found.length === model.tenants.length ? "" : `${count(found.length)} of ${count(model.tenants.length)}`);
    grid.set(found);
  }
  onUpdate(() => refresh(true), signal);
  grid.restore(state.marked, state.top);
  signal.addEventListener("abort", () => { ({ marked: state.marked, top: state.top } = grid.place()); });
  return { search, first: grid };
}

