/** Which view an address (#/jobs/job_…?state=running) shows. Back and forward work as everywhere, scroll positions included. */

import { fill, h } from "./dom.js";
import { problemBox } from "./parts.js";

const LATE_MS = 200;
const scrolls = new Map();
let current = new AbortController();
let entry = null;

/** {path, query} of the address. */
export function here() {
  const [path, query = ""] = location.hash.slice(1).split("?");
  return { path: path || "/jobs", query: new URLSearchParams(query) };
}

/** Show another address. */
export function navigate(hash) {
  location.hash = hash;
}

/** Keep what the view shows now in the address, without showing it anew: filters, chosen axes. */
export function remember(path, parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  history.replaceState(history.state, "", `#${path}${query.size ? `?${query}` : ""}`);
}

/**
 * `routes`: [pattern, view]. A view is called with {main, params, query, signal, setTitle}, fills `main` and resolves when there is
 * something to see; `signal` aborts when it is left. Its heading is focused, so that whoever does not see the page
 * hears what it is now.
 */
export function start(main, routes) {
  history.scrollRestoration = "manual"; // the browser would restore before there is anything to scroll
  addEventListener("scroll", () => scrolls.set(entry, scrollY), { passive: true });
  addEventListener("hashchange", () => show(main, routes, { moveFocus: true }));
  show(main, routes, { moveFocus: false });
}

async function show(main, routes, { moveFocus }) {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  const { path, query } = here();
  markCurrent(path);
  // An entry of the history that has a name was here before: somebody went back, or forward.
  entry = history.state?.entry ?? crypto.getRandomValues(new Uint32Array(1))[0];
  history.replaceState({ entry }, "");
  const scroll = scrolls.get(entry) ?? 0;
  const setTitle = (title) => { document.title = `${title} · fewbytes`; };
  const [view, params] = found(routes, path);
  main.setAttribute("aria-busy", "true");
  // What was shown before is not what the address says now.
  const before = main.firstElementChild;
  const late = setTimeout(() => {
    if (!signal.aborted && main.firstElementChild === before) fill(main, h("p", { class: "quiet" }, "Loading …"));
  }, LATE_MS);
  try {
    await view({ main, params, query, signal, setTitle });
  } catch (error) {
    if (signal.aborted) return;
    setTitle("Trouble");
    fill(main, h("h1", { tabindex: "-1" }, "This cannot be shown"), problemBox(error));
  } finally {
    clearTimeout(late);
  }
  if (signal.aborted) return;
  main.removeAttribute("aria-busy");
  main.dataset.view = location.hash;
  if (moveFocus) main.querySelector("h1")?.focus({ preventScroll: true });
  scrollTo(0, scroll);
}

function found(routes, path) {
  for (const [pattern, view] of routes) {
    const match = pattern.exec(path);
    if (match) return [view, match.slice(1)];
  }
  return [notFound, []];
}

function notFound({ main, setTitle }) {
  setTitle("Nothing here");
  fill(main, h("h1", { tabindex: "-1" }, "Nothing here"),
    h("p", {}, "There is no such page. ", h("a", { href: "#/jobs" }, "All jobs")));
}

function markCurrent(path) {
  for (const link of document.querySelectorAll("nav a")) {
    const target = link.getAttribute("href").slice(1);
    if (path === target || path.startsWith(`${target}/`)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}
