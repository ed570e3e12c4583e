// Elements and words. Whatever comes from data becomes text, never HTML.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/// Sets a text only where it is another: a live page is mostly the same as a second ago.
export function text(node, words) {
  const next = String(words);
  if (node.textContent !== next) node.textContent = next;
}

export const show = (node, visible) => { if (node.hidden === visible) node.hidden = !visible; };

export const count = (number) => Number(number ?? 0).toLocaleString("en");

export function short(number) {
  if (number < 10_000) return count(Math.round(number));
  for (const [size, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (number >= size) return (number / size).toFixed(number < 10 * size ? 1 : 0) + unit;
  }
}

export const rate = (number) => (number > 0 && number < 9.95 ? number.toFixed(1) : short(number));

export function bytes(number) {
  for (const [size, unit] of [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
    if (number >= size) return `${(number / size).toFixed(number < 10 * size ? 1 : 0)} ${unit}`;
  }
  return `${number} B`;
}

export function span(ms) {
  if (ms < 1000) return `${Math.round(Math.max(0, ms))} ms`;
  const seconds = ms / 1000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

/// The time of day in UTC, as the sentences of the log and the commands have it; with the date where that is not today's.
export function clock(time) {
  const [day, hour] = new Date(time).toISOString().slice(0, 19).split("T");
  return day === new Date().toISOString().slice(0, 10) ? hour : `${day} ${hour}`;
}

/// How bad a state is, 0 being as it should, and the sign that goes with its word: no state is told by colour alone.
const STATES = {
  active: ["good", "●", 0], idle: ["calm", "○", 0], dormant: ["calm", "◌", 0],
  silent: ["warn", "◔", 1], failing: ["bad", "▲", 4], retrying: ["warn", "▲", 4], compensating: ["warn", "▲", 5], restarting: ["warn", "▲", 6], stopped: ["warn", "‖", 3],
  breaker_open: ["bad", "■", 7], parked: ["bad", "■", 7], stalled: ["bad", "■", 8], quarantined: ["bad", "■", 9],
};
const UNKNOWN = ["warn", "?", 2];

export const severity = (status) => (STATES[status] ?? UNKNOWN)[2];
export const stateWord = (status) => (status === "stopped" ? "paused" : status.replaceAll("_", " "));

/// A pill with the state in colour, sign and word; `pill.set(status)` changes it.
export function pill(status) {
  const node = el("span", { class: "pill" });
  node.set = (next) => {
    if (node.status === next) return;
    node.status = next;
    const [kind, sign] = STATES[next] ?? UNKNOWN;
    node.className = `pill ${kind}`;
    node.replaceChildren(el("i", { "aria-hidden": "true" }, sign), stateWord(next));
  };
  if (status) node.set(status);
  return node;
}

/// What a tenant's id may be; anything else is never asked for.
export const isTenant = (id) => /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(id);

export const tenantLink = (id) => el("a", { href: `#/tenant/${encodeURIComponent(id)}`, class: "id" }, id);

/// A labelled bar that fills; `bar.set(part, words)`.
export function bar(label) {
  const meter = el("div", { class: "fill" });
  const words = el("span", { class: "value" });
  const track = el("div", { class: "track", role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100 }, meter);
  const node = el("div", { class: "bar" }, el("div", { class: "row spread" }, el("span", {}, label), words), track);
  node.set = (part, told) => {
    const percent = Math.round(1000 * Math.min(1, Math.max(0, part || 0))) / 10;
    meter.style.width = `${percent}%`;
    track.setAttribute("aria-valuenow", percent);
    track.setAttribute("aria-valuetext", told);
    text(words, told);
  };
  return node;
}

export function card(title, ...children) {
  return el("section", { class: "card" }, el("h2", {}, title), ...children);
}

const dialog = document.getElementById("ask");

/// Asks a question; whether it was answered with yes.
export function ask({ title, words, yes, isDanger }) {
  return new Promise((answer) => {
    text(document.getElementById("ask-title"), title);
    text(document.getElementById("ask-text"), words);
    text(document.getElementById("ask-yes"), yes);
    document.getElementById("ask-yes").className = isDanger ? "danger" : "primary";
    document.getElementById("ask-token").hidden = true;
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => answer(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
    document.getElementById("ask-no").focus();
  });
}

/// Asks for the token; none where it is not given.
export function askToken(isWrong) {
  return new Promise((answer) => {
    const input = document.getElementById("ask-token");
    text(document.getElementById("ask-title"), isWrong ? "This token is not the right one" : "A token is needed");
    text(document.getElementById("ask-text"), "The token of this daemon's API, from the file that its configuration names as admin.token_file. "
      + "It is kept until this tab is closed, and sent to this address alone.");
    text(document.getElementById("ask-yes"), "Go on");
    document.getElementById("ask-yes").className = "primary";
    input.hidden = false;
    input.value = "";
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => {
      const token = dialog.returnValue === "yes" ? input.value.trim() : "";
      input.value = "";
      answer(token);
    }, { once: true });
    dialog.showModal();
    input.focus();
  });
}

// Enter in the field means yes, whatever button comes first.
document.getElementById("ask-token").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  dialog.close("yes");
});

let quiet;
/// Says what became of an order, for some seconds.
export function say(words, isBad = false) {
  const said = document.getElementById("said");
  said.className = isBad ? "said bad shown" : "said shown";
  text(said, words);
  clearTimeout(quiet);
  quiet = setTimeout(() => { said.className = "said"; }, isBad ? 12_000 : 5_000);
}
