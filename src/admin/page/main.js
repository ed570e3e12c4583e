// The frame: which view is shown, what the daemon says every second, colours and keys.

import { every, get } from "./api.js";
import { clock, show, text } from "./dom.js";
import { letters } from "./letters.js";
import { log } from "./log.js";
import { model, take } from "./model.js";
import { overview } from "./overview.js";
import { tenant } from "./tenant.js";
import { tenants } from "./tenants.js";

const main = document.getElementById("main");
const dialog = document.getElementById("ask");
let view = {};
let leave = new AbortController();

/// #/, #/tenants, #/tenants/trouble, #/tenant/ID, #/log, #/log/ID, #/dead-letters
function route() {
  const [, name = "", rest = ""] = location.hash.split("/");
  const id = decoded(rest);
  if (name === "tenants") return ["tenants", "Tenants", tenants, { only: id }];
  if (name === "tenant" && id) return ["tenants", id, tenant, { id }];
  if (name === "log") return ["log", "Log", log, { id }];
  if (name === "dead-letters") return ["dead-letters", "Dead letters", letters, {}];
  return ["overview", "Overview", overview, {}];
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

function enter() {
  leave.abort();
  leave = new AbortController();
  const [name, title, make, of] = route();
  document.title = `${title} - Headworks`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  view = make(main, leave.signal, of) ?? {};
  main.scrollTop = 0;
}
addEventListener("hashchange", () => {
  enter();
  (view.first ?? main).focus({ preventScroll: true });
});

const THEMES = ["system", "light", "dark"];
const SIGNS = { system: "◐ System", light: "☀ Light", dark: "☾ Dark" };
const button = document.getElementById("theme");
let theme = "system";
try { theme = localStorage.getItem("headworks-theme") ?? theme; } catch { /* Then it is the system's. */ }

function paint() {
  if (!THEMES.includes(theme)) theme = "system";
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  text(button, SIGNS[theme]);
  button.setAttribute("aria-label", `Colours: ${theme}`);
  document.dispatchEvent(new Event("themed"));
}
button.addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  try { localStorage.setItem("headworks-theme", theme); } catch { /* It holds until the page is left. */ }
  paint();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

addEventListener("keydown", (event) => {
  if (dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = event.target.matches("input:not([type=checkbox]), textarea");
  if (event.key === "Escape") {
    if (isTyping && event.target.value) {
      event.target.value = "";
      event.target.dispatchEvent(new Event("input"));
    } else if (isTyping) (view.first ?? main).focus();
    else if (view.back) location.hash = view.back;
    else if (location.hash.length > 2) location.hash = "#/";
    else return;
  } else if (isTyping) {
    return;
  } else if (event.key === "/") {
    if (!view.search) location.hash = "#/tenants";
    // The view is there with the next event.
    setTimeout(() => view.search?.focus(), 0);
  } else if (["1", "2", "3", "4"].includes(event.key)) {
    location.hash = document.querySelectorAll("nav a")[event.key - 1].hash;
  } else return;
  event.preventDefault();
});

const link = document.getElementById("link");
const trouble = document.getElementById("trouble");

paint();
enter();
every(1000, new AbortController().signal, async (signal) => {
  const isFirst = !model.overview;
  take(await get("/v1/overview", signal));
  // For whoever measures the page.
  if (isFirst) performance.mark("shown");
  const { version, process, trouble: wrong, at } = model.overview;
  text(document.getElementById("about"), `headworks ${version}, process ${process}`);
  text(link, `live ${clock(at)} UTC`);
  link.className = "link good";
  show(trouble, Boolean(wrong));
  text(trouble, wrong ?? "");
}, (why) => {
  link.className = "link bad";
  text(link, "no answer");
  text(trouble, `No answer from the daemon${model.updated ? ` since ${clock(model.updated)}: what is shown is as of then` : ""}. ${why.message}. It is asked again every second.`);
  show(trouble, true);
});
