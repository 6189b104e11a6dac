/** One job: what it does now, what it measured, what it left; followed by its events while it runs. */

import { authorization, get, getIfThere, remove, request } from "../api.js";
import { Curves } from "../curves.js";
import { fill, h, update } from "../dom.js";
import { count, decimal, duration, percent, plural, seconds, shortDigest, words } from "../format.js";
import { follow, repeat, throttled } from "../live.js";
import {
  announce, badge, confirmed, copyButton, documentLink, facts, fileLink, folded, lineNotice, problemBox, progressBar, section,
  stateOf, table, verb, when,
} from "../parts.js";
import { navigate } from "../router.js";
import { curlOf } from "../curl.js";
import { layerTable, seedTable, stageTable } from "../stages.js";
import { ENDED } from "./jobs.js";

const MOST_LOG_LINES = 500;
const QUEUE_SECONDS = 3;
const METRICS_SECONDS = 2;

export async function jobView({ main, params: [id], signal, setTitle }) {
  const page = new JobPage(id, signal, setTitle);
  await page.open(main);
}

class JobPage {
  constructor(id, signal, setTitle) {
    Object.assign(this, { id, signal, setTitle });
    this.logs = [];
    this.stages = new Map();
    this.metricsSoon = throttled(() => this.readMetrics(), METRICS_SECONDS, signal, lineNotice);
    this.jobSoon = throttled(() => this.readJob(), 0.3, signal, lineNotice);
    this.logSoon = throttled(() => this.showLogs(), 0.5, signal, lineNotice);
    for (const name of ["head", "now", "result", "layers", "files", "attempts", "spec"]) this[name] = h("div");
    this.spoken = h("p", { class: "sr-only", role: "status" });
    this.progress = h("div");
    this.logPlace = h("pre", { class: "log", tabindex: "0", "aria-label": "Log lines" });
    this.logBox = h("section", { hidden: true }, h("h2", {}, "Log"), this.logPlace,
      h("p", {}, fileLink(`/v1/jobs/${id}/logs`, `${id}.log`, "All log lines")));
  }

  async open(main) {
    this.job = await get(`/v1/jobs/${this.id}`, { signal: this.signal });
    this.setTitle(this.job.name ?? this.id);
    this.curves = new Curves((this.job.spec.steps ?? []).map((step) => step.method));
    fill(main, this.head, this.spoken, this.now, this.progress, this.result, this.curves.node, this.layers, this.files, this.attempts, this.logBox, this.spec);
    this.show();
    this.readMetrics();
    this.readFiles();
    this.readLayers();
    this.attend();
  }

  /** Follow what goes on; of a job that has ended only the log is left to read. */
  attend() {
    if (ENDED.has(this.job.state)) {
      this.readLogs();
      return;
    }
    this.logs = [];
    follow(this.id, 0, this.signal, {
      take: (event) => this.take(event),
      isOver: async () => { await this.readJob(); return ENDED.has(this.job.state); },
      notice: lineNotice,
    });
    // Its place in the line changes without an event of its own.
    repeat(async () => {
      if (this.job.state === "queued") await this.readJob();
      return ENDED.has(this.job.state) ? "ended" : "goes on";
    }, QUEUE_SECONDS, this.signal);
  }

  take({ type, data, seq }) {
    if (type === "progress") {
      this.job.progress = data;
      this.showProgress();
      this.metricsSoon();
    } else if (type === "log") {
      this.logs.push(`${data.at} ${data.level ?? "info"}  ${data.message ?? ""}`);
      this.logSoon();
    } else if (type === "stage") {
      this.stages.set(`${data.seed ?? ""} ${data.step}`, data);
      this.showResult();
      this.metricsSoon();
    } else {
      this.jobSoon();
      if (type === "artifact") this.readFiles();
    }
    this.seen = seq;
  }

  async readJob() {
    const before = this.job.state;
    this.job = await get(`/v1/jobs/${this.id}`, { signal: this.signal });
    this.show();
    if (before !== this.job.state && ENDED.has(this.job.state)) {
      this.readMetrics();
      this.readFiles();
      this.readLayers();
      announce(`The job has ${this.job.state === "succeeded" ? "succeeded" : this.job.state}.`);
    }
  }

  async readMetrics() {
    const { items } = await get(`/v1/jobs/${this.id}/metrics`, { signal: this.signal }).catch(quietly(this.signal, { items: [] }));
    if (!this.signal.aborted) this.curves.update(items);
  }

  async readFiles() {
    const { items } = await get(`/v1/jobs/${this.id}/artifacts`, { signal: this.signal }).catch(quietly(this.signal, { items: [] }));
    if (!this.signal.aborted) update(this.files, [items, Boolean(authorization().Authorization)], () => filesOf(items));
  }

  async readLogs() {
    const asked = request("GET", `/v1/jobs/${this.id}/logs`, { headers: { Accept: "text/plain" }, signal: this.signal });
    const lines = await asked.then((answer) => answer.text()).catch(quietly(this.signal, ""));
    this.logs = lines.split("\n").filter(Boolean);
    this.showLogs();
  }

  async readLayers() {
    const known = (this.job.result?.stages ?? []).filter((stage) => stage.step && stage.layers).map((stage) => [`step ${stage.step}: ${stage.method}`, stage.layers]);
    for (const teacherId of this.job.spec.teachers ?? []) {
      const teacher = await getIfThere(`/v1/teachers/${teacherId}`, { signal: this.signal }).catch(quietly(this.signal, null));
      if (teacher?.report?.layers?.length) known.push([`teacher ${teacher.name ?? teacherId}`, teacher.report.layers]);
    }
    if (!this.signal.aborted && known.length) update(this.layers, known, () => layersOf(known));
  }

  // ---- what is seen

  show() {
    const { job } = this;
    update(this.head, [job.state, job.paused, job.name, job.passed, job.error, job.labels, job.finished_at, job.started_at], () => this.heading());
    update(this.now, [job.queue, job.error, job.result?.warnings, job.result?.gates, job.result?.reused_from], () => situation(job));
    update(this.attempts, job.attempts, () => attemptsOf(job.attempts));
    update(this.spec, job.spec, () => specOf(job));
    this.showProgress();
    this.showResult();
    const sentence = [stateOf(job), job.phase].filter(Boolean).join(": ");
    if (this.spoken.textContent !== sentence) this.spoken.textContent = sentence;
  }

  heading() {
    const { job } = this;
    const took = job.started_at && job.finished_at ? duration(seconds(job.started_at, job.finished_at)) : null;
    return [
      h("p", { class: "trail" }, h("a", { href: "#/jobs" }, "Jobs"), job.sweep_id && [" / ", h("a", { href: `#/sweeps/${job.sweep_id}` }, job.sweep_id)]),
      h("h1", { tabindex: "-1" }, job.name ?? job.id),
      h("p", { class: "row" }, badge(stateOf(job)), job.passed !== null && badge(job.passed ? "passed" : "missed"),
        Object.entries(job.labels).map(([name, value]) => h("a", { class: "label", href: `#/jobs?${new URLSearchParams({ label: `${name}=${value}` })}` }, `${name}=${value}`))),
      h("div", { class: "row actions" }, this.actions()),
      facts([["Id", h("code", {}, job.id)], ["Submitted", when(job.created_at)], ["Started", job.started_at && when(job.started_at)],
        ["Ended", job.finished_at && when(job.finished_at)], ["Took", took],
        ["Begins with", job.after_job_id && [plural(job.begun_steps, "step"), " of ", h("a", { href: `#/jobs/${job.after_job_id}` }, "a job that several share")]]]),
    ];
  }

  actions() {
    const { job, id } = this;
    const path = `/v1/jobs/${id}`;
    const then = (changed) => { this.job = { ...this.job, ...changed }; this.show(); };
    const goesOn = !ENDED.has(job.state);
    return [
      goesOn && job.state !== "cancelling" && verb("Cancel", `${path}/cancel`, then),
      goesOn && job.state !== "cancelling" && !job.paused && verb("Pause", `${path}/pause`, then),
      goesOn && job.paused && verb("Resume", `${path}/resume`, then, { class: "primary" }),
      (job.state === "failed" || job.state === "cancelled") && verb("Try again", `${path}/retry`, (changed) => { then(changed); this.attend(); }, { class: "primary" }),
      job.state === "succeeded" && fileLink(`${path}/download`, `${id}.pt`, "Download the answer", { class: "button primary" }),
      job.kind === "compress" && documentLink(`${path}/report`, `${id}-report.html`, "Report"),
      job.kind === "compress" && h("a", { href: `#/new?from=${id}` }, "New job like this"),
      !goesOn && confirmed("Delete", "Delete for good?", async () => { await remove(path); navigate("#/jobs"); }, { class: "quiet" }),
    ];
  }

  showProgress() {
    const { job } = this;
    update(this.progress, [job.state, job.phase, job.progress], () => (ENDED.has(job.state) || job.state === "queued" ? [] : progressOf(job)));
  }

  showResult() {
    const { job } = this;
    const first = job.spec.seed ?? 0;
    const running = [...this.stages.values()].filter((stage) => (stage.seed ?? first) === first || !stage.step).sort((a, b) => a.step - b.step);
    const stages = job.result?.stages?.length ? job.result.stages : running;
    update(this.result, [stages, job.result?.summary], () => [
      stages.length > 0 && stageTable(stages),
      job.result?.summary?.length > 0 && seedTable(job.result.summary, job.result.seeds.length),
    ]);
  }

  showLogs() {
    this.logBox.hidden = !this.logs.length;
    const isAtEnd = this.logPlace.scrollHeight - this.logPlace.scrollTop - this.logPlace.clientHeight < 20;
    this.logPlace.textContent = this.logs.slice(-MOST_LOG_LINES).join("\n");
    if (isAtEnd) this.logPlace.scrollTop = this.logPlace.scrollHeight;
  }
}

/** What went wrong while the page is left, or in a part that can do without: said on the line, and another value taken. */
function quietly(signal, instead) {
  return (problem) => {
    if (!signal.aborted) lineNotice(problem);
    return instead;
  };
}

function progressOf({ progress, phase, state }) {
  const fraction = progress?.fraction;
  const parts = [phase];
  if (progress?.num_seeds) parts.push(`seed ${progress.seed} of ${progress.num_seeds}`);
  if (progress?.unit) parts.push(`${progress.unit} ${decimal(progress.done)} of ${decimal(progress.total)}`);
  if (fraction !== undefined && fraction !== null) parts.push(`${percent(fraction)} of all`);
  if (progress?.eta_seconds > 0) parts.push(`${duration(progress.eta_seconds)} left in this step`);
  if (state === "cancelling") parts.push("it keeps the best network so far");
  return progressBar("How far the job is", fraction, parts.filter(Boolean).join(" · "));
}

function situation({ queue, error, result, id }) {
  const parts = [];
  if (queue) {
    const place = queue.position ? `Place ${count(queue.position)} in the line.` : "";
    const start = queue.eta_seconds > 0 ? ` It starts in about ${duration(queue.eta_seconds)}.` : "";
    parts.push(h("p", { class: "callout" }, `${place} ${queue.detail}${start}`));
  }
  if (error) parts.push(problemBox(error));
  if (result?.reused_from) parts.push(h("p", { class: "callout" }, "The result of ", h("a", { href: `#/jobs/${result.reused_from}` }, "an earlier job"), ": nothing ran."));
  if (result?.gates?.length) parts.push(gatesOf(result.gates));
  if (result?.warnings?.length) {
    parts.push(h("div", { class: "callout warn" }, h("h2", {}, "Warnings"), h("ul", {}, result.warnings.map((warning) => h("li", {}, warning)))));
  }
  return parts;
}

function gatesOf(gates) {
  const rows = Array.isArray(gates) ? gates : Object.entries(gates).map(([gate, verdict]) => ({ gate, ...verdict }));
  const skipped = new Set(["gate", "name", "passed"]);
  return section("Limits", table("What was asked of the answer", [
    { label: "Limit", cell: (row) => words(row.gate ?? row.name) },
    { label: "Met", cell: (row) => badge(row.passed ? "passed" : "missed") },
    { label: "Numbers", cell: (row) => Object.entries(row).filter(([name, value]) => !skipped.has(name) && value !== null).map(([name, value]) => `${words(name).toLowerCase()} ${numberText(value)}`).join(", ") },
  ], rows));
}

function numberText(value) {
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value) ? count(value) : decimal(value);
}

function attemptsOf(attempts) {
  if (!attempts.length) return [];
  return folded(`Attempts (${attempts.length})`, attempts.length > 1, table("Attempts", [
    { label: "No.", cell: (attempt) => attempt.n },
    { label: "Outcome", cell: (attempt) => attempt.outcome ?? "runs" },
    { label: "How it ended", cell: (attempt) => attempt.detail ?? "" },
    { label: "Worker", cell: (attempt) => `${attempt.worker} (${attempt.device ?? "?"})` },
    { label: "Began", cell: (attempt) => when(attempt.started_at) },
    { label: "Took", number: true, cell: (attempt) => (attempt.ended_at ? duration(seconds(attempt.started_at, attempt.ended_at)) : "") },
  ], attempts));
}

function filesOf(artifacts) {
  if (!artifacts.length) return [];
  return section("Files", table("Files that the job left", [
    { label: "File", cell: (file) => [fileLink(file.links.content, `${file.job_id}-${file.name}`, file.name)] },
    { label: "Kind", cell: (file) => words(file.kind) },
    { label: "Step", number: true, cell: (file) => file.step },
    { label: "Bytes", number: true, cell: (file) => count(file.size_bytes) },
    { label: "sha256", cell: (file) => h("code", { title: file.sha256 }, shortDigest(file.sha256)) },
    { label: "Receipt", cell: (file) => [fileLink(file.links.receipt, `${file.job_id}-${file.name}.receipt.json`, "receipt"), " ", verifyButton(file)] },
  ], artifacts));
}

function verifyButton(file) {
  const verdict = h("span", { role: "status" });
  const check = verb("Verify", `${file.links.self}/verify`, ({ ok, checks }) => {
    fill(verdict, " ", badge(ok ? "passed" : "missed"), ` ${checks.filter((one) => one.ok).length} of ${checks.length} checks`);
  }, { class: "small", "aria-label": `Verify ${file.name} against its receipt` });
  return h("span", { class: "row" }, check, verdict);
}

function layersOf(known) {
  const place = h("div");
  const select = h("select", { name: "layers", onchange: () => show() }, known.map(([name], index) => h("option", { value: index }, name)));
  const show = () => {
    const [, layers] = known[Number(select.value)];
    const whole = layers.reduce((sum, layer) => sum + layer.parameters, 0);
    const largest = layers.reduce((a, b) => (b.parameters > a.parameters ? b : a));
    fill(place, h("p", { class: "words" }, `${plural(layers.length, "layer")}, ${count(whole)} parameters; the largest is ${largest.name} with ${percent(largest.parameters / whole)}.`), layerTable(layers));
  };
  show();
  return h("section", {}, h("h2", {}, "Layers"), folded("Layer table", known.length === 1 && known[0][1].length < 30, h("label", {}, "Of ", select), place));
}

function specOf(job) {
  const text = JSON.stringify(job.spec, null, 2);
  const buttons = job.kind === "compress" && h("div", { class: "row" }, copyButton(() => curlOf("/v1/jobs", job.spec), "Copy the curl that repeats it"), copyButton(() => text, "Copy the spec"));
  return h("section", {}, h("h2", {}, "Spec"), folded("As it ran", false, buttons, h("pre", { tabindex: "0", "aria-label": "Spec" }, text)));
}
