/** All jobs, the newest first, as they go on. */

import { get, withQuery } from "../api.js";
import { fill, h } from "../dom.js";
import { duration, percent, plural, time } from "../format.js";
import { repeat } from "../live.js";
import { LongList } from "../long_list.js";
import { badge, lineNotice, problemBox, stateOf } from "../parts.js";
import { remember } from "../router.js";

export const ENDED = new Set(["succeeded", "failed", "cancelled"]);
const STATES = ["queued", "running", "cancelling", "succeeded", "failed", "cancelled"];
const PAGE_SIZE = 200;
const REFRESH_SECONDS = 2;

// The list as it was left, by its filters: who comes back finds the same place.
const left = new Map();

export async function jobsView({ main, query, signal, setTitle }) {
  setTitle("Jobs");
  const filters = { state: query.get("state") ?? "", label: query.get("label") ?? "", sweep: query.get("sweep") ?? "" };
  const place = h("div");
  const status = h("p", { class: "quiet", role: "status" });
  let inner = new AbortController();
  signal.addEventListener("abort", () => inner.abort());

  const showList = () => {
    inner.abort();
    inner = new AbortController();
    remember("/jobs", filters);
    const started = listOf(filters, place, status, inner.signal);
    started.catch((problem) => inner.signal.aborted || fill(place, problemBox(problem)));
    return started;
  };
  fill(main, h("h1", { tabindex: "-1" }, "Jobs"), filterForm(filters, showList), status, place);
  await showList();
}

function filterForm(filters, apply) {
  const change = (event) => {
    filters[event.target.name] = event.target.value.trim();
    apply().catch(() => {}); // it is shown in place of the list
  };
  const options = ["", ...STATES].map((state) => h("option", { value: state, selected: state === filters.state }, state || "any state"));
  return h("form", { class: "filters", "aria-label": "Which jobs", onsubmit: (event) => event.preventDefault(), onchange: change },
    h("label", {}, "State ", h("select", { name: "state" }, options)),
    h("label", {}, "Label ", h("input", { name: "label", value: filters.label, placeholder: "team=vision", spellcheck: "false" })),
    h("label", {}, "Sweep ", h("input", { name: "sweep", value: filters.sweep, placeholder: "swp_…", spellcheck: "false" })));
}

/** The query of the API for what stands in the filters. */
export function parameters({ state, label, sweep }) {
  const [name, ...value] = label.split("=");
  return { state, sweep, ...(name && value.length ? { [`label.${name}`]: value.join("=") } : {}) };
}

async function listOf(filters, place, status, signal) {
  const name = JSON.stringify(filters);
  const list = new LongList({
    label: "Jobs",
    load: (token) => get(withQuery("/v1/jobs", { ...parameters(filters), page_size: PAGE_SIZE, page_token: token }), { signal }),
    row: jobRow,
    isFinished: (job) => ENDED.has(job.state),
    changed: (changed) => { status.textContent = statusLine(changed); },
    kept: left.get(name),
    trouble: lineNotice,
  });
  signal.addEventListener("abort", () => left.set(name, list.kept));
  fill(place, list.node);
  list.signal = signal;
  if (list.items.length) list.changed(list); // before the place is found again: a line that comes later would move it
  else await list.more();
  if (!list.items.length) fill(place, nothingYet(filters));
  list.start(signal);
  const refresh = async () => {
    await list.refresh();
    if (list.items.length && !list.node.isConnected) {
      fill(place, list.node);
      list.render();
    }
  };
  repeat(refresh, REFRESH_SECONDS, signal, lineNotice);
}

function statusLine({ items, isEnd }) {
  return isEnd ? plural(items.length, "job") : `${plural(items.length, "job")} so far; more as you scroll`;
}

function nothingYet({ state, label, sweep }) {
  if (state || label || sweep) return h("p", {}, "No job fits.");
  return h("div", { class: "empty" },
    h("p", {}, "There are no jobs yet."),
    h("p", {}, h("a", { href: "#/models" }, "Upload a model and photos"), ", then ", h("a", { href: "#/new" }, "make a job"), "."));
}

function jobRow(job) {
  return h("a", { href: `#/jobs/${job.id}`, class: "job-row" },
    badge(stateOf(job)),
    h("span", { class: "name" }, job.name ?? job.id),
    h("span", { class: "doing" }, doing(job)),
    h("span", { class: "when" }, time(job.created_at)));
}

/** In a few words what a job does, or how it ended. */
export function doing(job) {
  if (job.state === "failed") return job.error?.code ?? "";
  if (job.passed !== null && job.passed !== undefined) return job.passed ? "met its limits" : "missed a limit";
  if (ENDED.has(job.state)) return "";
  const fraction = job.progress?.fraction;
  const left_ = job.progress?.eta_seconds;
  return [job.phase, fraction > 0 && percent(fraction), left_ > 0 && `${duration(left_)} left in this step`].filter(Boolean).join(" · ");
}
