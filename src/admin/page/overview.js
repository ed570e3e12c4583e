// The system as a whole: rates, latency, backlog, who needs help, what fails, and whether everything is accounted for.

import { every, get } from "./api.js";
import { chart } from "./charts.js";
import { bytes, card, clock, count, el, pill, rate, severity, short, show, span, tenantLink, text } from "./dom.js";
import { model, onUpdate } from "./model.js";

/// How many are shown of each list.
const SHOWN = 8;

export function overview(main, signal) {
  const charts = [
    chart("Rates", [
      { key: "accepted", label: "accepted", colour: "blue", say: (value) => `${rate(value)}/s` },
      { key: "stored", label: "stored", colour: "green", say: (value) => `${rate(value)}/s` },
      { key: "bad", label: "refused or given up", colour: "red", say: (value) => `${rate(value)}/s` },
    ], { sayAxis: (value) => `${rate(value)}/s`, atLeast: 1 }),
    chart("Latency", [
      { key: "mean", label: "accepted to settled, mean", colour: "blue", say: span },
      { key: "oldest", label: "oldest that waits", colour: "orange", say: span },
    ], { sayAxis: span, atLeast: 1000 }),
    chart("Backlog", [
      { key: "in_flight", label: "events in flight", colour: "violet", say: (value, point) => `${count(value)} (${bytes(point.bytes)})` },
    ], { sayAxis: short, atLeast: 10 }),
  ];
  const help = attention();
  const books = conservation(signal);
  const failures = failing(signal);
  main.replaceChildren(el("h1", { class: "sr" }, "Overview"), el("div", { class: "charts" }, ...charts), el("div", { class: "halves" }, help, books), failures);
  onUpdate(({ history }) => {
    charts.forEach((one) => one.set(history));
    help.set();
    books.set();
  }, signal);
  signal.addEventListener("abort", () => charts.forEach((one) => one.end()));
  return {};
}

function attention() {
  const list = el("ul", { class: "list" });
  const fine = el("p", { class: "fine", hidden: true }, el("i", { "aria-hidden": "true" }, "✓ "), "No tenant needs help.");
  const more = el("a", { class: "more", href: "#/tenants/trouble" });
  const sources = el("ul", { class: "list" });
  const node = card("Needs help", fine, sources, list, more);
  const lines = Array.from({ length: SHOWN }, () => {
    const state = pill();
    const link = el("a", { class: "id" });
    const words = el("span", { class: "muted" });
    const line = el("li", { class: "row" }, state, link, words);
    list.append(line);
    return { line, state, link, words };
  });
  node.set = () => {
    const found = model.tenants.filter((row) => severity(row.status) >= 3 || row.uncompensated > 0);
    found.sort((a, b) => severity(b.status) - severity(a.status) || b.age - a.age || (a.tenant < b.tenant ? -1 : 1));
    lines.forEach(({ line, state, link, words }, at) => {
      const row = found[at];
      show(line, Boolean(row));
      if (!row) return;
      state.set(row.status);
      text(link, row.tenant);
      link.setAttribute("href", `#/tenant/${encodeURIComponent(row.tenant)}`);
      const waits = row.in_flight > 0 ? `${count(row.in_flight)} in flight, the oldest for ${span(row.age)}` : "nothing in flight";
      const more = [row.uncompensated && `${count(row.uncompensated)} not undone`, row.status === "failing" && `${count(row.dead_lettered)} dead letters, more of them within the last minute`];
      text(words, [waits, ...more.filter(Boolean)].join("; "));
    });
    const away = Object.entries(model.overview.outages);
    sources.replaceChildren(...away.slice(0, SHOWN).map(([name, { why, since }]) => el("li", { class: "row" },
      el("span", { class: "pill bad" }, "source"), el("span", { class: "id" }, name), el("span", { class: "muted" }, `${why}; since ${clock(since)}`))));
    show(fine, found.length === 0 && away.length === 0);
    show(more, found.length > SHOWN);
    text(more, `all ${count(found.length)}`);
  };
  return node;
}

const OUTCOMES = [
  ["stored", "stored", "green"], ["dead_lettered", "dead letters", "red"], ["shed", "shed", "orange"],
  ["discarded", "discarded", "grey"], ["in_flight", "in flight", "violet"],
];
const ANSWERS = ["accepted", "duplicate", "muted", "throttled", "rejected", "malformed"];

function conservation(signal) {
  const verdict = el("p", { class: "verdict" });
  const accepted = el("b");
  const strip = el("div", { class: "strip", "aria-hidden": "true" });
  const parts = OUTCOMES.map(([key, label, colour]) => {
    const piece = el("div", { class: `piece ${colour}` });
    const value = el("b");
    strip.append(piece);
    return { key, piece, value, line: el("li", {}, el("i", { class: `swatch ${colour}`, "aria-hidden": "true" }), el("span", {}, label), value) };
  });
  const frames = el("p", { class: "muted small" });
  const result = el("div", { class: "small", role: "status" });
  const button = el("button", { type: "button", onclick: () => check() }, "Check against the stores");
  const node = card("Conservation", verdict,
    el("p", {}, accepted, " events accepted ="), strip, el("ul", { class: "legend sums" }, ...parts.map(({ line }) => line)), frames,
    el("div", { class: "row" }, button), result);
  node.set = () => {
    const of = model.overview.totals;
    const sum = OUTCOMES.reduce((all, [key]) => all + of[key], 0);
    const holds = sum === of.accepted;
    verdict.className = holds ? "verdict good" : "verdict bad";
    text(verdict, holds ? "✓ Every accepted event is accounted for." : `✗ ${count(Math.abs(of.accepted - sum))} events ${of.accepted > sum ? "are missing" : "are too many"}.`);
    text(accepted, count(of.accepted));
    for (const { key, piece, value } of parts) {
      piece.style.flexGrow = of[key];
      show(piece, of[key] > 0);
      text(value, count(of[key]));
    }
    const all = {};
    for (const source of Object.values(model.overview.sources)) {
      for (const key of ["received", ...ANSWERS]) all[key] = (all[key] ?? 0) + source[key];
    }
    const told = ANSWERS.filter((key) => all[key] > 0 || key === "accepted").map((key) => `${count(all[key])} ${key}`);
    text(frames, `Frames since the start: ${count(all.received)} received = ${told.join(" + ")}`);
  };
  async function check() {
    button.disabled = true;
    text(result, "counting ...");
    try {
      const audit = await get("/v1/audit", signal);
      const lines = audit.differences.slice(0, SHOWN).map(({ tenant, meaning }) => el("li", {}, tenant ? `${tenant}: ` : "", meaning));
      const words = audit.holds
        ? `✓ Journal, stores and dead letters agree, for ${count(audit.tenants.length)} tenants, at ${clock(Date.now())}.`
        : `✗ ${count(audit.differences.length)} differences, at ${clock(Date.now())}:`;
      const unchecked = audit.unchecked.slice(0, SHOWN).map((what) => el("li", {}, `not checked: ${what}`));
      result.replaceChildren(el("p", { class: audit.holds ? "verdict good" : "verdict bad" }, words), el("ul", {}, ...lines, ...unchecked));
    } catch (why) {
      if (!signal.aborted) text(result, `It could not be checked: ${why.message}`);
    }
    button.disabled = false;
  }
  return node;
}

function failing(signal) {
  const body = el("tbody");
  const none = el("p", { class: "fine", hidden: true }, el("i", { "aria-hidden": "true" }, "✓ "), "Nothing has failed since the daemon was started.");
  const head = ["Tenant", "What", "Last minute", "Last hour", "Since the start", "First", "Last", "What it said"];
  const whole = el("div", { class: "scroll", hidden: true }, el("table", {}, el("thead", {}, el("tr", {}, ...head.map((word, at) =>
    el("th", { scope: "col", class: at > 1 && at < 5 ? "number" : "" }, word)))), body));
  const node = card("Failures", none, whole);
  let before = "";
  every(3000, signal, async () => {
    const { entries } = await get("/v1/report", signal);
    entries.sort((a, b) => b.last_minute - a.last_minute || (a.last_at < b.last_at ? 1 : -1));
    const top = entries.slice(0, 20);
    const now = JSON.stringify(top);
    show(none, top.length === 0);
    show(whole, top.length > 0);
    if (now === before) return;
    before = now;
    body.replaceChildren(...top.map((row) => el("tr", { class: row.last_minute ? "" : "past" },
      el("td", {}, row.tenant ? tenantLink(row.tenant) : el("span", { class: "muted" }, "no tenant")), el("td", {}, el("code", {}, row.code)),
      ...[row.last_minute, row.last_hour, row.failures].map((number, at) => el("td", { class: "number", "data-label": head[at + 2] }, count(number))),
      ...[row.first_at, row.last_at].map((time, at) => el("td", { class: "nowrap", "data-label": head[at + 5] }, clock(time))), el("td", { class: "sample", title: row.sample }, row.sample))));
  });
  return node;
}
