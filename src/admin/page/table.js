// A table of very many rows, of which only those in sight are elements.

import { el, text } from "./dom.js";

const ROW = 34;
const SPARE = 6;

/// `columns`: [{ key, label, make(): cell, set(cell, row), less(a, b), downFirst, class }]; `open(row)` is called for the row that
/// is chosen. Rows are known by `tenant`, and so is the one that is marked: it stays marked when rows move.
export function table(columns, { label, sort, open, onSort, empty }) {
  let rows = [];
  let marked = null;
  let pool = [];
  let first = -1;
  let drawn = 0;
  const heads = columns.map((column) => {
    const button = el("button", { type: "button", class: "head", onclick: () => turn(column) }, column.label, el("i", { "aria-hidden": "true" }));
    return el("div", { role: "columnheader", class: column.class ?? "" }, button);
  });
  const head = el("div", { role: "row", class: "tr th", "aria-rowindex": 1 }, ...heads);
  const space = el("div", { class: "space" });
  const body = el("div", { class: "rows", role: "rowgroup" }, space);
  const none = el("p", { class: "none" }, empty);
  const node = el("div", { class: "table", role: "grid", tabindex: 0, "aria-label": label, "aria-readonly": "true" }, head, body, none);

  const sortWords = () => heads.forEach((cell, at) => {
    const isIt = columns[at].key === sort.key;
    cell.setAttribute("aria-sort", isIt ? (sort.down ? "descending" : "ascending") : "none");
    text(cell.querySelector("i"), isIt ? (sort.down ? "▼" : "▲") : "");
  });
  const turn = (column) => {
    sort.down = sort.key === column.key ? !sort.down : Boolean(column.downFirst);
    sort.key = column.key;
    sortWords();
    onSort();
  };

  const make = () => {
    const cells = columns.map((column) => el("div", { role: "gridcell", class: column.class ?? "" }, column.make?.() ?? document.createTextNode("")));
    const line = el("div", { class: "tr", role: "row" }, ...cells);
    line.cells = cells;
    line.addEventListener("click", (event) => {
      // A link in it goes its own way.
      if (event.target.closest("a")) return;
      marked = line.row.tenant;
      open(line.row);
    });
    space.append(line);
    return line;
  };

  const draw = () => {
    const height = node.clientHeight;
    // Not laid out yet.
    if (!height) return;
    first = Math.max(0, Math.floor(node.scrollTop / ROW) - SPARE);
    const wanted = Math.min(rows.length - first, Math.ceil(height / ROW) + 2 * SPARE);
    while (pool.length < wanted) pool.push(make());
    drawn = wanted;
    pool.forEach((line, at) => {
      const row = at < wanted ? rows[first + at] : null;
      if (line.hidden !== !row) line.hidden = !row;
      if (!row) return;
      line.row = row;
      const place = `translateY(${(first + at) * ROW}px)`;
      if (line.style.transform !== place) line.style.transform = place;
      line.setAttribute("aria-rowindex", first + at + 2);
      const isMarked = row.tenant === marked;
      if (line.classList.contains("marked") !== isMarked) {
        line.classList.toggle("marked", isMarked);
        line.setAttribute("aria-selected", isMarked);
      }
      line.id = `row-${first + at}`;
      columns.forEach((column, cell) => column.set(line.cells[cell], row));
    });
    const at = marked === null ? -1 : rows.findIndex((row) => row.tenant === marked);
    if (at >= first && at < first + drawn) node.setAttribute("aria-activedescendant", `row-${at}`);
    else node.removeAttribute("aria-activedescendant");
  };

  const mark = (at) => {
    if (!rows.length) return;
    at = Math.min(rows.length - 1, Math.max(0, at));
    marked = rows[at].tenant;
    const top = at * ROW;
    const room = node.clientHeight - ROW;
    if (top < node.scrollTop) node.scrollTop = top;
    else if (top + ROW > node.scrollTop + room) node.scrollTop = top + ROW - room;
    draw();
  };

  node.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  node.addEventListener("keydown", (event) => {
    if (event.target !== node) return;
    const at = rows.findIndex((row) => row.tenant === marked);
    const page = Math.max(1, Math.floor(node.clientHeight / ROW) - 2);
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: rows.length - 1 }[event.key];
    if (next !== undefined) mark(next);
    else if (event.key === "Enter" && at >= 0) open(rows[at]);
    else return;
    event.preventDefault();
  });
  node.addEventListener("focus", () => { if (marked === null && rows.length) mark(Math.floor(node.scrollTop / ROW)); });
  new ResizeObserver(draw).observe(node);

  sortWords();
  node.isHeld = () => body.matches(":hover") && matchMedia("(hover: hover)").matches;
  node.set = (next) => {
    rows = next;
    const height = `${rows.length * ROW}px`;
    if (space.style.height !== height) space.style.height = height;
    node.setAttribute("aria-rowcount", rows.length + 1);
    none.hidden = rows.length > 0;
    draw();
  };
  node.markFirst = () => { marked = null; node.focus(); mark(0); };
  node.restore = (id, top) => { marked = id; node.scrollTop = top; draw(); };
  node.place = () => ({ marked, top: node.scrollTop });
  return node;
}
