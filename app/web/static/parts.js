/** Small pieces that several views show: states, problems, actions, downloads, tables of facts. */

import { download, key, post } from "./api.js";
import { fill, h, scrolling } from "./dom.js";
import { NONE, time, words } from "./format.js";

const GLYPHS = {
  queued: "○", running: "◐", cancelling: "◌", succeeded: "✓", failed: "✕", cancelled: "⊘", paused: "‖",
  infeasible: "△", ready: "✓", rejected: "✕", inspecting: "◐", passed: "✓", missed: "✕",
};

/** A state as a word with a sign: colour alone tells nobody anything. */
export function badge(state) {
  return h("span", { class: `badge ${state}` }, h("span", { "aria-hidden": "true" }, GLYPHS[state] ?? "·"), ` ${state}`);
}

/** The state of a job, or of a sweep: one that is held says so. */
export const stateOf = (item) => (item.paused && item.state === "queued" ? "paused" : item.state);

/** What went wrong, with everything that the service said of it. */
export function problemBox(problem) {
  const code = problem.code ?? "UNEXPECTED";
  const errors = (problem.errors ?? []).filter((error) => error.detail && !(problem.message ?? problem.detail ?? "").includes(error.detail));
  return h("div", { class: "problem", role: "alert" },
    h("p", {}, h("strong", {}, words(code.toLowerCase())), " ", h("code", {}, code)),
    h("p", {}, problem.message ?? problem.detail ?? String(problem)),
    errors.length > 0 && h("ul", {}, errors.map((error) => h("li", {},
      h("code", {}, error.pointer ?? error.parameter ?? ""), ` ${error.detail} ${error.hint ?? ""}`))),
    problem.requestId && h("p", { class: "quiet" }, "Request ", h("code", {}, problem.requestId)));
}

/** A link to bytes of the service: an ordinary one, or with a key a button that fetches them with it. */
export function fileLink(path, name, label, properties = {}) {
  if (!key.get()) return h("a", { href: path, download: name, ...properties }, label);
  return h("button", { type: "button", class: "link", ...properties, onclick: (event) => working(event.currentTarget, () => download(path, name)) }, label);
}

/** A link to a document of the service (a report): with a key it comes as a file. */
export function documentLink(path, name, label) {
  return key.get() ? fileLink(path, name, label) : h("a", { href: path }, label);
}

/** Run something for a button, which waits meanwhile; a problem appears behind it. */
export async function working(button, work) {
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  button.parentElement?.querySelector(":scope > .problem")?.remove();
  try {
    return await work();
  } catch (problem) {
    button.after(problemBox(problem));
    return null;
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

/** A button that does something at once. */
export function action(label, work, properties = {}) {
  return h("button", { type: "button", ...properties, onclick: (event) => working(event.currentTarget, work) }, label);
}

/** A button that posts to a path and hands on what came back. */
export function verb(label, path, then, properties = {}) {
  return action(label, async () => then(await post(path)), properties);
}

/** A button whose work cannot be taken back: its second press, within some seconds, does it. */
export function confirmed(label, sure, work, properties = {}) {
  let timer = null;
  const calm = () => { clearTimeout(timer); timer = null; button.textContent = label; };
  const button = h("button", {
    type: "button", ...properties,
    onblur: () => timer && calm(),
    onclick: () => {
      if (timer === null) {
        button.textContent = sure;
        timer = setTimeout(calm, 6000);
        return;
      }
      calm();
      working(button, work);
    },
  }, label);
  return button;
}

/** A button that copies a text, and says that it did. */
export function copyButton(textOf, label = "Copy") {
  return action(label, async () => {
    if (!navigator.clipboard) throw new Error("A browser copies for pages over https or of this machine alone: select the text and copy it.");
    await navigator.clipboard.writeText(textOf());
    announce("Copied.");
  }, { class: "small" });
}

/** Say something politely: read out when there is time, and shown. */
export function announce(sentence) {
  const notice = document.getElementById("notice");
  fill(notice, sentence);
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => notice.textContent === sentence && fill(notice), 5000);
}

/** Trouble with the line, as long as it lasts. */
export function lineNotice(problem) {
  const notice = document.getElementById("notice");
  if (problem) fill(notice, problem.message);
  else if (lineNotice.shown) fill(notice);
  lineNotice.shown = Boolean(problem);
}

/** Names and values; those without a value are left out. */
export function facts(pairs) {
  const given = pairs.filter(([, value]) => value !== null && value !== undefined && value !== false && value !== NONE);
  return h("dl", { class: "facts" }, given.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

export function when(rfc3339) {
  return rfc3339 ? h("time", { datetime: rfc3339, title: rfc3339 }, time(rfc3339)) : NONE;
}

/** A table: columns are {label, number?, cell(row), header?}. The first column names its row. */
export function table(caption, columns, rows, { label = caption } = {}) {
  return scrolling(label, h("table", {},
    h("caption", { class: "sr-only" }, caption),
    h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col", class: column.number && "number" }, column.label)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, columns.map((column, index) =>
      h(index === 0 ? "th" : "td", { scope: index === 0 && "row", class: column.number && "number" }, column.cell(row))))))));
}

/** A part of a page that can be folded. */
export function folded(title, open, ...children) {
  return h("details", { open }, h("summary", {}, h("h3", {}, title)), ...children);
}

export function section(title, ...children) {
  return h("section", {}, h("h2", {}, title), ...children);
}

/** A progress bar with its words: how far, and how long it still takes. */
export function progressBar(label, fraction, words_) {
  return h("div", { class: "progress" },
    h("progress", { max: "1", value: fraction ?? null, "aria-label": label }), h("span", {}, words_));
}
