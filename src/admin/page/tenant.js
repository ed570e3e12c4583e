// One tenant: what it does, what holds it up, since when, and what can be done.

import { every, follow, get, now, post, tenantPath } from "./api.js";
import { ask, bar, bytes, card, clock, count, el, isTenant, pill, say, show, span, text } from "./dom.js";
import { logLine } from "./log.js";

const ms = (time) => (time ? Date.parse(time) : null);
const FIRST = ["received", "accepted", "stored", "in_flight", "dead_lettered", "shed", "discarded", "spilled", "batches", "duplicate", "muted", "throttled", "rejected", "malformed", "attempts_failed", "restarts"];

const ORDERS = {
  mute: { label: "Mute", done: "muted", title: "Drop its events at the door, counted", asks: (id) => ({
    title: `Mute ${id}?`, words: "From now on its events are dropped at the door. They are counted as muted, and cannot be brought back. What was accepted before is still stored.", yes: "Mute", isDanger: true }) },
  unmute: { label: "Unmute", done: "let in again", title: "Let its events in again" },
  stop: { label: "Pause", done: "paused", title: "End its actors: events are still accepted and wait, none is stored", asks: (id) => ({
    title: `Pause ${id}?`, words: "Its events are still accepted and wait, but none is stored until it is resumed. Once its memory is full, its overflow rule says what happens.", yes: "Pause" }) },
  resume: { label: "Resume", done: "resumed", title: "Start its actors now" },
  flush: { label: "Flush", done: "told to close its window", title: "Close its window now" },
  restart: { label: "Restart", done: "restarted", title: "Replace its actors by fresh ones; nothing accepted is lost" },
};
/// Counters of all that ever was: what was erased or pruned since is still in them.
const WORDS = { stored: "stored ever", dead_lettered: "dead lettered ever" };
/// So many entries of the log are shown.
const LOGGED = 12;
const HELD = ["stopped", "quarantined", "restarting"];

export function tenant(main, signal, { id }) {
  const back = el("a", { href: "#/tenants", class: "back" }, "← Tenants");
  if (!isTenant(id)) {
    main.replaceChildren(back, el("h1", {}, id), el("p", { class: "none" }, "This is no tenant's id: one has up to 64 letters, digits, dots, dashes and underscores."));
    return { back: "#/tenants" };
  }
  const state = pill();
  const muted = el("span", { class: "pill off", hidden: true }, el("i", { "aria-hidden": "true" }, "⊘"), "muted");
  const trouble = el("p", { class: "trouble", role: "alert", hidden: true });
  const advice = el("p", { class: "advice", hidden: true });
  const buttons = Object.fromEntries(Object.entries(ORDERS).map(([order, { label, title }]) =>
    [order, el("button", { type: "button", title, "data-order": order, onclick: () => give(order) }, label)]));
  const window = windowCard();
  const batch = batchCard();
  const numbers = el("dl", { class: "numbers" });
  const sum = el("p", { class: "verdict" });
  const failures = el("tbody");
  const failing = card("What failed", el("p", { class: "fine" }, el("i", { "aria-hidden": "true" }, "✓ "), "Nothing since the daemon was started."),
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...["What", "Last minute", "In all", "First", "Last", "What it said"].map((word, at) =>
      el("th", { scope: "col", class: at === 1 || at === 2 ? "number" : "" }, word)))), failures)));
  const owed = el("ul", { class: "list" });
  const owing = card("Not undone yet", owed);
  const actors = el("p", { class: "muted small" });
  const log = el("ol", { class: "log" });
  const rules = el("dl", { class: "rules" });
  main.replaceChildren(back, el("div", { class: "row title" }, el("h1", {}, id), state, muted, el("span", { class: "grow" }), el("div", { class: "row orders" }, ...Object.values(buttons))), trouble, advice,
    el("div", { class: "halves" }, window.node, batch.node),
    owing, failing,
    el("div", { class: "halves" }, card("Counters", sum, numbers, actors), card("Supervisor log", log, el("a", { class: "more", href: `#/log/${encodeURIComponent(id)}` }, "all of it, live"))),
    el("details", { class: "card" }, el("summary", {}, "The rules it lives by"), rules));
  show(owing, false);

  let told = null;
  const wake = { now: () => {} };

  async function give(order) {
    const { asks, done } = ORDERS[order];
    if (asks && !(await ask(asks(id)))) return;
    try {
      const { remark } = await post(tenantPath(id, `/${order}`));
      say(`${id}: ${done}${remark ? `: ${remark}` : ""}`);
    } catch (why) {
      say(`${id}: ${why.message}`, true);
    }
    wake.now();
  }

  async function look() {
    const next = await get(tenantPath(id, "/explain?memory=true"), signal);
    told = next;
    show(trouble, false);
    state.set(next.status);
    show(muted, next.is_muted);
    show(advice, next.advice.length > 0);
    text(advice, `${next.since ? `So since ${clock(next.since)}. ` : ""}To do: ${next.advice.join("; ")}.`);
    show(buttons.mute, !next.is_muted);
    show(buttons.unmute, next.is_muted);
    show(buttons.stop, next.status !== "stopped");
    show(buttons.resume, HELD.includes(next.status));
    window.set(next);
    batch.set(next);
    tellNumbers(next.counters);
    text(actors, next.actors.length ? `Actors: ${next.actors.map(({ actor, epoch, status }) => `${actor}${epoch ? `, life ${epoch + 1}` : ""}${status ? `, ${status}` : ""}`).join("; ")}` : "No actor of it runs: its next event brings them up.");
    show(owing, next.uncompensated.length > 0);
    owed.replaceChildren(...next.uncompensated.map((row) => el("li", {}, el("code", {}, row.what), ` in ${row.store} of batch ${row.batch}, since ${clock(row.since)}, tried ${count(row.tries)} times: ${row.cause.detail} (${row.cause.code})`)));
    show(failing.querySelector(".fine"), next.failures.length === 0);
    show(failing.querySelector(".scroll"), next.failures.length > 0);
    failures.replaceChildren(...next.failures.map((row) => el("tr", { class: row.last_minute ? "" : "past" }, el("td", {}, el("code", {}, row.code)),
      el("td", { class: "number", "data-label": "Last minute" }, count(row.last_minute)), el("td", { class: "number", "data-label": "In all" }, count(row.failures)),
      el("td", { class: "nowrap", "data-label": "First" }, clock(row.first_at)), el("td", { class: "nowrap", "data-label": "Last" }, clock(row.last_at)), el("td", { class: "sample", title: row.sample }, row.sample))));
    tick();
  }

  function tellNumbers(counters) {
    const names = [...FIRST.filter((name) => name in counters), ...Object.keys(counters).filter((name) => !FIRST.includes(name))];
    if (numbers.children.length !== names.length) {
      numbers.replaceChildren(...names.map((name) => el("div", {}, el("dt", {}, WORDS[name] ?? name.replaceAll("_", " ")), el("dd"))));
    }
    names.forEach((name, at) => text(numbers.children[at].lastChild, count(counters[name])));
    const outcomes = ["stored", "dead_lettered", "shed", "discarded", "in_flight"].reduce((all, name) => all + (counters[name] ?? 0), 0);
    const holds = outcomes === (counters.accepted ?? 0);
    sum.className = holds ? "verdict good" : "verdict bad";
    text(sum, holds ? "✓ Each accepted event is accounted for." : `✗ ${count(Math.abs(outcomes - counters.accepted))} events are not accounted for.`);
  }

  // Countdowns go on between two looks.
  function tick() {
    if (!told) return;
    window.tick();
    batch.tick();
  }
  const clockwork = setInterval(tick, 200);
  signal.addEventListener("abort", () => clearInterval(clockwork));

  const failed = (why) => {
    text(trouble, why.status === 404 ? `${why.message}. It can be muted before it comes.` : why.message);
    show(trouble, true);
  };
  const loop = () => {
    const one = new AbortController();
    signal.addEventListener("abort", () => one.abort(), { once: true });
    // An order is seen at once, not at the next look.
    wake.now = () => { one.abort(); if (!signal.aborted) loop(); };
    every(1000, one.signal, look, failed);
  };
  loop();
  get(tenantPath(id, "/policy"), signal).then((policy) => {
    rules.replaceChildren(...flat(policy).map(([key, value]) => el("div", {}, el("dt", {}, key), el("dd", {}, value))));
  }).catch(() => {});
  followLog(id, log, signal);
  return { back: "#/tenants" };
}

/// The newest entries about it, newest first, as they come.
async function followLog(id, list, signal) {
  const nothing = el("li", { class: "muted" }, "Nothing yet.");
  list.replaceChildren(nothing);
  await every(1000, signal, async () => {
    list.replaceChildren(nothing);
    await follow(`/v1/log?tenant=${encodeURIComponent(id)}&last=60&follow=true&sentences=true`, (entries) => {
      // That it was paused is told, that it is quiet is not.
      const told = entries.filter(({ what }) => !["idle", "active", "started", "passivated"].includes(what)).slice(-LOGGED);
      if (told.length) nothing.remove();
      for (const entry of told) list.prepend(logLine(entry, { isOne: true }));
      while (list.children.length > LOGGED) list.lastChild.remove();
    }, signal);
  });
}

function windowCard() {
  const events = bar("Events");
  const size = bar("Bytes");
  const due = bar("Closes");
  const empty = el("p", { class: "muted" }, "The window is empty: it opens with the next event.");
  const backlog = el("p", { class: "muted" });
  const node = card("Window filling", empty, events, size, due, backlog);
  let told;
  return {
    node,
    set(next) {
      told = next;
      const { window, backlog: waits } = next;
      if (!window) return;
      const isOpen = window.events > 0;
      show(empty, !isOpen);
      events.set(window.events / window.max_events, `${count(window.events)} of ${count(window.max_events)}`);
      size.set(window.bytes / window.max_bytes, `${bytes(window.bytes)} of ${bytes(window.max_bytes)}`);
      show(due, isOpen && Boolean(window.due_at));
      const parts = [`${count(waits.batches)} ${waits.batches === 1 ? "batch waits" : "batches wait"}, ${count(waits.events)} events, ${bytes(waits.bytes)}`];
      if (waits.in_journal) parts.push(`${count(waits.in_journal)} in the journal alone`);
      if (waits.oldest_at) parts.push(`the oldest since ${clock(waits.oldest_at)}`);
      text(backlog, `Behind it: ${parts.join("; ")}.`);
    },
    tick() {
      const window = told?.window;
      if (!window?.due_at || !window.events) return;
      const left = ms(window.due_at) - now();
      const whole = Math.max(1, ms(window.due_at) - (ms(window.oldest_at) ?? now()));
      due.set(1 - left / whole, left > 0 ? `in ${span(left)}` : HELD.includes(told.status) ? "once it runs again" : "now");
    },
  };
}

function batchCard() {
  const idle = el("p", { class: "muted" }, "No batch is under way.");
  const id = el("code", { class: "break" });
  const what = el("p", {});
  const attempts = bar("Attempts spent");
  const next = bar("Next attempt");
  const cause = el("p", { class: "cause" });
  const undo = el("p", { class: "muted small" });
  const breakers = el("ul", { class: "list" });
  const whole = el("div", {}, el("p", {}, id), what, attempts, next, cause, undo);
  const restart = bar("Fresh actors");
  const node = card("Batch in flight", restart, idle, whole, breakers);
  let told;
  let seen = { at: 0, since: 0 };
  return {
    node,
    set(all) {
      told = all;
      const { batch } = all;
      show(idle, !batch);
      show(whole, Boolean(batch));
      breakers.replaceChildren(...all.breakers.map((one) => el("li", {}, `The breaker of ${one.store} is ${one.state.replaceAll("_", " ")} after ${count(one.failures)} failures`
        + (one.probe_at ? `; the next call is tried at ${clock(one.probe_at)}` : "") + ".")));
      if (!batch) return;
      text(id, batch.id);
      const doing = batch.is_given_up ? "is given up, and being rolled back or kept as dead letters"
        : batch.is_parked ? "waits for its store, which is not there; that costs no attempt"
        : batch.wants_turn_since ? `waits for its turn at the store since ${clock(batch.wants_turn_since)}`
        : batch.open_since ? `is being stored since ${clock(batch.open_since)}` : "waits for its next attempt";
      text(what, `${count(batch.events)} events, ${bytes(batch.bytes)}, attempt ${count(batch.attempt)}${batch.store && batch.store !== "store" ? ` at ${batch.store}` : ""}: it ${doing}.`);
      attempts.set(batch.attempts_spent / batch.attempts_allowed, `${count(batch.attempts_spent)} of ${count(batch.attempts_allowed)}`);
      show(cause, Boolean(batch.last_cause));
      text(cause, batch.last_cause ? `Last failure: ${batch.last_cause.detail} (${batch.last_cause.code})` : "");
      show(undo, batch.undo_steps.length > 0);
      text(undo, `To undo, newest first: ${batch.undo_steps.join(", ")}`);
    },
    tick() {
      countDown(next, ms(told?.batch?.next_attempt_at));
      countDown(restart, ms(told?.restart_at));
    },
  };
  function countDown(one, at) {
    show(one, Boolean(at));
    if (!at) return;
    if (seen.at !== at) seen = { at, since: now() };
    const left = at - now();
    one.set(1 - left / Math.max(1, at - seen.since), left > 0 ? `in ${span(left)}` : "now");
  }
}

/// Nested rules as lines: `window.max_age`, `1s`.
function flat(value, name = "") {
  if (value && typeof value === "object" && !Array.isArray(value)) {
    const keys = Object.keys(value);
    if (keys.length === 2 && "secs" in value && "nanos" in value) return [[name, span(value.secs * 1000 + value.nanos / 1e6)]];
    return keys.flatMap((key) => flat(value[key], name ? `${name}.${key}` : key));
  }
  return [[name, typeof value === "string" ? value.replaceAll("_", " ") : JSON.stringify(value)]];
}
