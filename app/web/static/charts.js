/**
 * Charts in SVG: curves, a scatter with its front, bars and intervals. Each is a figure with its words, its data as a table, and a
 * way to read every point by keyboard. Series differ by colour, dash and sign; colours are in app.css.
 *
 * An axis is {label, show, log?, whole?, bounds?, zero?}: `show` makes a number text.
 */

import { fill, h, s, uniqueId } from "./dom.js";
import { table } from "./parts.js";
import { scale } from "./scales.js";

const [TOP, RIGHT, BOTTOM, CHARACTER] = [26, 14, 40, 7];
const STYLES = 8;
const SIGNS = [
  (r) => `M ${-r} 0 a ${r} ${r} 0 1 0 ${2 * r} 0 a ${r} ${r} 0 1 0 ${-2 * r} 0 Z`,
  (r) => `M ${-r} ${-r} H ${r} V ${r} H ${-r} Z`,
  (r) => `M 0 ${-1.3 * r} L ${1.2 * r} ${r} H ${-1.2 * r} Z`,
  (r) => `M 0 ${-1.4 * r} L ${1.4 * r} 0 L 0 ${1.4 * r} L ${-1.4 * r} 0 Z`,
];

const styleOf = (index) => `s${index % STYLES}`;
const signOf = (index) => SIGNS[index % SIGNS.length];

/** A figure around a drawing that is made again when its width changes. `draw(svg, width)`. */
function figure(title, height, draw, role = "img") {
  const id = uniqueId("chart");
  const svg = s("svg", { role, "aria-labelledby": id });
  const [words, data] = [h("p", { class: "words" }), h("div")];
  const below = h("div");
  const box = h("div", { class: "drawing" }, svg);
  const node = h("figure", { class: "chart" }, h("figcaption", { id }, title), words, box, below,
    h("details", {}, h("summary", {}, "The data as a table"), data));
  let width = 0;
  const again = () => {
    if (!width) return;
    svg.setAttribute("viewBox", `0 0 ${width} ${height()}`);
    svg.setAttribute("height", height());
    draw(svg, width);
  };
  new ResizeObserver(([entry]) => {
    const next = Math.round(entry.contentRect.width);
    if (next === width) return;
    width = next;
    again();
  }).observe(box);
  return { node, svg, below, again, say: (sentence) => fill(words, sentence), tabulate: (...cells) => fill(data, table(...cells)) };
}

/** Axes with their grid; the scales of x and y. */
function axes(svg, width, height, x, y, xs, ys) {
  const down = scale(y, ys, height - BOTTOM, TOP, Math.max(2, Math.floor((height - TOP - BOTTOM) / 45)));
  const labels = down.ticks.map((tick) => y.show(tick));
  const left = 10 + CHARACTER * Math.max(...labels.map((label) => label.length));
  const across = scale(x, xs, left, width - RIGHT, Math.max(2, Math.floor((width - left) / 90)));
  fill(svg,
    s("text", { class: "label", x: 0, y: 12 }, y.label),
    s("text", { class: "label", x: width - RIGHT, y: height - 4, "text-anchor": "end" }, x.label),
    down.ticks.map((tick, index) => [
      s("line", { class: "grid", x1: left, x2: width - RIGHT, y1: down(tick), y2: down(tick) }),
      s("text", { class: "tick", x: left - 6, y: down(tick) + 4, "text-anchor": "end" }, labels[index])]),
    across.ticks.map((tick) => [
      s("line", { class: "grid faint", x1: across(tick), x2: across(tick), y1: TOP, y2: height - BOTTOM }),
      s("text", { class: "tick", x: across(tick), y: height - BOTTOM + 16, "text-anchor": "middle" }, x.show(tick))]));
  return [across, down];
}

function legend(names) {
  return h("ul", { class: "legend" }, names.map((name, index) => h("li", {},
    s("svg", { width: 28, height: 12, "aria-hidden": "true" },
      s("line", { class: `line ${styleOf(index)}`, x1: 0, x2: 28, y1: 6, y2: 6 }),
      s("path", { class: `sign ${styleOf(index)}`, transform: "translate(14 6)", d: signOf(index)(3.5) })), name)));
}

/** Curves over a common x. `update([{name, points: [[x, y], …]}])` draws them anew; where somebody reads stays. */
export function lineChart({ title, x, y, height = 260 }) {
  let series = [];
  let xs = [];
  let scales = null;
  let isPinned = false; // somebody moved the reader: new values must not move it
  const slider = h("input", { type: "range", min: "0", "aria-label": `Read ${title} at ${x.label}` });
  const readout = h("output", {});
  const chart = figure(title, () => height, draw);
  const reader = h("div", { class: "reader" }, slider, readout);
  const names = h("div");
  chart.below.append(names, reader);

  function draw(svg, width) {
    scales = axes(svg, width, height, x, y, xs, series.flatMap(({ points }) => points.map((point) => point[1])));
    const [across, down] = scales;
    series.forEach(({ points }, index) => {
      const places = points.filter(([a, b]) => across.has(a) && down.has(b)).map(([a, b]) => [across(a), down(b)]);
      svg.append(s("polyline", { class: `line ${styleOf(index)}`, points: places.map((place) => place.join(",")).join(" ") }));
      const marked = places.length > 12 ? places.slice(-1) : places;
      svg.append(...marked.map(([a, b]) => s("path", { class: `sign ${styleOf(index)}`, transform: `translate(${a} ${b})`, d: signOf(index)(3) })));
    });
    read();
  }

  const valuesAt = (at) => series.map(({ name, points }) => [name, points.find(([a]) => a === at)?.[1]]).filter(([, value]) => value !== undefined);

  /** Show the values at the slider's place. */
  function read() {
    const at = xs[Number(slider.value)];
    if (at === undefined || scales === null) return;
    const sentence = `${x.label} ${x.show(at)}: ${valuesAt(at).map(([name, value]) => `${name} ${y.show(value)}`).join(", ")}`;
    readout.textContent = sentence;
    slider.setAttribute("aria-valuetext", sentence);
    chart.svg.querySelector(".cursor")?.remove();
    const [across] = scales;
    chart.svg.append(s("line", { class: "cursor", x1: across(at), x2: across(at), y1: TOP, y2: height - BOTTOM }));
  }

  slider.addEventListener("input", () => { isPinned = slider.value !== slider.max; read(); });
  chart.svg.addEventListener("pointermove", (event) => {
    if (!scales) return;
    const left = event.clientX - chart.svg.getBoundingClientRect().left;
    const distances = xs.map((value) => Math.abs(scales[0](value) - left));
    slider.value = String(distances.indexOf(Math.min(...distances)));
    isPinned = slider.value !== slider.max;
    read();
  });

  return {
    node: chart.node,
    update(next) {
      series = next;
      xs = [...new Set(series.flatMap(({ points }) => points.map((point) => point[0])))].sort((a, b) => a - b);
      const at = slider.value;
      slider.max = String(Math.max(0, xs.length - 1));
      slider.value = isPinned ? at : slider.max;
      reader.hidden = xs.length < 2;
      fill(names, legend(series.map(({ name }) => name)));
      chart.say(series.filter(({ points }) => points.length).map(({ name, points }) => lineWords(name, points, x, y)).join(" "));
      const columns = [{ label: x.label, cell: (at_) => x.show(at_) }, ...series.map(({ name, points }) => ({
        label: name, number: true, cell: (at_) => y.show(points.find(([a]) => a === at_)?.[1] ?? null) }))];
      chart.tabulate(title, columns, xs);
      chart.again();
    },
  };
}

function lineWords(name, points, x, y) {
  const ordered = [...points].sort((a, b) => a[1] - b[1]);
  const [first, last, least, most] = [points[0], points.at(-1), ordered[0], ordered.at(-1)];
  const at = ([a, b]) => `${y.show(b)} at ${x.label} ${x.show(a)}`;
  if (points.length === 1) return `${name}: ${at(first)}.`;
  return `${name}: from ${at(first)} to ${at(last)}; lowest ${at(least)}, highest ${at(most)}.`;
}

/**
 * Points of two numbers, with the front of those that nobody beats. `update(points, front)`: a point is {key, x, y, name, words,
 * href, low?, high?} (`low` … `high`: its interval in y), `front` the points on it. One tab stop; arrows go from point to
 * point, Enter opens one.
 */
export function scatterChart({ title, height = 340 }) {
  let [x, y, points, front, current] = [null, null, [], [], null];
  const readout = h("p", { class: "readout", "aria-live": "polite" });
  const chart = figure(title, () => height, draw, "group");
  chart.below.append(readout);

  function draw(svg, width) {
    if (x === null) return;
    const hadFocus = svg.contains(document.activeElement);
    const ends = points.flatMap((point) => [point.y, point.low ?? point.y, point.high ?? point.y]);
    const [across, down] = axes(svg, width, height, x, y, points.map((point) => point.x), ends);
    const seen = points.filter((point) => across.has(point.x) && down.has(point.y)).sort((a, b) => a.x - b.x || a.y - b.y);
    const edge = front.filter((point) => across.has(point.x) && down.has(point.y)).sort((a, b) => a.x - b.x);
    svg.append(s("polyline", { class: "front", points: edge.map((point) => `${across(point.x)},${down(point.y)}`).join(" ") }));
    current = seen.some((point) => point.key === current) ? current : seen[0]?.key ?? null;
    const onFront = new Set(front.map((point) => point.key));
    const marks = seen.map((point) => mark(point, across, down, onFront.has(point.key)));
    svg.append(...marks);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
    marks.forEach((element, index) => element.addEventListener("keydown", (event) => {
      if (!(event.key in step)) return;
      event.preventDefault();
      marks[Math.min(marks.length - 1, Math.max(0, index + step[event.key]))].focus();
    }));
    if (hadFocus) marks.find((element) => element.dataset.key === current)?.focus({ preventScroll: true });
  }

  function mark(point, across, down, isOnFront) {
    const show = (event) => {
      if (event.type === "focus") {
        chart.svg.querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
        event.currentTarget.setAttribute("tabindex", "0");
        current = point.key;
      }
      readout.textContent = point.words;
    };
    const place = `translate(${across(point.x)} ${down(point.y)})`;
    const interval = point.low !== undefined && point.low !== null
      && s("line", { class: "interval", x1: across(point.x), x2: across(point.x), y1: down(point.low), y2: down(point.high) });
    return s("a", {
      href: point.href, class: `point ${isOnFront ? "on-front" : ""}`, tabindex: point.key === current ? "0" : "-1", "data-key": point.key,
      "aria-label": point.words + (isOnFront ? " On the front." : ""), onfocus: show, onpointerenter: show,
    }, interval, s("path", { class: "halo", transform: place, d: SIGNS[0](12) }), s("path", { class: "dot", transform: place, d: (isOnFront ? SIGNS[3] : SIGNS[0])(5) }));
  }

  return {
    node: chart.node,
    update(next) {
      ({ x, y, points, front } = next);
      const lost = points.filter((point) => !Number.isFinite(point.x) || !Number.isFinite(point.y)).length;
      chart.say(`${points.length - lost} points${lost ? `, ${lost} without these numbers` : ""}; on the front (diamonds): ${front.map((point) => point.name).join("; ") || "none"}.`);
      const columns = [{ label: "Point", cell: (point) => h("a", { href: point.href }, point.name) },
        { label: x.label, number: true, cell: (point) => x.show(point.x) }, { label: y.label, number: true, cell: (point) => y.show(point.y) },
        { label: "Front", cell: (point) => (front.some((other) => other.key === point.key) ? "yes" : "") }];
      chart.tabulate(title, columns, points);
      chart.again();
    },
  };
}

/** One row a name: a bar from 0, or with `low` and `high` a dot with its interval. `update([{name, value, low?, high?, words}])`. */
export function rowChart({ title, x }) {
  let rows = [];
  const rowHeight = 44;
  const chart = figure(title, () => TOP + BOTTOM + rowHeight * rows.length, draw);

  function draw(svg, width) {
    const ends = rows.flatMap((row) => [row.value, row.low ?? row.value, row.high ?? row.value]);
    const hasIntervals = rows.some((row) => row.low !== undefined && row.low !== null);
    const across = scale({ ...x, zero: !hasIntervals }, ends, 6, width - RIGHT - 60, Math.max(2, Math.floor(width / 110)));
    const bottom = TOP + rowHeight * rows.length;
    fill(svg,
      s("text", { class: "label", x: width - RIGHT, y: bottom + 34, "text-anchor": "end" }, x.label),
      across.ticks.map((tick) => [
        s("line", { class: "grid faint", x1: across(tick), x2: across(tick), y1: TOP, y2: bottom }),
        s("text", { class: "tick", x: across(tick), y: bottom + 16, "text-anchor": "middle" }, x.show(tick))]),
      rows.map((row, index) => {
        const y = TOP + rowHeight * index;
        const isDot = row.low !== undefined && row.low !== null;
        return [
          s("text", { class: "row-name", x: 6, y: y + 14 }, row.name),
          isDot && s("line", { class: "interval", x1: across(row.low), x2: across(row.high), y1: y + 28, y2: y + 28 }),
          isDot || hasIntervals
            ? s("path", { class: "dot", transform: `translate(${across(row.value)} ${y + 28})`, d: SIGNS[0](5) })
            : s("rect", { class: "bar", x: across(0), y: y + 20, width: Math.max(1, across(row.value) - across(0)), height: 14 }),
          s("text", { class: "tick", x: across(row.high ?? row.value) + 8, y: y + 32 }, x.show(row.value))];
      }));
  }

  return {
    node: chart.node,
    update(next) {
      rows = next.filter((row) => Number.isFinite(row.value));
      chart.say(rows.map((row) => row.words ?? `${row.name}: ${x.show(row.value)}`).join("; ") + ".");
      chart.tabulate(title, [{ label: "Name", cell: (row) => row.name }, { label: x.label, number: true, cell: (row) => x.show(row.value) },
        { label: "Low", number: true, cell: (row) => x.show(row.low ?? null) }, { label: "High", number: true, cell: (row) => x.show(row.high ?? null) }], rows);
      chart.again();
    },
  };
}
