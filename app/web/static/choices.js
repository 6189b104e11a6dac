/** Choices that a schema cannot name: teachers, data sets, architectures and their options, the network that a step trains. */

import { fill, h, uniqueId } from "./dom.js";
import { count, short } from "./format.js";
import { fieldFor, objectFields } from "./form.js";
import { withoutNull } from "./schema.js";

/** Options of a select, by families. */
export function architectureOptions(architectures, chosen) {
  const families = Map.groupBy(architectures, (entry) => entry.family);
  return [...families].map(([family, entries]) => h("optgroup", { label: family }, entries.map((entry) => h("option",
    { value: entry.name, selected: entry.name === chosen }, `${entry.name} (${short(entry.parameters)} parameters)`))));
}

/** The options of a built-in architecture as a schema, so that they are fields like all others. */
export function optionsSchema(entry) {
  const properties = Object.fromEntries(Object.entries(entry?.options ?? {}).map(([name, { choices, ...option }]) =>
    [name, choices ? { ...option, enum: choices } : option]));
  return { type: "object", properties };
}

/** A built-in architecture with its options; `empty` is what no choice means. The value lives in `owner.architecture`, `owner.options`. */
export function architectureFields({ architectures, owner, pointer, changed, empty }) {
  const id = uniqueId("architecture");
  const options = h("div");
  const show = () => {
    const schema = optionsSchema(architectures.find((entry) => entry.name === owner.architecture));
    if (!Object.keys(schema.properties).length) {
      delete owner.options;
      fill(options);
      return;
    }
    const value = { ...owner.options };
    const settle = () => {
      if (Object.keys(value).length) owner.options = value;
      else delete owner.options;
      changed();
    };
    fill(options, objectFields({ schema, root: {}, value, pointer: `${pointer}/options`, changed: settle }));
  };
  const select = h("select", { id, name: `${pointer}/architecture`, onchange: () => {
    if (select.value) owner.architecture = select.value;
    else delete owner.architecture;
    delete owner.options;
    show();
    changed();
  } }, h("option", { value: "" }, empty), architectureOptions(architectures, owner.architecture));
  show();
  return [h("div", { class: "field", "data-pointer": `${pointer}/architecture` }, h("label", { for: id }, "Architecture"), select, h("p", { class: "field-error" })), options];
}

const SOURCES = {
  architecture: "a built-in architecture, new weights",
  previous: "the network of the step before, with its weights",
  teacher: "a teacher's own graph, new weights",
  graph: "a graph of your own (JSON)",
};
const OF_SOURCE = ["architecture", "options", "previous", "teacher", "graph"];

/** A whole student, in place of its shorthands. */
export function wholeStudent(value) {
  if (value === "previous") return { previous: true };
  if (value === "teacher") return { teacher: 0 };
  return typeof value === "string" ? { architecture: value } : { ...value };
}

/** The field `student`: which network, how wide, at which size. */
export const studentField = (architectures) => (place) => {
  const { name, owner, pointer, root, changed } = place;
  const { schema } = withoutNull(place.schema, root);
  const value = wholeStudent(owner[name] ?? {});
  const settle = () => { owner[name] = value; changed(); };
  const given = Object.keys(SOURCES).find((source) => value[source] !== undefined && value[source] !== null) ?? "architecture";
  owner[name] = value;
  const inner = h("div");
  const id = uniqueId("student");
  const show = (source) => fill(inner,
    source === "architecture" && architectureFields({ architectures, owner: value, pointer, changed: settle, empty: "choose" }),
    source === "teacher" && fieldFor({ name: "teacher", schema: schema.properties.teacher, root, owner: value, pointer: `${pointer}/teacher`, changed: settle }),
    source === "graph" && fieldFor({ name: "graph", schema: { description: "As docs/formats.md has it." }, root, owner: value, pointer: `${pointer}/graph`, changed: settle }),
    source !== "previous" && objectFields({ schema, root, value, pointer, changed: settle, skip: source === "architecture" ? OF_SOURCE : [...OF_SOURCE, "image_size"], behind: ["preprocessing"] }));
  const select = h("select", { id, name: `${pointer}/source`, onchange: () => {
    for (const field of Object.keys(value)) delete value[field];
    if (select.value === "previous") value.previous = true;
    if (select.value === "teacher") value.teacher = 0;
    show(select.value);
    settle();
  } }, Object.entries(SOURCES).map(([source, says]) => h("option", { value: source, selected: source === given }, says)));
  show(given);
  return h("fieldset", { class: "field", "data-pointer": pointer }, h("legend", {}, "Student"),
    h("div", { class: "field" }, h("label", { for: id }, "The network that is trained"), select), inner, h("p", { class: "field-error" }));
};

/** Teachers by their check boxes, in the order they were chosen; the value is `owner.teachers`. */
export function teacherChoice({ teachers, owner, changed, pointer }) {
  const chosen = () => owner.teachers ?? [];
  const row = (teacher) => h("label", { class: "inline" }, h("input", {
    type: "checkbox", name: pointer, value: teacher.id, checked: chosen().includes(teacher.id), onchange: (event) => {
      owner.teachers = event.target.checked ? [...chosen(), teacher.id] : chosen().filter((other) => other !== teacher.id);
      changed();
    },
  }), ` ${teacherWords(teacher)}`);
  const ready = teachers.filter((teacher) => teacher.state === "ready");
  return h("fieldset", { class: "field", "data-pointer": pointer }, h("legend", {}, "Teachers", h("span", { class: "required" }, " (required)")),
    ready.length ? ready.map(row) : h("p", {}, "None is ready. ", h("a", { href: "#/models" }, "Upload one"), "."),
    h("div", { class: "about" }, "Several are one ensemble, in the order in which you choose them."), h("p", { class: "field-error" }));
}

function teacherWords({ name, id, report }) {
  const size = report?.parameters ? `${short(report.parameters)} parameters` : "a table of soft labels";
  return [name ?? id, report?.architecture, size, report?.num_classes && `${report.num_classes} classes`].filter(Boolean).join(" · ");
}

/** The data set; the value is `owner.dataset`. */
export function datasetChoice({ datasets, owner, changed, pointer }) {
  const id = uniqueId("dataset");
  const select = h("select", { id, name: pointer, onchange: () => {
    if (select.value) owner.dataset = select.value;
    else delete owner.dataset;
    changed();
  } }, h("option", { value: "" }, "choose"), datasets.filter((dataset) => dataset.state === "ready").map((dataset) =>
    h("option", { value: dataset.id, selected: dataset.id === owner.dataset }, datasetWords(dataset))));
  return h("div", { class: "field", "data-pointer": pointer }, h("label", { for: id }, "Data set", h("span", { class: "required" }, " (required)")), select, h("p", { class: "field-error" }));
}

export function datasetWords({ name, id, report }) {
  const sizes = Object.entries(report?.splits ?? {}).filter(([, split]) => split.num_images).map(([split, { num_images }]) => `${split} ${count(num_images)}`);
  return [name ?? id, report && `${report.class_names.length} classes`, sizes.join(", ")].filter(Boolean).join(" · ");
}

