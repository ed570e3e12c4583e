// The system as it was told last, and the last minutes of it: rates from the daemon's raw counters.

import { heard } from "./api.js";

/// How much is kept for the charts.
export const KEPT_MS = 5 * 60_000;

export const model = { overview: null, tenants: [], byId: new Map(), history: [], updated: 0, cost: 0 };
const listeners = new Set();

/// Calls `listener` at each update, until the signal ends it.
export function onUpdate(listener, signal) {
  listeners.add(listener);
  signal.addEventListener("abort", () => listeners.delete(listener));
  if (model.overview) listener(model);
}

const bad = (of) => of.muted + of.throttled + of.rejected + of.malformed + of.dead_lettered + of.shed + of.discarded;
const settled = (of) => of.stored + of.dead_lettered + of.shed + of.discarded;

export function take(overview) {
  const began = performance.now();
  const before = model.overview;
  heard(overview.at);
  const isNew = !before || before.opening !== overview.opening;
  const seconds = isNew ? 0 : (overview.at - before.at) / 1000;
  const perSecond = (now, then) => (seconds > 0 ? Math.max(0, now - then) / seconds : 0);
  const now = overview.totals;
  const then = before?.totals ?? now;
  if (isNew) model.history.length = 0;
  // What waits over what leaves a second is how long it takes, in the mean (Little's law).
  const leaves = perSecond(settled(now), settled(then));
  const waits = (now.in_flight + then.in_flight) / 2;
  model.history.push({
    at: overview.at,
    accepted: perSecond(now.accepted, then.accepted),
    stored: perSecond(now.stored, then.stored),
    bad: perSecond(bad(now), bad(then)),
    in_flight: now.in_flight,
    bytes: overview.in_flight_bytes,
    oldest: now.oldest_at === null ? 0 : Math.max(0, overview.at - now.oldest_at),
    mean: leaves > 0 ? (1000 * waits) / leaves : null,
  });
  // A first point has no rate yet.
  if (isNew) Object.assign(model.history[0], { accepted: null, stored: null, bad: null });
  while (model.history[0].at < overview.at - KEPT_MS) model.history.shift();
  takeTenants(overview, seconds, isNew);
  overview.tenants = null;
  model.overview = overview;
  model.updated = Date.now();
  for (const listener of listeners) listener(model);
  model.cost = performance.now() - began;
}

function takeTenants(overview, seconds, isNew) {
  const place = Object.fromEntries(overview.columns.map((name, at) => [name, at]));
  const fields = overview.columns;
  const isWhole = overview.tenants.length === model.tenants.length;
  const all = isWhole ? model.tenants : [];
  for (let at = 0; at < overview.tenants.length; at++) {
    const row = overview.tenants[at];
    const id = row[place.tenant];
    let tenant = model.byId.get(id);
    if (!tenant) {
      // One that comes up while the page is open has all of its events from now on.
      tenant = { accepted: isNew ? row[place.accepted] : 0, stored: isNew ? row[place.stored] : 0, in: 0, out: 0 };
      model.byId.set(id, tenant);
    }
    if (seconds > 0) {
      tenant.in = smooth(tenant.in, (row[place.accepted] - tenant.accepted) / seconds);
      tenant.out = smooth(tenant.out, (row[place.stored] - tenant.stored) / seconds);
    }
    for (let field = 0; field < fields.length; field++) tenant[fields[field]] = row[field];
    tenant.age = tenant.oldest_at === null ? 0 : Math.max(0, overview.at - tenant.oldest_at);
    all[at] = tenant;
  }
  // A daemon that was started over may know fewer.
  if (model.byId.size > all.length) model.byId = new Map(all.map((tenant) => [tenant.tenant, tenant]));
  model.tenants = all;
}

function smooth(before, next) {
  const value = Math.max(0, 0.5 * before + 0.5 * next);
  return value < 0.05 ? 0 : value;
}
