/** What a sweep says: the verdict, each point's mean with its interval, the difference to the baseline, and who gave no answer. */

import { rowChart } from "./charts.js";
import { column } from "./columns.js";
import { h } from "./dom.js";
import { decimal } from "./format.js";
import { badge, section, table } from "./parts.js";

const ENDED_WITHOUT = new Set(["failed", "infeasible", "cancelled"]);

/** "+1.2 points": differences of shares are points, others are as their numbers. */
function difference(name, value) {
  if (value === null || value === undefined) return "–";
  const sign = value > 0 ? "+" : "";
  return /accuracy|agreement/.test(name) ? `${sign}${(100 * value).toFixed(1)} points` : `${sign}${decimal(value)}`;
}

/** The mean of a metric at a point, with its interval where several seeds give one. */
export function meanWords(spread, metric) {
  const { show } = column(metric);
  if (!spread) return "–";
  const interval = spread.low === null || spread.low === undefined ? "" : ` (${show(spread.low)} to ${show(spread.high)})`;
  return `${show(spread.mean)}${interval}`;
}

export class SummarySection {
  constructor() {
    this.chart = null;
    this.place = h("div");
    this.node = h("section", { hidden: true }, h("h2", {}, "What it says"), this.place);
  }

  update(summary) {
    const { metric, points } = summary;
    const { label, show } = column(metric);
    if (this.metric !== metric) {
      this.metric = metric;
      this.chart = rowChart({ title: `${label}: mean over the seeds, with 95 % interval`, x: { label, show } });
    }
    const measured = points.filter((point) => point.metrics[metric]);
    this.node.hidden = false;
    this.chart.update(measured.map((point) => ({ name: point.name, value: point.metrics[metric].mean, low: point.metrics[metric].low, high: point.metrics[metric].high,
      words: `${point.name}: ${meanWords(point.metrics[metric], metric)}` })));
    const key = JSON.stringify(summary);
    if (key === this.shown) return;
    this.shown = key;
    this.place.replaceChildren(
      h("p", { class: "verdict" }, summary.verdict),
      ...(measured.length ? [this.chart.node, pointsTable(summary, measured)] : []),
      ...trendsOf(summary), ...apartOf(summary), ...warningsOf(summary));
  }
}

function pointsTable({ metric, baseline }, points) {
  const ofBaseline = points.find((point) => point.point === baseline)?.name;
  const size = (point) => point.metrics.size_bytes?.mean ?? null;
  return table(`${column(metric).label} of each point`, [
    { label: "Point", cell: (point) => [point.name, point.point === baseline && h("span", { class: "quiet" }, " (baseline)")] },
    { label: "Seeds", number: true, cell: (point) => point.metrics[metric].n },
    { label: "Mean (95 % interval)", number: true, cell: (point) => meanWords(point.metrics[metric], metric) },
    { label: ofBaseline ? `Less ${ofBaseline}` : "Difference", number: true, cell: (point) => differenceCell(point.differences[metric], metric) },
    { label: "Bytes", number: true, cell: (point) => column("size_bytes").show(size(point)) },
  ], points);
}

function differenceCell(found, metric) {
  if (!found || found.mean === null) return found?.note ?? "–";
  const interval = found.low === null ? "" : ` (${difference(metric, found.low)} to ${difference(metric, found.high)})`;
  const chance = found.p_holm === null ? "" : `, p ${decimal(found.p_holm)}`;
  return `${difference(metric, found.mean)}${interval}${chance}`;
}

function trendsOf({ trends }) {
  return trends.filter((trend) => trend.rho !== null).map(({ axis, within, rho, p }) => {
    const where = Object.entries(within).map(([name, value]) => `${name} ${value}`).join(", ");
    return h("p", {}, `Along ${axis}${where && ` at ${where}`}: rank correlation ${decimal(rho)}${p === null ? "" : `, p ${decimal(p)}`}.`);
  });
}

function apartOf({ apart: all }) {
  const apart = all.filter(({ state }) => ENDED_WITHOUT.has(state)); // what still runs is no news
  if (!apart.length) return [];
  return [section(`Without an answer (${apart.length})`, table("Jobs without an answer", [
    { label: "Point", cell: (row) => h("a", { href: `#/jobs/${row.job_id}` }, `${row.name}, seed ${row.seed}`) },
    { label: "State", cell: (row) => badge(row.state) },
    { label: "Why", cell: (row) => [row.code && h("code", {}, row.code), ` ${row.reason ?? ""}`] },
  ], apart.slice(0, 100)), apart.length > 100 && h("p", { class: "quiet" }, `and ${apart.length - 100} more`))];
}

const warningsOf = ({ warnings }) => (warnings?.length ? [h("div", { class: "callout warn" }, h("ul", {}, warnings.map((warning) => h("li", {}, warning))))] : []);
