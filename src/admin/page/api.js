// The way to the admin API this page came from.

import { askToken } from "./dom.js";

const KEY = "headworks-token";
/// What the clock of the daemon is ahead of the browser's, in ms.
let ahead = 0;
let asking = null;

/// The daemon's time now.
export const now = () => Date.now() + ahead;

export function heard(at) { ahead = at - Date.now(); }

function token() {
  try { return sessionStorage.getItem(KEY) ?? ""; } catch { return ""; }
}

/// Asks once, however many requests wait for it.
function renew(used) {
  // Another request may have asked meanwhile.
  if (token() && token() !== used) return Promise.resolve();
  asking ??= askToken(used !== "").then((given) => {
    try { sessionStorage.setItem(KEY, given); } catch { /* Then it is asked for again. */ }
    asking = null;
    if (!given) throw new Error("no token was given; reload the page to give one");
  });
  return asking;
}

async function request(path, options = {}) {
  for (;;) {
    const used = token();
    const headers = { ...options.headers };
    if (used) headers.authorization = `Bearer ${used}`;
    const response = await fetch(path, { ...options, headers, cache: "no-store" });
    if (response.ok) return response;
    if (response.status === 401) {
      await renew(used);
      continue;
    }
    const problem = await response.json().catch(() => ({}));
    throw Object.assign(new Error(problem.detail ?? `the daemon answered ${response.status}`), { status: response.status });
  }
}

export async function get(path, signal) {
  return (await request(path, { signal })).json();
}

export async function post(path, body) {
  const options = { method: "POST" };
  if (body !== undefined) Object.assign(options, { body: JSON.stringify(body), headers: { "content-type": "application/json" } });
  return (await request(path, options)).json();
}

/// Each line of an answer that goes on, several at once: `take` is called once a piece. Ends with the answer.
export async function follow(path, take, signal) {
  const response = await request(path, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    const entries = lines.filter(Boolean).map((line) => JSON.parse(line));
    if (entries.length) take(entries);
  }
}

/// Calls `work` now and then again and again until `signal` ends it: every `ms`, later where it takes long, and seldom while
/// nobody looks. What fails is told to `failed`, and tried again.
export async function every(ms, signal, work, failed = () => {}) {
  while (!signal.aborted) {
    const began = performance.now();
    try {
      await work(signal);
    } catch (why) {
      if (signal.aborted) return;
      failed(why);
    }
    const took = performance.now() - began;
    await pause(document.hidden ? 10_000 : Math.max(ms - took, 3 * took, 100), signal);
  }
}

function pause(ms, signal) {
  return new Promise((over) => {
    const end = () => {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", end);
      signal.removeEventListener("abort", end);
      over();
    };
    const timer = setTimeout(end, ms);
    document.addEventListener("visibilitychange", end);
    signal.addEventListener("abort", end);
  });
}

export const tenantPath = (id, rest = "") => `/v1/tenants/${encodeURIComponent(id)}${rest}`;
