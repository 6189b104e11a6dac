/** One sweep: how far it is, what it says, its plot and its table; everything grows while its jobs run. */

import { getIfThere, post, remove, request } from "../api.js";
import { column } from "../columns.js";
import { curlOf } from "../curl.js";
import { fill, h, update } from "../dom.js";
import { count, duration, percent, plural } from "../format.js";
import { repeat, throttled } from "../live.js";
import { action, announce, badge, confirmed, copyButton, documentLink, facts, fileLink, folded, lineNotice, progressBar, verb, when } from "../parts.js";
import { navigate, remember } from "../router.js";
import { SizePlot } from "../size_plot.js";
import { SortableTable } from "../sortable.js";
import { SummarySection } from "../summary.js";
import { ENDED } from "./jobs.js";

const WAIT_SECONDS = 20;
const TABLE_SECONDS = 3;
const USUAL = ["test_accuracy", "val_accuracy", "size_bytes", "parameters", "macs", "latency_ms", "seconds"];
const KINDS = { answers: "the answer of each job", stages: "every stage", iterations: "iterations of prune steps" };

export async function sweepView({ main, params: [id], query, signal, setTitle }) {
  await new SweepPage(id, query, signal, setTitle).open(main);
}

class SweepPage {
  constructor(id, query, signal, setTitle) {
    Object.assign(this, { id, signal, setTitle });
    this.path = `/v1/sweeps/${id}`;
    this.kind = query.get("rows") ?? "answers";
    this.isWhole = false;
    for (const name of ["head", "now", "spec"]) this[name] = h("div");
    this.spoken = h("p", { class: "sr-only", role: "status" });
    this.says = new SummarySection();
    this.plot = new SizePlot(id, Object.fromEntries(query), signal, (chosen) => this.keep(chosen));
    this.rows = new SortableTable("The jobs of the sweep");
    this.tableSection = h("section", {}, h("h2", {}, "Table"), this.tableControls(), this.rows.node);
    this.numbersSoon = throttled(() => this.readNumbers(), TABLE_SECONDS, signal, lineNotice);
  }

  keep(chosen) {
    this.chosen = chosen ?? this.chosen ?? {};
    remember(`/sweeps/${this.id}`, { ...this.chosen, rows: this.kind === "answers" ? "" : this.kind });
  }

  async open(main) {
    await this.read();
    this.setTitle(this.sweep.name ?? this.sweep.preset ?? this.id);
    fill(main, this.head, this.spoken, this.now, this.says.node, this.plot.node, this.tableSection, this.spec);
    this.numbersSoon();
    this.attend();
  }

  attend() {
    if (this.isAttending || ENDED.has(this.sweep.state)) return;
    this.isAttending = true;
    repeat(async () => {
      await this.read(WAIT_SECONDS);
      return ENDED.has(this.sweep.state) ? "ended" : "goes on";
    }, 0.5, this.signal, lineNotice).finally(() => { this.isAttending = false; });
  }

  /** The sweep; with `wait` the answer comes when it has changed. */
  async read(wait) {
    const answer = await request("GET", wait ? `${this.path}?wait=${wait}` : this.path, {
      headers: wait && this.etag ? { "If-None-Match": this.etag } : {}, signal: this.signal,
    });
    if (answer.status === 304) return;
    this.etag = answer.headers.get("ETag");
    const before = this.sweep?.state;
    this.sweep = await answer.json();
    this.show();
    if (before) this.numbersSoon();
    if (before && before !== this.sweep.state && ENDED.has(this.sweep.state)) announce(`The sweep has ended: ${this.sweep.state}.`);
  }

  async readNumbers() {
    const [table, summary] = await Promise.all([
      getIfThere(`${this.path}/table?rows=answers`, { signal: this.signal }), getIfThere(`${this.path}/summary`, { signal: this.signal }),
    ]);
    const shown = this.kind === "answers" ? table : await getIfThere(`${this.path}/table?rows=${this.kind}`, { signal: this.signal });
    if (this.signal.aborted) return;
    if (table === null || summary === null) {
      fill(this.rows.node, h("p", {}, "This service does not compare jobs. ", h("a", { href: `#/jobs?sweep=${this.id}` }, "The jobs"), " have their numbers."));
      return;
    }
    this.says.update(summary);
    this.table = shown;
    this.showTable();
    await this.plot.update(table, summary);
  }

  // ---- what is seen

  show() {
    const { sweep } = this;
    update(this.head, [sweep.state, sweep.name, sweep.counts, sweep.labels, sweep.finished_at], () => this.heading());
    update(this.now, [sweep.state, sweep.counts, sweep.progress, sweep.shared], () => progressOf(sweep));
    update(this.spec, sweep.spec, () => specOf(sweep));
    const sentence = `${sweep.state}, ${countsWords(sweep.counts)}`;
    if (this.spoken.textContent !== sentence) this.spoken.textContent = sentence;
  }

  heading() {
    const { sweep, id } = this;
    return [
      h("p", { class: "trail" }, h("a", { href: "#/sweeps" }, "Sweeps")),
      h("h1", { tabindex: "-1" }, sweep.name ?? sweep.preset ?? id),
      h("p", { class: "row" }, badge(sweep.state), sweep.preset && h("span", { class: "label" }, `preset ${sweep.preset}`), Object.entries(sweep.labels ?? {}).map(([name, value]) => h("span", { class: "label" }, `${name}=${value}`))),
      h("div", { class: "row actions" }, this.actions()),
      facts([["Id", h("code", {}, id)], ["Submitted", when(sweep.created_at)], ["Ended", sweep.finished_at && when(sweep.finished_at)],
        ["Jobs", h("a", { href: `#/jobs?sweep=${id}` }, countsWords(sweep.counts) || "all")]]),
    ];
  }

  actions() {
    const { sweep, path, id } = this;
    const goesOn = !ENDED.has(sweep.state);
    const then = (changed) => { this.sweep = changed; this.show(); this.attendAgain(); };
    const lost = (sweep.counts?.failed ?? 0) + (sweep.counts?.cancelled ?? 0);
    const seeds = h("input", { type: "number", name: "seeds", min: "1", max: "100", value: String((sweep.spec?.seeds ?? 1) + 1), "aria-label": "Seeds of each point afterwards" });
    return [
      goesOn && sweep.state !== "cancelling" && verb("Cancel", `${path}/cancel`, then),
      goesOn && sweep.state !== "cancelling" && sweep.state !== "paused" && verb("Pause", `${path}/pause`, then),
      sweep.state === "paused" && verb("Resume", `${path}/resume`, then, { class: "primary" }),
      lost > 0 && sweep.state !== "cancelling" && verb(`Try ${plural(lost, "job")} again`, `${path}/retry`, then),
      sweep.state !== "cancelling" && h("span", { class: "row" }, seeds, action("Extend to so many seeds", async () => then(await post(`${path}/extend`, { seeds: Number(seeds.value) })))),
      documentLink(`${path}/report`, `${id}-report.html`, "Report"),
      h("a", { href: `#/new-sweep?from=${id}` }, "New sweep like this"),
      !goesOn && confirmed("Delete", "Delete it and its jobs for good?", async () => { await remove(path); navigate("#/sweeps"); }, { class: "quiet" }),
    ];
  }

  /** After a verb it may run again. */
  attendAgain() {
    this.etag = null;
    this.attend();
    this.numbersSoon();
  }

  tableControls() {
    const kinds = h("select", { name: "rows", onchange: (event) => { this.kind = event.target.value; this.keep(); this.readNumbers().catch(lineNotice); } },
      Object.entries(KINDS).map(([kind, says]) => h("option", { value: kind, selected: kind === this.kind }, says)));
    const whole = h("input", { type: "checkbox", name: "all columns", onchange: (event) => { this.isWhole = event.target.checked; this.showTable(); } });
    return h("div", { class: "filters" }, h("label", {}, "Rows ", kinds), h("label", {}, whole, " all columns"),
      ...["csv", "parquet"].map((format) => fileLink(`${this.path}/table?format=${format}`, `${this.id}.${format}`, format.toUpperCase())));
  }

  showTable() {
    const { table } = this;
    if (!table) return;
    const axes = table.axes.map((axis) => axis.column);
    const usual = [...axes, "seed", "state", ...(this.kind === "answers" ? [] : ["step", "method"]), ...(this.kind === "iterations" ? ["iteration", "accuracy_before", "accuracy_after"] : []), ...USUAL];
    const names = this.isWhole ? table.columns.map(({ name }) => name).filter((name) => name !== "job_id") : usual.filter((name) => table.columns.some((one) => one.name === name));
    const types = Object.fromEntries(table.columns.map(({ name, type }) => [name, type]));
    const isNumber = (name) => types[name] === "number" || types[name] === "integer" || (types[name] === "any" && table.rows.every((row) => typeof row[name] === "number"));
    const columns = names.map((name) => ({ name, label: column(name).label, number: isNumber(name), value: (row) => row[name], cell: (row) => (name === "state" ? badge(row.state) : axes.includes(name) ? axisValue(row[name]) : column(name).show(row[name])) }));
    const first = { name: "job_id", label: "Job", number: false, value: (row) => row.point * 1000 + row.seed, cell: (row) => h("a", { href: `#/jobs/${row.job_id}` }, `Point ${row.point}, seed ${row.seed}`) };
    this.rows.update([first, ...columns], table.rows);
  }
}

function axisValue(value) {
  if (value === null || value === undefined) return "–";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

const countsWords = (counts) => Object.entries(counts ?? {}).filter(([, number]) => number > 0).map(([name, number]) => `${count(number)} ${name}`).join(", ");

function progressOf({ state, counts, progress, shared }) {
  const whole = Object.values(counts ?? {}).reduce((sum, number) => sum + number, 0);
  const words = [`${countsWords(counts)} of ${plural(whole, "job")}`, progress?.fraction > 0 && percent(progress.fraction), progress?.eta_seconds > 0 && `${duration(progress.eta_seconds)} left`];
  return [
    !ENDED.has(state) && progressBar("How far the sweep is", progress?.fraction, words.filter(Boolean).join(" · ")),
    shared?.stage_jobs > 0 && h("p", { class: "quiet" }, `${plural(shared.stage_jobs, "stage")} that jobs have in common ${shared.stage_jobs === 1 ? "is" : "are"} trained once, for ${plural(shared.children_served, "job")}: ${plural(shared.steps_saved, "step")} saved.`),
  ];
}

function specOf(sweep) {
  const text = JSON.stringify(sweep.spec, null, 2);
  return h("section", {}, h("h2", {}, "Spec"), folded("As it was asked for", false,
    h("div", { class: "row" }, copyButton(() => curlOf("/v1/sweeps", sweep.spec), "Copy the curl that repeats it"), copyButton(() => text, "Copy the spec")),
    h("pre", { tabindex: "0", "aria-label": "Spec" }, text)));
}
