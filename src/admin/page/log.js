// The supervisor log, live.

import { follow } from "./api.js";
import { clock, count, el, isTenant, show, tenantLink, text } from "./dom.js";

/// How many entries are kept in the page, and how many of them are shown at once.
const KEPT = 5_000;
const SHOWN = 400;

const KINDS = {
  all: ["Everything", () => true],
  trouble: ["Trouble", (what) => kind(what) === "bad" || kind(what) === "warn"],
  restarts: ["Restarts", (what) => ["backing_off", "restarted", "quarantined", "resumed", "missed_heartbeat", "hung", "unhung", "stopped", "started"].includes(what)],
  rollbacks: ["Rollbacks", (what) => ["compensated", "compensation_failed", "split", "started_over", "discarded", "dead_lettered"].includes(what)],
  stores: ["Stores", (what) => ["journal_fails", "journal_works", "journal_full", "journal_has_room", "failed", "ambiguous", "parked", "unparked", "breaker_opened", "breaker_closed", "stalled", "unstalled"].includes(what)],
  sources: ["Sources", (what) => what.startsWith("source_")],
};

function kind(what) {
  if (["failed", "quarantined", "stalled", "hung", "journal_fails", "journal_full", "source_fails", "source_lost", "compensation_failed", "breaker_opened", "dead_lettered", "discarded", "shedding", "letters_full", "missed"].includes(what)) return "bad";
  if (["ambiguous", "missed_heartbeat", "backing_off", "parked", "compensated", "split", "started_over", "spilling", "stopped", "draining", "silent"].includes(what)) return "warn";
  if (["restarted", "unstalled", "unhung", "journal_works", "journal_has_room", "source_works", "unparked", "breaker_closed", "resumed", "shedding_ended", "caught_up", "recovered", "heard"].includes(what)) return "good";
  return "calm";
}

/// One entry as a line; of one tenant alone without its name.
export function logLine(entry, { isOne } = {}) {
  const who = entry.tenant && !isOne ? (isTenant(entry.tenant) ? tenantLink(entry.tenant) : el("span", {}, entry.tenant)) : null;
  return el("li", {}, el("time", { datetime: entry.at, title: entry.at }, clock(entry.at)),
    el("span", { class: `pill ${kind(entry.what)}` }, String(entry.what).replaceAll("_", " ")), el("span", { class: "told" }, who, who ? " " : null, entry.sentence ?? ""));
}

export function log(main, signal, { id } = {}) {
  let entries = [];
  let only = "all";
  let isPaused = false;
  let missed = 0;
  let wanted = false;
  let stream = null;
  const search = el("input", { type: "search", class: "search", placeholder: "Tenant, word or cause", "aria-label": "Search the log", spellcheck: "false", value: id ?? "" });
  const chips = Object.entries(KINDS).map(([key, [label]]) =>
    [key, el("button", { type: "button", class: "chip", onclick: () => { only = key; later(); } }, label)]);
  const pauseButton = el("button", { type: "button", "aria-pressed": "false", onclick: () => {
    isPaused = !isPaused;
    missed = 0;
    pauseButton.setAttribute("aria-pressed", isPaused);
    later();
  } }, "Hold");
  const routine = el("input", { type: "checkbox", onchange: () => connect() });
  const state = el("span", { class: "muted", role: "status" });
  const list = el("ol", { class: "log", tabindex: 0, "aria-label": "Supervisor log, newest first" });
  const none = el("p", { class: "none" }, "No entry is like that.");
  main.replaceChildren(el("div", { class: "fill-view" }, el("h1", { class: "sr" }, "Supervisor log"),
    el("div", { class: "tools" }, search, el("div", { class: "chips", role: "group", "aria-label": "Which entries" }, ...chips.map(([, chip]) => chip)),
      el("label", { class: "check" }, routine, "routine, too"), pauseButton, state),
    el("div", { class: "scroll-y" }, list, none)));
  search.addEventListener("input", () => later());
  search.addEventListener("keydown", (event) => { if (event.key === "ArrowDown") { event.preventDefault(); list.focus(); } });

  const later = () => {
    if (wanted) return;
    wanted = true;
    // Not once an entry: there may be thousands a second.
    requestAnimationFrame(draw);
  };
  function draw() {
    wanted = false;
    if (signal.aborted) return;
    for (const [key, chip] of chips) chip.setAttribute("aria-pressed", key === only);
    const words = search.value.trim().toLowerCase();
    const fits = KINDS[only][1];
    const held = isPaused ? entries.slice(0, Math.max(0, entries.length - missed)) : entries;
    const found = [];
    for (let at = held.length - 1; at >= 0 && found.length < SHOWN; at--) {
      const entry = held[at];
      if (!fits(entry.what)) continue;
      entry.all ??= `${entry.tenant ?? ""} ${entry.source ?? ""} ${entry.actor} ${entry.what} ${entry.what.replaceAll("_", " ")} ${entry.sentence}`.toLowerCase();
      if (entry.all.includes(words)) found.push(entry);
    }
    // The lines that stay are left alone, and with them what somebody selects.
    for (const entry of found) entry.line ??= logLine(entry);
    const lines = found.map((entry) => entry.line);
    const keep = new Set(lines);
    for (const line of [...list.children]) if (!keep.has(line)) line.remove();
    lines.forEach((line, at) => { if (list.children[at] !== line) list.insertBefore(line, list.children[at] ?? null); });
    show(none, found.length === 0);
    text(pauseButton, isPaused ? `Go on${missed ? ` (${count(missed)} new)` : ""}` : "Hold");
  }
  const place = ({ opening, cursor, at, what }) => `${opening} ${cursor ?? `${at} ${what}`}`;

  async function connect() {
    stream?.abort();
    const own = stream = new AbortController();
    signal.addEventListener("abort", () => own.abort());
    entries = [];
    const seen = new Set();
    while (!own.signal.aborted) {
      try {
        text(state, "live");
        await follow(`/v1/log?follow=true&sentences=true&last=1000&brief=${!routine.checked}`, (some) => {
          // After a break the newest ones come again.
          const fresh = some.filter((entry) => !seen.has(place(entry)));
          for (const entry of fresh) seen.add(place(entry));
          entries.push(...fresh);
          if (isPaused) missed += fresh.length;
          if (entries.length > KEPT) {
            for (const entry of entries.splice(0, entries.length - KEPT)) seen.delete(place(entry));
          }
          later();
        }, own.signal);
        text(state, "the daemon ended the log; trying again");
      } catch (why) {
        if (own.signal.aborted) return;
        text(state, `no answer (${why.message}); trying again`);
      }
      await new Promise((over) => setTimeout(over, 1000));
    }
  }
  connect();
  draw();
  return { search, first: list };
}
