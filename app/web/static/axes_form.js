/** The axes of a sweep: a field and its values, several fields in step, or named points. */

import { fill, h, uniqueId } from "./dom.js";
import { asJson } from "./schema.js";
import { kindOf, resolved, withoutNull } from "./schema.js";

const KINDS = { values: "a field and its values", zip: "several fields in step", points: "named points (JSON)" };
const BLANK = { values: () => ({ field: "", values: [] }), zip: () => ({ zip: [{ field: "", values: [] }, { field: "", values: [] }] }), points: () => ({ name: "plan", points: [] }) };
const kindOfAxis = (axis) => Object.keys(KINDS).find((kind) => kind in axis) ?? "values";

/** JSON pointers to the fields of a job that an axis may set, as far as schemas tell. */
export function pointersOf(job, known) {
  const steps = (job.steps ?? []).flatMap((step, index) => {
    const schema = known.steps.find((one) => one.name === step.method)?.json_schema;
    return schema ? fieldsOf(schema, schema, `/steps/${index}`, 2) : [];
  });
  return [...steps, ...fieldsOf(known.schemas.JobSpec, known.root, "", 1).filter((pointer) => pointer !== "/seeds")];
}

function fieldsOf(schema, root, prefix, depth) {
  return Object.entries(schema.properties ?? {}).flatMap(([name, property]) => {
    if ("const" in resolved(property, root)) return [];
    const inner = withoutNull(property, root).schema;
    const deeper = depth > 1 && kindOf(inner, root) === "object" ? fieldsOf(inner, root, `${prefix}/${name}`, depth - 1) : [];
    return [`${prefix}/${name}`, ...deeper];
  });
}

/** "0, 0.2, 0.8" or a JSON list, as values. */
export function valuesOf(text) {
  const whole = asJson(text);
  if (Array.isArray(whole)) return whole;
  return text.split(",").map((part) => part.trim()).filter(Boolean).map(asJson);
}

/** Values as the text that `valuesOf` reads. */
export function valuesText(values) {
  const isPlain = values.every((value) => value === null || typeof value !== "object") && values.every((value) => typeof value !== "string" || asJson(value) === value && !value.includes(","));
  return isPlain ? values.map((value) => (typeof value === "string" ? value : JSON.stringify(value))).join(", ") : JSON.stringify(values);
}

export class AxesForm {
  /** `axes` is edited in place; `fields()` are the pointers that may be chosen. */
  constructor({ axes, fields, changed }) {
    Object.assign(this, { axes, fields, changed });
    this.listId = uniqueId("fields");
    this.list = h("datalist", { id: this.listId });
    this.cards = h("div");
    this.node = h("section", { "data-pointer": "/axes" }, h("h2", {}, "Axes"),
      h("p", { class: "words" }, "Every combination of the axes is a point of the grid; without an axis there is one point."), h("p", { class: "field-error" }),
      this.list, this.cards, h("button", { type: "button", onclick: () => { this.axes.push(BLANK.values()); this.edited(`[data-pointer="/axes/${this.axes.length - 1}"] select`); } }, "Add axis"));
    this.show();
  }

  edited(focus) {
    this.show();
    if (focus) this.node.querySelector(focus)?.focus();
    this.changed();
  }

  refreshFields() {
    fill(this.list, this.fields().map((pointer) => h("option", { value: pointer })));
  }

  show() {
    this.refreshFields();
    fill(this.cards, this.axes.map((axis, index) => this.card(axis, index)));
  }

  card(axis, index) {
    const pointer = `/axes/${index}`;
    const kind = kindOfAxis(axis);
    const id = uniqueId("axis");
    const select = h("select", { id, name: `${pointer}/kind`, onchange: () => { this.axes[index] = BLANK[select.value](); this.edited(`[data-pointer="${pointer}"] select`); } },
      Object.entries(KINDS).map(([one, says]) => h("option", { value: one, selected: one === kind }, says)));
    const remove = h("button", { type: "button", class: "small", "aria-label": `Remove axis ${index + 1}`, onclick: () => { this.axes.splice(index, 1); this.edited(`[data-pointer="/axes/${Math.max(0, index - 1)}"] select`); } }, "Remove");
    const body = { values: () => this.oneField(axis, pointer), zip: () => this.zipped(axis, pointer), points: () => this.points(axis, pointer) }[kind]();
    return h("fieldset", { class: "step-card", "data-pointer": pointer }, h("legend", {}, `Axis ${index + 1}`),
      h("div", { class: "row" }, h("label", { for: id }, "Kind "), select, h("span", { class: "push" }, remove)), h("p", { class: "field-error" }), body);
  }

  oneField(axis, pointer) {
    const field = Array.isArray(axis.field) ? JSON.stringify(axis.field) : axis.field;
    return h("div", { class: "fields" },
      this.text("Field", `${pointer}/field`, field, (text) => { axis.field = text.startsWith("[") ? asJson(text) : text; }, { list: this.listId, placeholder: "/steps/0/alpha", about: "A JSON pointer into the job; a JSON list of them sets all." }),
      this.text("Values", `${pointer}/values`, valuesText(axis.values ?? []), (text) => { axis.values = valuesOf(text); }, { placeholder: "0, 0.2, 0.8", about: "With commas between, or as a JSON list." }),
      this.text("Name", `${pointer}/name`, axis.name ?? "", (text) => { if (text) axis.name = text; else delete axis.name; }, { about: "Of the column in tables; empty: the last part of the field." }));
  }

  zipped(axis, pointer) {
    return h("div", {}, axis.zip.map((one, index) => h("div", { class: "row-card" }, this.oneField(one, `${pointer}/zip/${index}`),
      axis.zip.length > 1 && h("button", { type: "button", class: "small", "aria-label": `Remove field ${index + 1} of the axis`, onclick: () => { axis.zip.splice(index, 1); this.edited(`[data-pointer="${pointer}"] select`); } }, "Remove"))),
    h("button", { type: "button", class: "small", onclick: () => { axis.zip.push({ field: "", values: [] }); this.edited(`[data-pointer="${pointer}/zip/${axis.zip.length - 1}/field"] input`); } }, "Add a field"));
  }

  points(axis, pointer) {
    const id = uniqueId("points");
    const complaint = h("p", { class: "field-error", id: `${id}-error` });
    const area = h("textarea", { id, name: `${pointer}/points`, rows: "8", spellcheck: "false", "aria-describedby": `${id}-about ${complaint.id}`, oninput: () => {
      try {
        axis.points = JSON.parse(area.value);
        complaint.textContent = "";
      } catch (error) {
        complaint.textContent = `This is not JSON: ${error.message}`;
      }
      this.changed();
    } }, JSON.stringify(axis.points, null, 1));
    return h("div", { class: "fields" }, this.text("Name", `${pointer}/name`, axis.name ?? "", (text) => { axis.name = text; }, { about: "Of the column in tables." }),
      h("div", { class: "field", "data-pointer": `${pointer}/points` }, h("label", { for: id }, "Points"), area,
        h("div", { class: "about", id: `${id}-about` }, 'A list of {"name": …, "set": {"/steps": […]}}.'), complaint));
  }

  text(label, pointer, value, put, { list, placeholder, about }) {
    const id = uniqueId("axis-field");
    const input = h("input", { id, name: pointer, type: "text", value, list, placeholder, spellcheck: "false", autocomplete: "off", "aria-describedby": `${id}-about`, oninput: () => { put(input.value.trim()); this.changed(); } });
    return h("div", { class: "field", "data-pointer": pointer }, h("label", { for: id }, label), input, h("div", { class: "about", id: `${id}-about` }, about), h("p", { class: "field-error" }));
  }
}
