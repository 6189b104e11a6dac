/** What a job measured after each of its steps, and the layers of the networks it knows. */

import { h } from "./dom.js";
import { bytes, count, duration, milliseconds, percent, short, times, words } from "./format.js";
import { section, table } from "./parts.js";

const MOST_LAYERS = 500;

const accuracy = (split) => (stage) => {
  const score = stage.splits?.[split];
  return score ? `${percent(score.accuracy)}${score.leaked ? " †" : ""}` : "–";
};

function columns(first, splits) {
  const agrees = splits.at(-1);
  return [
    { label: "Step", cell: (stage) => (stage.step ? `${stage.step}. ${stage.method}` : "teacher") },
    ...splits.map((split) => ({ label: `${words(split)} accuracy`, number: true, cell: accuracy(split) })),
    { label: `Agreement (${agrees})`, number: true, cell: (stage) => (stage.step ? percent(stage.agreement?.[agrees]) : "–") },
    { label: "Bytes", number: true, cell: (stage) => count(stage.size_bytes) },
    { label: "Smaller by", number: true, cell: (stage) => times(first.size_bytes / stage.size_bytes) },
    { label: "Parameters", number: true, cell: (stage) => count(stage.parameters) },
    { label: "MACs", number: true, cell: (stage) => short(stage.macs) },
    { label: "Latency", number: true, cell: (stage) => milliseconds(stage.latency_ms?.median) },
    { label: "Time", number: true, cell: (stage) => (stage.shared_from ? "shared" : duration(stage.seconds)) },
  ];
}

/** The stages in order, the teacher first. */
export function stageTable(stages) {
  const splits = ["val", "test"].filter((split) => stages.some((stage) => stage.splits?.[split]));
  const leaked = stages.some((stage) => splits.some((split) => stage.splits?.[split]?.leaked));
  return section("Stages", table("What was measured after each step", columns(stages[0], splits), stages),
    leaked && h("p", { class: "quiet" }, "† trained on these very images: it says nothing about others."));
}

const spread = ({ mean, std }, show) => (std === null ? show(mean) : `${show(mean)} ± ${show(std)}`);

/** Mean and standard deviation over the seeds of a job. */
export function seedTable(summary, number) {
  const splits = ["val", "test"].filter((split) => summary.some((step) => step.splits[split]));
  return section(`Over ${number} seeds`, table("Mean and standard deviation over the seeds", [
    { label: "Step", cell: (step) => `${step.step}. ${step.method}` },
    ...splits.map((split) => ({ label: `${words(split)} accuracy`, number: true, cell: (step) => spread(step.splits[split].accuracy, percent) })),
    { label: "Bytes", number: true, cell: (step) => spread(step.size_bytes, count) },
    { label: "Time", number: true, cell: (step) => spread(step.seconds, duration) },
  ], summary));
}

/** Layers with their share of all parameters; of a very deep network the first ones, and how many are left out. */
export function layerTable(layers) {
  const whole = layers.reduce((sum, layer) => sum + layer.parameters, 0);
  const shown = layers.slice(0, MOST_LAYERS);
  return [
    table("Layers", [
      { label: "Layer", cell: (layer) => layer.name },
      { label: "Type", cell: (layer) => layer.type },
      { label: "Output", number: true, cell: (layer) => (layer.output_shape ?? layer.output ?? []).join(" × ") || "–" },
      { label: "Parameters", number: true, cell: (layer) => count(layer.parameters) },
      { label: "Share", number: true, cell: (layer) => share(whole ? layer.parameters / whole : 0) },
      { label: "MACs", number: true, cell: (layer) => short(layer.macs) },
      ...(layers.some((layer) => layer.size_bytes !== undefined) ? [{ label: "Bytes", number: true, cell: (layer) => bytes(layer.size_bytes) }] : []),
    ], shown),
    layers.length > shown.length && h("p", { class: "quiet" }, `and ${layers.length - shown.length} more layers`),
  ];
}

function share(fraction) {
  return [h("meter", { value: fraction, min: "0", max: "1", "aria-hidden": "true" }), ` ${percent(fraction)}`];
}
