/** The form of a job: teachers, data, steps that are added, moved and removed, and everything else a job may say. */

import { all, get } from "./api.js";
import { datasetChoice, studentField, teacherChoice } from "./choices.js";
import { fill, h, uniqueId } from "./dom.js";
import { objectFields } from "./form.js";
import { words } from "./format.js";

/** What the form needs to know of the service: {steps, schemas, root, architectures, teachers, datasets}. */
export async function ingredients(signal) {
  const [steps, openapi, architectures, teachers, datasets] = await Promise.all([
    get("/v1/steps", { signal }), get("/openapi.json", { signal }), get("/v1/architectures", { signal }),
    all("/v1/teachers", { signal }), all("/v1/datasets", { signal }),
  ]);
  return { steps: steps.items, root: openapi, schemas: openapi.components.schemas, architectures: architectures.items, teachers, datasets };
}

/** A job to begin with: what there is only one of is chosen. */
export function beginning({ teachers, datasets }, query) {
  const ready = (rows) => rows.filter((row) => row.state === "ready").map((row) => row.id);
  const [known, data] = [ready(teachers), ready(datasets)];
  const teacher = query.get("teacher") ?? (known.length === 1 ? known[0] : null);
  const dataset = query.get("dataset") ?? (data.length === 1 ? data[0] : null);
  return { ...(teacher && { teachers: [teacher] }), ...(dataset && { dataset }), steps: [{ method: "distill", student: {} }, { method: "quantize" }] };
}

export class JobForm {
  /** `spec` is edited in place; `pointer` is where the job lies in what is sent ("" or "/job"). */
  constructor({ known, spec, pointer, skip = [], changed }) {
    Object.assign(this, { known, spec, pointer, skip, changed });
    this.spec.steps ??= [];
    this.cards = h("div");
    this.node = h("div");
    this.build();
  }

  /** Everything anew, from the spec as it is. */
  build() {
    const { known, spec, pointer, changed } = this;
    fill(this.node,
      h("section", {}, h("h2", {}, "From"),
        teacherChoice({ teachers: known.teachers, owner: spec, changed, pointer: `${pointer}/teachers` }),
        datasetChoice({ datasets: known.datasets, owner: spec, changed, pointer: `${pointer}/dataset` })),
      h("section", { "data-pointer": `${pointer}/steps` }, h("h2", {}, "Steps"), h("p", { class: "field-error" }), this.cards, this.adder()),
      h("section", {}, h("h2", {}, "The job"), objectFields({
        schema: known.schemas.JobSpec, root: known.root, value: spec, pointer, changed, skip: ["teachers", "dataset", "steps", ...this.skip],
      })));
    this.showSteps();
  }

  showSteps(focus) {
    fill(this.cards, this.spec.steps.map((step, index) => this.card(step, index)));
    if (focus) this.cards.querySelector(focus)?.focus();
  }

  card(step, index) {
    const { steps } = this.spec;
    const pointer = `${this.pointer}/steps/${index}`;
    const view = this.known.steps.find((one) => one.name === step.method);
    const id = uniqueId("step");
    const method = h("select", { id, name: `${pointer}/method`, onchange: () => { steps[index] = newStep(this.known, method.value); this.edited(`#${id}`); } }, methodOptions(this.known.steps, step.method));
    const move = (by, name) => h("button", { type: "button", class: "small", "data-move": `${name}-${index}`, disabled: index + by < 0 || index + by >= steps.length, "aria-label": `Move step ${index + 1} ${name}`, onclick: () => {
      [steps[index], steps[index + by]] = [steps[index + by], steps[index]];
      this.edited(`[data-move="${name}-${index + by}"]:not([disabled]), #step-title-${index + by}`);
    } }, name === "up" ? "↑" : "↓");
    const remove = h("button", { type: "button", class: "small", "aria-label": `Remove step ${index + 1}`, onclick: () => { steps.splice(index, 1); this.edited(`#step-title-${Math.max(0, index - 1)}`); } }, "Remove");
    return h("fieldset", { class: "step-card", "data-pointer": pointer },
      h("legend", { id: `step-title-${index}`, tabindex: "-1" }, `Step ${index + 1}`),
      h("div", { class: "row" }, h("label", { for: id }, "Method "), method, h("span", { class: "push row" }, move(-1, "up"), move(1, "down"), remove)),
      h("p", { class: "about" }, view?.summary ?? ""), h("p", { class: "field-error" }),
      view && objectFields({ schema: view.json_schema, root: view.json_schema, value: step, pointer, changed: this.changed, special: { student: studentField(this.known.architectures) } }));
  }

  edited(focus) {
    this.showSteps(focus);
    this.changed();
  }

  adder() {
    const id = uniqueId("adder");
    const method = h("select", { id, name: "new step" }, methodOptions(this.known.steps, "quantize"));
    const add = () => { this.spec.steps.push(newStep(this.known, method.value)); this.edited(`#step-title-${this.spec.steps.length - 1}`); };
    return h("div", { class: "row" }, h("label", { for: id }, "One more step "), method, h("button", { type: "button", onclick: add }, "Add step"));
  }
}

function methodOptions(steps, chosen) {
  return steps.map((step) => h("option", { value: step.name, selected: step.name === chosen }, words(step.name)));
}

/** A step with what it cannot be without. */
function newStep({ steps }, method) {
  const needs = steps.find((step) => step.name === method)?.json_schema.required ?? [];
  return { method, ...(needs.includes("student") && { student: {} }) };
}

/** What is sent: the spec without what was left empty. */
export function tidied(value) {
  if (Array.isArray(value)) return value.map(tidied);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined).map(([name, one]) => [name, tidied(one)]));
}
