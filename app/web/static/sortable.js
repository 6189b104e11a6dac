/** A table whose columns sort it; missing values come last, whichever way. */

import { fill, h, scrolling } from "./dom.js";

const FEW = 200;

/** Of two values, for a sort in rising order. */
export function compared(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

/** A copy of the rows by a value, null and undefined last. */
export function sorted(rows, valueOf, isRising) {
  const isMissing = (row) => valueOf(row) === null || valueOf(row) === undefined;
  const known = rows.filter((row) => !isMissing(row));
  known.sort((a, b) => (isRising ? 1 : -1) * compared(valueOf(a), valueOf(b)));
  return [...known, ...rows.filter(isMissing)];
}

/** Columns are {name, label, number, value(row), cell(row)}. `update(columns, rows)` keeps the order that was chosen. */
export class SortableTable {
  constructor(caption) {
    this.caption = caption;
    this.by = null;
    this.isRising = true;
    this.isWhole = false;
    this.node = h("div");
  }

  update(columns, rows) {
    Object.assign(this, { columns, rows });
    const chosen = columns.find((column) => column.name === this.by);
    const ordered = chosen ? sorted(rows, chosen.value, this.isRising) : rows;
    const shown = this.isWhole ? ordered : ordered.slice(0, FEW);
    const box = this.node.querySelector(".scrolls");
    const [scrolled, focused] = [box?.scrollLeft ?? 0, this.node.contains(document.activeElement) ? document.activeElement.dataset.column ?? document.activeElement.getAttribute("href") : null];
    fill(this.node,
      scrolling(this.caption, h("table", { class: "sortable" }, h("caption", { class: "sr-only" }, this.caption),
        h("thead", {}, h("tr", {}, columns.map((column) => this.head(column)))),
        h("tbody", {}, shown.map((row) => h("tr", {}, columns.map((column, index) =>
          h(index ? "td" : "th", { scope: index ? null : "row", class: column.number && "number" }, column.cell(row)))))))),
      shown.length < rows.length && h("button", { type: "button", onclick: () => { this.isWhole = true; this.update(this.columns, this.rows); } }, `Show all ${rows.length} rows`));
    this.node.querySelector(".scrolls").scrollLeft = scrolled;
    if (focused) [...this.node.querySelectorAll("button, a")].find((one) => (one.dataset.column ?? one.getAttribute("href")) === focused)?.focus({ preventScroll: true });
  }

  head(column) {
    const isChosen = column.name === this.by;
    const order = isChosen ? (this.isRising ? "ascending" : "descending") : "none";
    const sign = isChosen ? (this.isRising ? " ↑" : " ↓") : "";
    return h("th", { scope: "col", "aria-sort": order, class: column.number && "number" },
      h("button", { type: "button", "data-column": column.name, onclick: () => this.sort(column) }, column.label, h("span", { "aria-hidden": "true" }, sign)));
  }

  /** Another column begins with what people look for: the largest number, the first word. */
  sort(column) {
    this.isRising = column.name === this.by ? !this.isRising : !column.number;
    this.by = column.name;
    this.update(this.columns, this.rows);
  }
}
