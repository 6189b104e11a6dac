/**
 * A list of any length of which only what is seen exists. Rows have one height (`--row` in app.css), lie where their number says,
 * and are kept by id: whoever has the focus on one keeps it while others come and go.
 *
 * Pages are asked for as the reader comes near the end, and those that hold unfinished items in view are asked for again.
 */

import { h } from "./dom.js";

const AHEAD = 12; // rows that exist above and below what is seen
const NEAR = 100; // rows before the end at which the next page is asked for

export class LongList {
  /**
   * `load(token)` answers {items, next_page_token}; `row(item)` an element; `trouble(problem)` hears of what a scroll met;
   * `changed()` is called whenever there are other items.
   */
  constructor({ label, load, row, isFinished, changed, kept, trouble = () => {} }) {
    Object.assign(this, { load, row, isFinished, changed, trouble });
    this.items = kept?.items ?? [];
    this.tokens = kept?.tokens ?? [null]; // of each page that was asked for, and the next
    this.pageOf = kept?.pageOf ?? new Map(); // id -> the page that it came on
    this.isEnd = kept?.isEnd ?? false;
    this.rows = new Map(); // id -> {node, version}
    this.loading = null;
    this.node = h("ol", { class: "long-list", "aria-label": label, role: "list" });
  }

  /** What brings the list back as it is, when somebody comes back. */
  get kept() {
    const { items, tokens, pageOf, isEnd } = this;
    return { items, tokens, pageOf, isEnd };
  }

  start(signal) {
    const render = () => this.render();
    addEventListener("scroll", render, { passive: true, signal });
    addEventListener("resize", render, { signal });
    this.signal = signal;
    this.render();
  }

  /** The first page anew, and those in view that hold something unfinished. */
  async refresh() {
    const stale = new Set([0]);
    for (const item of this.items.slice(...this.span())) {
      if (!this.isFinished(item)) stale.add(this.pageOf.get(item.id));
    }
    for (const number of stale) {
      const page = await this.load(this.tokens[number]);
      if (this.signal.aborted) return;
      this.take(number, page);
    }
    this.render();
  }

  take(number, page) {
    const known = new Map(this.items.map((item, index) => [item.id, index]));
    const fresh = page.items.filter((item) => !known.has(item.id));
    for (const item of page.items) {
      if (known.has(item.id)) this.items[known.get(item.id)] = item;
      if (!this.pageOf.has(item.id)) this.pageOf.set(item.id, number);
    }
    if (number === 0 && this.items.length && fresh.length === page.items.length && page.next_page_token) {
      // More is new than a page holds: what lies between is not known, so begin again.
      this.items = fresh;
      this.tokens = [null, page.next_page_token];
      this.pageOf = new Map(fresh.map((item) => [item.id, 0]));
      this.isEnd = false;
    } else if (number === 0 && this.tokens.length > 1) {
      this.prepend(fresh);
    } else {
      this.items.push(...fresh);
      if (page.next_page_token) this.tokens[number + 1] ??= page.next_page_token;
    }
    if (number === this.tokens.length - 1 && !page.next_page_token) this.isEnd = true;
    this.changed(this);
  }

  /** New items come on top; what somebody reads below stays where it is on the screen. */
  prepend(fresh) {
    if (!fresh.length) return;
    this.items.unshift(...fresh);
    const top = this.node.getBoundingClientRect().top;
    if (top < 0) scrollBy(0, fresh.length * this.rowHeight());
  }

  async more() {
    if (this.loading || this.isEnd) return;
    const number = this.tokens.length - 1;
    this.loading = this.load(this.tokens[number]);
    try {
      const page = await this.loading;
      if (this.signal.aborted) return;
      this.take(number, page);
    } finally {
      this.loading = null;
    }
    this.render();
  }

  rowHeight() {
    return Number.parseFloat(getComputedStyle(this.node).getPropertyValue("--row"));
  }

  /** [first, one after the last] of the rows that exist. */
  span() {
    const height = this.rowHeight();
    const top = this.node.getBoundingClientRect().top;
    const first = Math.floor(-top / height) - AHEAD;
    const last = Math.ceil((innerHeight - top) / height) + AHEAD;
    return [Math.max(0, first), Math.max(0, last)];
  }

  render() {
    const height = this.rowHeight();
    this.node.style.height = `${height * this.items.length}px`;
    const [first, last] = this.span();
    const seen = this.items.slice(first, last);
    const wanted = new Set(seen.map((item) => item.id));
    for (const [id, { node }] of this.rows) {
      if (wanted.has(id) || node.contains(document.activeElement)) continue;
      node.remove();
      this.rows.delete(id);
    }
    let before = null;
    seen.forEach((item, index) => {
      const node = this.rowOf(item);
      node.style.top = `${height * (first + index)}px`;
      node.setAttribute("aria-posinset", String(first + index + 1));
      node.setAttribute("aria-setsize", this.isEnd ? String(this.items.length) : "-1");
      // In the order of reading, without touching those that lie right: moving a focused node would lose the focus.
      if ((before?.nextElementSibling ?? (before ? null : this.node.firstElementChild)) !== node) {
        if (before) before.after(node);
        else this.node.prepend(node);
      }
      before = node;
    });
    if (last + NEAR >= this.items.length) this.more().catch((problem) => this.signal.aborted || this.trouble(problem));
  }

  rowOf(item) {
    const known = this.rows.get(item.id);
    if (known && known.item === item) return known.node;
    const node = known?.node ?? h("li", {});
    if (!known || JSON.stringify(known.item) !== JSON.stringify(item)) {
      const hadFocus = node.contains(document.activeElement);
      node.replaceChildren(this.row(item));
      if (hadFocus) node.querySelector("a")?.focus({ preventScroll: true });
    }
    this.rows.set(item.id, { node, item });
    return node;
  }
}
