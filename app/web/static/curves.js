/** Learning curves of a job, from the numbers that it noted epoch by epoch; they grow while it trains. */

import { lineChart } from "./charts.js";
import { fill, h } from "./dom.js";
import { decimal, percent, short, text, words } from "./format.js";

const EPOCH = { label: "epoch", show: text, whole: true };
const LOSSES = new Set(["train_loss", "cross_entropy", "loss"]);
const FIRST = ["Accuracy", "Loss"];
const COUNTS = new Set(["parameters", "macs"]);

/** Which chart a number belongs to; numbers of one chart have one unit. */
function chartOf(name) {
  if (name.includes("accuracy")) return "Accuracy";
  if (LOSSES.has(name)) return "Loss";
  return words(name);
}

function axisOf(title, name) {
  if (title === "Accuracy") return { label: "accuracy", show: percent, bounds: [0, 1] };
  if (title === "Loss") return { label: "loss (nat)", show: decimal };
  return { label: words(name).toLowerCase(), show: COUNTS.has(name) ? short : decimal };
}

/** {step: {chart: {series name: [[epoch, value], …]}}} of the metrics that have an epoch. */
export function curvesOf(metrics) {
  const steps = {};
  for (const { step, epoch, split, name, value, seed } of metrics) {
    if (epoch === null) continue;
    const charts = (steps[step] ??= {});
    const series = (charts[chartOf(name)] ??= { name, lines: {} }).lines;
    (series[seriesName(name, split, seed)] ??= []).push([epoch, value]);
  }
  return steps;
}

function seriesName(name, split, seed) {
  const spoken = name.replaceAll("_", " ");
  const whole = split && !spoken.startsWith(split) ? `${split} ${spoken}` : spoken;
  return seed === null ? whole : `${whole}, seed ${seed}`;
}

/** Accuracy, loss, and the others as they come. */
function ordered(charts) {
  const rank = ([title]) => { const at = FIRST.indexOf(title); return at < 0 ? FIRST.length : at; };
  return Object.entries(charts).sort((a, b) => rank(a) - rank(b));
}

/** The curves of one step at a time: the last one that has any, until somebody chooses. */
export class Curves {
  constructor(methods) {
    this.methods = methods; // of step 1, 2, …
    this.chosen = null;
    this.charts = new Map();
    this.select = h("select", { name: "step", onchange: () => { this.chosen = this.select.value; this.show(); } });
    this.choice = h("label", { hidden: true }, "Step ", this.select);
    this.grid = h("div", { class: "charts" });
    this.more = h("div", { class: "charts" });
    this.moreBox = h("details", { hidden: true }, h("summary", {}, "Learning rate and other numbers"), this.more);
    this.node = h("section", { hidden: true }, h("h2", {}, "Learning curves"), this.choice, this.grid, this.moreBox);
  }

  update(metrics) {
    this.curves = curvesOf(metrics);
    const steps = Object.keys(this.curves);
    this.node.hidden = !steps.length;
    if (!steps.length) return;
    if (steps.length !== this.select.options.length) {
      fill(this.select, steps.map((step) => h("option", { value: step }, `${step}: ${this.methods[step - 1] ?? ""}`)));
      this.choice.hidden = steps.length < 2;
    }
    this.select.value = steps.includes(this.chosen) ? this.chosen : steps.at(-1);
    this.show();
  }

  show() {
    const step = this.select.value;
    const wanted = new Set();
    for (const [title, { name, lines }] of ordered(this.curves[step])) {
      const id = `${step} ${title}`;
      wanted.add(id);
      if (!this.charts.has(id)) this.charts.set(id, lineChart({ title: `${title}, step ${step}`, x: EPOCH, y: axisOf(title, name) }));
      const chart = this.charts.get(id);
      const place = FIRST.includes(title) ? this.grid : this.more;
      if (!chart.node.isConnected) place.append(chart.node);
      chart.update(Object.entries(lines).map(([line, points]) => ({ name: line, points })));
    }
    for (const [id, chart] of this.charts) if (!wanted.has(id)) chart.node.remove();
    this.moreBox.hidden = !this.more.children.length;
  }
}
