// Dead letters: what was given up, why, and how it is brought back.

import { every, get, post } from "./api.js";
import { ask, bytes, clock, count, el, isTenant, say, show, tenantLink, text } from "./dom.js";

const LIMIT = 200;

export function letters(main, signal) {
  const search = el("input", { type: "search", class: "search", placeholder: "Tenant, reason or content", "aria-label": "Search dead letters", spellcheck: "false" });
  const open = el("input", { type: "checkbox", checked: true });
  const all = el("button", { type: "button", class: "primary", onclick: () => replay(chosen()) }, "Replay");
  const said = el("span", { class: "muted", role: "status" });
  const list = el("div", { class: "letters" });
  const none = el("p", { class: "none", hidden: true }, "There is no such dead letter.");
  main.replaceChildren(el("div", { class: "fill-view" }, el("h1", { class: "sr" }, "Dead letters"),
    el("div", { class: "tools" }, search, el("label", { class: "check" }, open, "not replayed only"), el("span", { class: "grow" }), said, all),
    el("div", { class: "scroll-y" }, list, none)));
  const known = new Map();
  let found = [];
  let looking = null;

  const chosen = () => {
    const words = search.value.trim().toLowerCase();
    const has = (letter) => `${letter.tenant ?? ""} ${letter.reason} ${letter.detail} ${letter.body ?? ""}`.toLowerCase().includes(words);
    return found.filter((letter) => has(letter));
  };

  function draw() {
    const shown = chosen();
    const ids = new Set(shown.map(({ id }) => id));
    for (const [id, one] of known) {
      if (ids.has(id)) continue;
      one.node.remove();
      known.delete(id);
    }
    shown.forEach((letter, at) => {
      if (!known.has(letter.id)) known.set(letter.id, line(letter));
      const one = known.get(letter.id);
      one.set(letter);
      if (list.children[at] !== one.node) list.insertBefore(one.node, list.children[at] ?? null);
    });
    show(none, shown.length === 0);
    const waiting = shown.filter((letter) => !letter.replayed_at).length;
    all.disabled = waiting === 0;
    text(all, `Replay ${count(waiting)}`);
    text(said, found.length >= LIMIT ? `the newest ${count(LIMIT)}` : `${count(shown.length)} shown`);
  }

  function line(letter) {
    const mark = el("span", { class: "pill" });
    const button = el("button", { type: "button", onclick: () => replay([known.get(letter.id).letter]) }, "Replay");
    const who = letter.tenant ? (isTenant(letter.tenant) ? tenantLink(letter.tenant) : el("span", {}, letter.tenant)) : el("span", { class: "muted" }, "no tenant");
    const body = letter.body ?? `(not UTF-8) ${letter.body_hex}`;
    const facts = [["Id", letter.id], ["Kind", letter.kind], ["Source", letter.source], ["Arrived", clock(letter.first_at)], ["Attempts", letter.attempts],
      ["Batch", letter.batch], ["Edited", letter.edited_at && clock(letter.edited_at)], ["Size as it came", bytes(letter.original_bytes)]].filter(([, value]) => value !== null && value !== undefined);
    const node = el("article", { class: "letter" },
      el("div", { class: "row" }, el("time", { datetime: letter.last_at }, clock(letter.last_at)), who, el("code", {}, letter.reason), mark, el("span", { class: "grow" }), button),
      el("p", { class: "cause" }, letter.detail),
      el("details", {}, el("summary", {}, "Content"), el("pre", {}, body), el("dl", { class: "rules" }, ...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))))));
    return {
      node,
      letter,
      set(next) {
        this.letter = next;
        const isBack = Boolean(next.replayed_at);
        mark.className = isBack ? "pill good" : "pill warn";
        text(mark, isBack ? `replayed ${clock(next.replayed_at)}` : "kept");
        show(button, !isBack);
      },
    };
  }

  async function replay(which) {
    const waiting = which.filter((letter) => !letter.replayed_at);
    if (!waiting.length) return;
    const what = waiting.length === 1 ? "this dead letter" : `${count(waiting.length)} dead letters`;
    const words = `Each comes in again by the normal way, once, and keeps its place here, marked as replayed. What is still no event stays as it is: edit it first, with headworks dead-letters edit.`;
    if (!(await ask({ title: `Replay ${what}?`, words, yes: "Replay" }))) return;
    all.disabled = true;
    try {
      say(outcome(await post("/v1/dead-letters/replay", { which: { ids: waiting.map(({ id }) => id) } })), false);
    } catch (why) {
      say(`Nothing was replayed: ${why.message}`, true);
    }
    look();
  }

  const look = () => {
    looking?.abort();
    const own = looking = new AbortController();
    signal.addEventListener("abort", () => own.abort(), { once: true });
    every(2000, own.signal, async () => {
      const query = open.checked ? "&replayed=false" : "";
      found = (await get(`/v1/dead-letters?limit=${LIMIT}${query}`, own.signal)).reverse();
      draw();
    }, (why) => text(said, why.message));
  };
  search.addEventListener("input", draw);
  open.addEventListener("change", look);
  look();
  return { search };
}

/// What became of a replay, in words.
function outcome({ chosen, replayed, given_up_again: again, refused, malformed, cut_short: cut, interrupted }) {
  const parts = [`${count(replayed)} of ${count(chosen)} came back`];
  for (const [label, codes] of [["given up again", again], ["refused", refused], ["still no event", malformed]]) {
    for (const [code, number] of Object.entries(codes)) parts.push(`${count(number)} ${label} (${code})`);
  }
  if (cut) parts.push(`${count(cut)} of which only the beginning was kept`);
  if (interrupted) parts.push("the rest goes on when the daemon starts again");
  return `${parts.join("; ")}.`;
}
