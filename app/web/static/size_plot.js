/** The plot of a sweep: any two numbers of its points or jobs, with the front of those that nothing else beats. */

import { getIfThere, withQuery } from "./api.js";
import { scatterChart } from "./charts.js";
import { ACCURACIES, column, MEASURES } from "./columns.js";
import { fill, h, uniqueId } from "./dom.js";

const SMALL_RANGE = 10; // a wider range of sizes is read better on a logarithmic axis

export class SizePlot {
  /** `chosen`: {x, y, over, log}, kept in the address by `keep`. */
  constructor(sweepId, chosen, signal, keep) {
    Object.assign(this, { sweepId, signal, keep });
    this.chosen = { x: chosen.x || "size_bytes", y: chosen.y || "", over: chosen.over || "points", log: chosen.log || "" };
    this.chart = scatterChart({ title: "Size and accuracy" });
    this.controls = h("div", { class: "filters" });
    this.notice = h("p", { class: "quiet" });
    this.node = h("section", { hidden: true }, h("h2", {}, "Size and accuracy"), this.controls, this.notice, this.chart.node);
  }

  /** With the table and the summary as they are now. */
  async update(table, summary) {
    Object.assign(this, { table, summary });
    this.chosen.y ||= summary.metric;
    this.node.hidden = !table.rows.some((row) => row.state === "succeeded");
    if (!this.node.hidden) {
      this.showControls();
      await this.draw();
    }
  }

  /** Axes whose values are numbers can be plotted along, too. */
  numericAxes() {
    return this.table.axes.filter(({ column: name }) => this.table.rows.every((row) => typeof row[name] === "number")).map(({ name }) => name);
  }

  showControls() {
    const axes = this.numericAxes();
    const key = axes.join();
    if (this.shownControls === key) return;
    this.shownControls = key;
    const others = this.table.columns.filter(({ better, name }) => better && ![...MEASURES, ...ACCURACIES].includes(name)).map(({ name }) => name);
    const select = (name, label, values) => {
      const id = uniqueId("plot");
      return h("span", {}, h("label", { for: id }, label), " ", h("select", { id, name, onchange: (event) => this.choose(name, event.target.value) },
        values.map(([value, says]) => h("option", { value, selected: value === this.chosen[name] }, says))));
    };
    const columns = (names) => names.map((name) => [name, column(name).label]);
    fill(this.controls,
      select("x", "Across", [...columns(MEASURES), ...axes.map((name) => [`axis:${name}`, `axis ${name}`]), ...columns(others)]),
      select("y", "Up", columns([...ACCURACIES, ...MEASURES, ...others])),
      select("over", "Of", [["points", "points (means over seeds)"], ["rows", "single jobs"]]),
      select("log", "Scale", [["", "by itself"], ["log", "logarithmic"], ["linear", "linear"]]));
  }

  choose(name, value) {
    this.chosen[name] = value;
    this.keep(this.chosen);
    this.draw();
  }

  async draw() {
    const { x, y } = this.chosen;
    const isAxis = x.startsWith("axis:");
    const found = isAxis ? this.alongAxis(x.slice(5)) : await this.asked();
    if (found === null || this.signal.aborted) return;
    const values = found.points.map((point) => point.x).filter((value) => value > 0);
    const isWide = values.length > 1 && values.length === found.points.length && Math.max(...values) / Math.min(...values) >= SMALL_RANGE;
    const log = this.chosen.log ? this.chosen.log === "log" : isWide;
    const across = isAxis ? { label: x.slice(5), show: (value) => String(value) } : axisOf(x);
    fill(this.notice, found.leftOut ? `${found.leftOut} of them lack one of the two numbers.` : "");
    this.chart.update({ x: { ...across, log }, y: axisOf(y), points: found.points, front: found.points.filter((point) => point.isOnFront) });
  }

  /** From the service, which decides what is on the front. */
  async asked() {
    const { x, y, over } = this.chosen;
    const answer = await getIfThere(withQuery(`/v1/sweeps/${this.sweepId}/pareto`, { x, y, over }), { signal: this.signal });
    if (answer === null) return null;
    const points = answer.items.map((item) => {
      const spread = over === "points" ? this.summary.points.find((point) => point.point === item.point)?.metrics[y] : null;
      const name = over === "points" ? item.name : `${item.name}, seed ${item.seed}`;
      return this.point({ key: `${item.point} ${item.job_id}`, name, x: item.x, y: item.y, spread, jobId: item.job_id ?? this.jobOf(item.point), isOnFront: item.on_front });
    });
    return { points, leftOut: answer.left_out };
  }

  alongAxis(axis) {
    const { y, over } = this.chosen;
    if (over === "points") {
      const points = this.summary.points.filter((point) => point.metrics[y]).map((point) => this.point({
        key: String(point.point), name: point.name, x: point.params[axis], y: point.metrics[y].mean, spread: point.metrics[y], jobId: this.jobOf(point.point) }));
      return { points, leftOut: this.summary.points.length - points.length };
    }
    const name = this.table.axes.find((one) => one.name === axis).column;
    const rows = this.table.rows.filter((row) => typeof row[y] === "number");
    return { points: rows.map((row) => this.point({ key: row.job_id, name: `${axis} ${row[name]}, seed ${row.seed}`, x: row[name], y: row[y], jobId: row.job_id })), leftOut: this.table.rows.length - rows.length };
  }

  /** Of a point with several seeds the first one's job. */
  jobOf(point) {
    return this.table.rows.find((row) => row.point === point && row.state === "succeeded")?.job_id;
  }

  point({ key, name, x, y, spread, jobId, isOnFront = false }) {
    const [across, up] = [this.chosen.x.startsWith("axis:") ? null : column(this.chosen.x), column(this.chosen.y)];
    const interval = spread && spread.low !== null ? ` (${up.show(spread.low)} to ${up.show(spread.high)}, ${spread.n} seeds)` : "";
    const words = `${name}: ${up.label} ${up.show(y)}${interval}${across ? `, ${across.label} ${across.show(x)}` : ""}.`;
    return { key, name, x, y, low: spread?.low, high: spread?.high, words, href: `#/jobs/${jobId}`, isOnFront };
  }
}

function axisOf(name) {
  const { label, axis } = column(name);
  return { label, show: axis, bounds: /accuracy|agreement/.test(name) ? [0, 1] : undefined };
}
