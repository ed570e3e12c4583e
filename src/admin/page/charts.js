// Small line charts on a canvas: the last minutes, up to now.

import { el, text, clock, span } from "./dom.js";
import { KEPT_MS } from "./model.js";

const LEFT = 8, TOP = 8, BOTTOM = 20;
/// How much is shown: as much as there is, in these steps.
const WHOLES = [60_000, 120_000, KEPT_MS];
const TICKS = 5;
const ago = (ms) => (ms === 0 ? "now" : ms % 60_000 ? `-${ms / 1000} s` : `-${ms / 60_000} min`);

/// A round number not below `value`.
function ceiling(value) {
  if (!(value > 0)) return 1;
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 5, 10].find((step) => step * size >= value * 0.999) * size;
}

/// `lines`: [{ key, label, colour: the CSS variable, say(value) }], the first one filled.
export function chart(title, lines, { sayAxis, atLeast }) {
  const canvas = el("canvas", { role: "img" });
  const legend = el("ul", { class: "legend" });
  const when = el("span", { class: "when" });
  const swatches = [];
  const values = lines.map(({ label, colour }) => {
    const value = el("b");
    const swatch = el("i", { class: `swatch ${colour}`, "aria-hidden": "true" });
    swatches.push(swatch);
    legend.append(el("li", {}, swatch, el("span", {}, label), value));
    return value;
  });
  const node = el("section", { class: "card chart" }, el("div", { class: "row spread" }, el("h2", {}, title), when), legend,
    el("div", { class: "plot" }, canvas));
  let history = [];
  let pointed = null;
  let whole = WHOLES[0];
  let wanted = false;

  const draw = () => {
    wanted = false;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width) return;
    const scale = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
    if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
    const style = getComputedStyle(node);
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const end = history.at(-1)?.at ?? Date.now();
    const age = end - (history[0]?.at ?? end);
    whole = WHOLES.find((ms) => ms >= age) ?? KEPT_MS;
    const begin = end - whole;
    // As the style comes out; a variable is not worked out for a canvas.
    const [line, muted, surface] = [style.borderTopColor, getComputedStyle(when).color, style.backgroundColor];
    const top = ceiling(Math.max(atLeast, ...history.flatMap((point) => lines.map(({ key }) => point[key] ?? 0))));
    const x = (at) => LEFT + ((at - begin) / whole) * (width - 2 * LEFT);
    const y = (value) => height - BOTTOM - (value / top) * (height - BOTTOM - TOP);
    pen.font = `11px ${style.fontFamily}`;
    pen.lineWidth = 1;
    for (const part of [0, 0.5, 1]) {
      pen.strokeStyle = line;
      pen.beginPath();
      pen.moveTo(LEFT, Math.round(y(part * top)) + 0.5);
      pen.lineTo(width - LEFT, Math.round(y(part * top)) + 0.5);
      pen.stroke();
    }
    pen.fillStyle = muted;
    const ticks = whole === KEPT_MS ? TICKS : 4;
    for (let tick = 0; tick <= ticks; tick++) {
      const back = (tick * whole) / ticks;
      pen.textAlign = tick === 0 ? "right" : tick === ticks ? "left" : "center";
      pen.fillText(ago(back), x(end - back), height - 5);
    }
    const inner = ({ key }, place) => {
      const paint = getComputedStyle(swatches[place]).backgroundColor;
      pen.strokeStyle = paint;
      pen.lineWidth = 1.75;
      pen.lineJoin = "round";
      let run = [];
      const stroke = () => {
        if (run.length === 0) return;
        pen.beginPath();
        run.forEach(([px, py], at) => (at ? pen.lineTo(px, py) : pen.moveTo(px, py)));
        if (run.length === 1) pen.lineTo(run[0][0] + 1, run[0][1]);
        pen.stroke();
        if (place === 0) {
          pen.lineTo(run.at(-1)[0], y(0));
          pen.lineTo(run[0][0], y(0));
          pen.globalAlpha = 0.13;
          pen.fillStyle = paint;
          pen.fill();
          pen.globalAlpha = 1;
        }
        run = [];
      };
      for (const point of history) {
        if (point[key] === null) stroke();
        else run.push([x(point.at), y(point[key])]);
      }
      stroke();
    };
    for (let place = lines.length - 1; place >= 0; place--) inner(lines[place], place);
    pen.textAlign = "left";
    for (const part of [0.5, 1]) {
      const words = sayAxis(part * top);
      pen.fillStyle = surface;
      pen.globalAlpha = 0.75;
      pen.fillRect(LEFT, y(part * top) + 2, pen.measureText(words).width + 4, 13);
      pen.globalAlpha = 1;
      pen.fillStyle = muted;
      pen.fillText(words, LEFT + 2, y(part * top) + 12);
    }
    const at = pointed === null ? history.length - 1 : nearest(begin + ((pointed - LEFT) / (width - 2 * LEFT)) * whole);
    const point = history[at];
    if (point && pointed !== null) {
      pen.strokeStyle = muted;
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(x(point.at), TOP);
      pen.lineTo(x(point.at), height - BOTTOM);
      pen.stroke();
    }
    // What came before the page was opened is not known to it.
    const filling = age < KEPT_MS - 2000 ? `filling: ${span(age)} of ${KEPT_MS / 60_000} min` : "";
    text(when, pointed !== null && point ? clock(point.at) : filling);
    lines.forEach(({ key, say }, line) => text(values[line], point && point[key] !== null ? say(point[key], point) : "-"));
    canvas.setAttribute("aria-label", `${title}, now: ${lines.map(({ label }, line) => `${label} ${values[line].textContent}`).join(", ")}`);
  };
  const nearest = (time) => {
    let best = 0;
    for (let at = 1; at < history.length; at++) {
      if (Math.abs(history[at].at - time) < Math.abs(history[best].at - time)) best = at;
    }
    return best;
  };
  const later = () => {
    if (wanted) return;
    wanted = true;
    requestAnimationFrame(draw);
  };
  canvas.addEventListener("pointermove", (event) => { pointed = event.offsetX; later(); });
  canvas.addEventListener("pointerleave", () => { pointed = null; later(); });
  new ResizeObserver(later).observe(canvas);
  document.addEventListener("themed", later);
  node.set = (next) => { history = next; later(); };
  node.end = () => document.removeEventListener("themed", later);
  return node;
}
