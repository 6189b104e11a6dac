/** A form that builds a sweep: axes over the fields of a job, or one of the presets. */

import { get, getIfThere, withQuery } from "../api.js";
import { AxesForm, pointersOf } from "../axes_form.js";
import { datasetChoice, teacherChoice } from "../choices.js";
import { fill, h, uniqueId } from "../dom.js";
import { objectFields } from "../form.js";
import { count, plural, short } from "../format.js";
import { beginning, ingredients, JobForm, tidied } from "../job_form.js";
import { action, table } from "../parts.js";
import { navigate } from "../router.js";
import { sendingPanel } from "../sending.js";

const MOST_SHOWN = 50;

export async function newSweepView({ main, query, signal, setTitle }) {
  setTitle("New sweep");
  const [known, presets, like] = await Promise.all([
    ingredients(signal), getIfThere("/v1/presets", { signal }), query.get("from") ? get(`/v1/sweeps/${query.get("from")}`, { signal }) : null,
  ]);
  const page = new NewSweep(known, presets?.items ?? [], query);
  if (like) page.replace(structuredClone(like.spec));
  else page.show();
  fill(main, h("h1", { tabindex: "-1" }, "New sweep"), h("p", { class: "words" }, "One spec, many jobs: what they have in common is trained once, and one table compares them."),
    h("form", { class: "with-aside", novalidate: true, onsubmit: (event) => event.preventDefault() }, page.node, page.panel.node));
}

class NewSweep {
  constructor(known, presets, query) {
    Object.assign(this, { known, presets });
    this.isPreset = Boolean(query.get("preset")) && presets.length > 0;
    this.spec = { job: beginning(known, query), axes: [{ field: "/steps/0/alpha", values: [0, 0.5, 0.9] }], seeds: 2 };
    const { teachers, dataset } = this.spec.job;
    this.ofPreset = { preset: query.get("preset") ?? presets[0]?.name, ...(teachers && { teachers }), ...(dataset && { dataset }), options: {} };
    this.place = h("div");
    this.panel = sendingPanel({
      path: "/v1/sweeps", label: "Submit", form: () => this.node, spec: () => tidied(this.isPreset ? this.ofPreset : this.spec), plan: planOf,
      sent: (sweep) => navigate(`#/sweeps/${sweep.id}`), replace: (spec) => this.replace(spec),
    });
    this.choice = h("div");
    this.node = h("div", {}, this.choice, this.place);
  }

  replace(spec) {
    this.isPreset = "preset" in spec;
    if (this.isPreset) this.ofPreset = { options: {}, ...spec };
    else this.spec = { axes: [], ...spec };
    this.show();
  }

  show() {
    const radio = (isPreset, says) => h("label", { class: "inline" }, h("input", { type: "radio", name: "kind of sweep", checked: this.isPreset === isPreset, onchange: () => { this.isPreset = isPreset; this.show(); } }), ` ${says}`);
    if (this.presets.length) {
      const hadFocus = this.choice.contains(document.activeElement);
      fill(this.choice, h("fieldset", { class: "field" }, h("legend", {}, "Made of"), radio(false, "axes over a job of your own"), radio(true, "a preset: one of the report's experiments")));
      if (hadFocus) this.choice.querySelector("input:checked").focus();
    }
    fill(this.place, this.isPreset ? this.presetForm() : this.axesForm());
    this.panel.refresh();
  }

  axesForm() {
    const { spec, known } = this;
    spec.axes ??= [];
    const axes = new AxesForm({ axes: spec.axes, fields: () => pointersOf(spec.job, known), changed: this.panel.refresh });
    const job = new JobForm({ known, spec: spec.job, pointer: "/job", skip: ["seeds"], changed: () => { axes.refreshFields(); this.panel.refresh(); } });
    const schema = known.schemas.SweepSpec;
    return [axes.node,
      schema && h("section", {}, h("h2", {}, "The sweep"), objectFields({ schema, root: known.root, value: spec, pointer: "", changed: this.panel.refresh, skip: ["job", "axes"] })),
      h("h2", { class: "part" }, "The job that the axes change"), job.node];
  }

  presetForm() {
    const { ofPreset, known, presets } = this;
    const preset = presets.find((one) => one.name === ofPreset.preset) ?? presets[0];
    const id = uniqueId("preset");
    const select = h("select", { id, name: "/preset", onchange: () => { ofPreset.preset = select.value; ofPreset.options = {}; this.show(); document.getElementById(this.presetId)?.focus(); } },
      presets.map((one) => h("option", { value: one.name, selected: one.name === preset.name }, `${one.name}: ${one.title}`)));
    this.presetId = id;
    const changed = this.panel.refresh;
    return [
      h("section", {}, h("h2", {}, "Preset"), h("div", { class: "field", "data-pointer": "/preset" }, h("label", { for: id }, "Experiment"), select, h("p", { class: "field-error" })),
        h("p", {}, h("strong", {}, "It asks: "), preset.asks), h("p", {}, h("strong", {}, "The report found: "), preset.found),
        h("p", { class: "quiet" }, `It takes ${teachersWords(preset.teachers)} and data with the splits ${preset.splits?.join(", ")}; ${costWords(preset.cost)}.`)),
      h("section", {}, h("h2", {}, "From"), teacherChoice({ teachers: known.teachers, owner: ofPreset, changed, pointer: "/teachers" }), datasetChoice({ datasets: known.datasets, owner: ofPreset, changed, pointer: "/dataset" })),
      h("section", {}, h("h2", {}, "Options"), objectFields({ schema: preset.options, root: preset.options, value: ofPreset.options, pointer: "/options", changed }),
        action("Edit it as axes", async () => this.replace(await this.expanded()))),
    ];
  }

  /** The preset as the sweep that it stands for. */
  expanded() {
    const { preset, teachers, dataset, options } = this.ofPreset;
    const asked = Object.fromEntries(Object.entries(options).map(([name, value]) => [`option.${name}`, typeof value === "string" ? value : JSON.stringify(value)]));
    return get(withQuery(`/v1/presets/${preset}`, { teachers: teachers?.join(","), dataset, ...asked }));
  }
}

const teachersWords = ({ min, max }) => (min === max ? plural(min, "teacher") : `${min} to ${max} teachers`);

function costWords(cost) {
  return Object.entries(cost ?? {}).map(([name, { jobs, epochs }]) => `${name}: ${plural(jobs, "job")}${epochs ? `, ${count(epochs)} epochs` : ""}`).join("; ");
}

/** What the service says it would do: how many jobs, what they share, and each point. */
function planOf({ num_jobs, children, stages, estimated_macs, warnings }) {
  const axes = [...new Set(children.flatMap((child) => Object.keys(child.params)))];
  return [
    h("p", {}, `${plural(num_jobs, "job")}, ${estimated_macs === null ? "and only doing them tells what they cost" : `${short(estimated_macs)} multiply-adds in all`}.`),
    stages.length > 0 && h("p", {}, "Trained once for several: ", stages.map((stage) => `${stage.methods.join(", ")} (seed ${stage.seed}, for ${plural(stage.served, "job")})`).join("; "), "."),
    warnings.length > 0 && h("div", { class: "callout warn" }, h("ul", {}, warnings.map((warning) => h("li", {}, warning)))),
    table("Points of the grid", [
      { label: "Point", cell: (child) => child.point },
      ...axes.map((axis) => ({ label: axis, cell: (child) => textOf(child.params[axis]) })),
      { label: "Seed", number: true, cell: (child) => child.seed },
      { label: "Fits", cell: (child) => (child.error ? [h("code", {}, child.error.code), ` ${child.error.detail}`] : "yes") },
    ], children.slice(0, MOST_SHOWN)),
    children.length > MOST_SHOWN && h("p", { class: "quiet" }, `and ${children.length - MOST_SHOWN} more`),
  ];
}

const textOf = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value ?? ""));
