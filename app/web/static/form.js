/**
 * Forms from JSON schemas. A form edits a plain object: a field that is left empty is not in it, and then the service's own default
 * counts, which the empty field shows. Every field knows its JSON pointer, so that the service's errors appear where they belong.
 */

import { fill, h, uniqueId } from "./dom.js";
import { words } from "./format.js";
import { asText, escaped, kindOf, limits, resolved, shownDefault, typed, withoutNull } from "./schema.js";

// What most people set, in this order; the rest waits behind "More settings".
const PROMINENT = [
  "file", "folder", "architecture", "student", "class_names", "preprocessing", "layout", "recipe", "epochs", "alpha", "temperature", "loss",
  "learning_rate", "augmentation", "splits", "transfer_splits", "scheme", "bits", "granularity", "criterion", "keep_rate", "units", "target",
  "iterations", "recover", "pattern", "kind", "rank", "groups", "val_fraction", "test_fraction", "declared_accuracy", "budget", "bytes",
  "image_size", "width", "name", "seeds", "max_bytes", "max_accuracy_drop",
];

/**
 * The fields of an object. `skip`: names that somebody else shows; `behind`: those that wait behind "More settings" until they are
 * set; `special`: {name: (place) => node} for fields with a face of their own. `changed()` is called after every edit.
 */
export function objectFields({ schema, root, value, pointer, changed, skip = [], special = {}, behind = [] }) {
  const names = Object.keys(schema.properties).filter((name) => !skip.includes(name) && !("const" in resolved(schema.properties[name], root)));
  const rank = (name) => { const at = PROMINENT.indexOf(name); return at < 0 ? PROMINENT.length : at; };
  names.sort((a, b) => rank(a) - rank(b));
  const required = new Set(schema.required ?? []);
  const field = (name) => {
    const place = { name, schema: schema.properties[name], root, owner: value, pointer: `${pointer}/${escaped(name)}`, changed, isRequired: required.has(name) };
    return (special[name] ?? fieldFor)(place);
  };
  const isFirst = (name) => required.has(name) || (rank(name) < PROMINENT.length && !behind.includes(name)) || differs(value[name], resolved(schema.properties[name], root).default);
  const [first, rest] = [names.filter(isFirst), names.filter((name) => !isFirst(name))];
  return [
    h("div", { class: "fields" }, first.map(field)),
    rest.length > 0 && h("details", { class: "more" }, h("summary", {}, `More settings (${rest.length})`), h("div", { class: "fields" }, rest.map(field))),
  ];
}

const differs = (value, otherwise) => value !== undefined && JSON.stringify(value) !== JSON.stringify(otherwise ?? null);

function put(place, value) {
  if (value === undefined) delete place.owner[place.name];
  else place.owner[place.name] = value;
  place.changed();
}

/** A field with its label, its words and its place for an error. */
export function fieldFor(place) {
  const { schema: found, nullable } = withoutNull(place.schema, place.root);
  // One value or none is a choice like any other.
  const schema = "const" in found ? { ...found, enum: [found.const] } : found;
  const kind = schema.enum ? "choice" : kindOf(schema, place.root);
  const make = { choice: choiceField, boolean: booleanField, choices: choicesField, object: objectField, objects: objectsField, map: mapField }[kind] ?? textField;
  return make({ ...place, whole: place.schema, schema, nullable, kind });
}

/** Label, control, description, error: one below the other. */
function labelled(place, control, { note = "" } = {}) {
  const id = uniqueId("field");
  const about = [...descriptionOf(place)].concat(note || []);
  control.id = id;
  control.name = place.pointer;
  control.setAttribute("aria-describedby", `${id}-about ${id}-error`);
  return h("div", { class: "field", "data-pointer": place.pointer },
    h("label", { for: id }, labelOf(place)), control,
    h("div", { class: "about", id: `${id}-about` }, about),
    h("p", { class: "field-error", id: `${id}-error` }));
}

const labelOf = (place) => [words(place.name), place.isRequired && h("span", { class: "required" }, " (required)")];

/** What a field means, shortened where it is long, and its limits. */
function descriptionOf({ schema, whole, kind }) {
  const text = (whole.description ?? schema.description ?? "").replaceAll("`", "");
  const [lead, ...more] = text.split("\n\n");
  const parts = [];
  // What a control shows by itself is not said again.
  const standard = kind === "choice" || kind === "object" || kind === "choices" ? "" : shownDefault(whole);
  const about = [limits(schema), standard && standard !== "none" && `default ${standard}`].filter(Boolean).join("; ");
  if (about) parts.push(h("span", { class: "limits" }, about));
  if (lead) parts.push(h("span", {}, lead.replaceAll("\n", " ")));
  if (more.length) parts.push(h("details", {}, h("summary", {}, "more"), h("span", { class: "pre" }, more.join("\n\n"))));
  return parts;
}

function textField(place) {
  const { schema, root, kind, owner, name } = place;
  const input = h("input", {
    type: "text", value: asText(owner[name], kind), placeholder: shownDefault(place.whole), spellcheck: "false", autocomplete: "off",
    inputmode: kind === "number" ? "decimal" : null, required: place.isRequired,
    oninput: () => put(place, input.value.trim() === "" ? undefined : typed(input.value.trim(), schema, root)),
  });
  return labelled(place, input, { note: kind === "list" ? "Several: with commas between." : "" });
}

function choiceField(place) {
  const { schema, owner, name } = place;
  const standard = shownDefault(place.whole);
  const options = schema.enum.map((value) => h("option", { value: JSON.stringify(value), selected: value === owner[name] }, String(value)));
  const select = h("select", { onchange: () => put(place, select.value === "" ? undefined : JSON.parse(select.value)) },
    h("option", { value: "" }, standard ? `default: ${standard}` : "choose"), options);
  return labelled(place, select);
}

function booleanField(place) {
  const { owner, name, whole } = place;
  const input = h("input", {
    type: "checkbox", checked: owner[name] ?? whole.default ?? false,
    onchange: () => put(place, input.checked === (whole.default ?? false) ? undefined : input.checked),
  });
  return labelled(place, input);
}

function choicesField(place) {
  const { schema, root, owner, name, whole } = place;
  const chosen = new Set(owner[name] ?? whole.default ?? []);
  const boxes = withoutNull(schema.items, root).schema.enum.map((value) => h("label", { class: "inline" },
    h("input", { type: "checkbox", name: place.pointer, checked: chosen.has(value), onchange: (event) => {
      chosen[event.target.checked ? "add" : "delete"](value);
      const next = [...chosen];
      put(place, JSON.stringify(next) === JSON.stringify(whole.default) ? undefined : next);
    } }), ` ${value}`));
  return group(place, boxes);
}

/** Several controls under one name. */
function group(place, ...children) {
  const id = uniqueId("group");
  return h("fieldset", { class: "field", "data-pointer": place.pointer, "aria-describedby": `${id}-error` },
    h("legend", {}, labelOf(place)), h("div", { class: "about" }, descriptionOf(place)), ...children, h("p", { class: "field-error", id: `${id}-error` }));
}

/** An object in the object; one that may be null has a switch. */
function objectField(place) {
  const { schema, root, owner, name, nullable, isRequired, pointer, changed } = place;
  const inner = h("div");
  const show = () => {
    const value = owner[name];
    fill(inner, value && objectFields({ schema, root, value, pointer, changed: () => place.changed() }));
  };
  if (!nullable && owner[name] === undefined) {
    // An empty object is left out again: the service has its own.
    const value = {};
    const settle = () => { put(place, Object.keys(value).length || isRequired ? value : undefined); };
    fill(inner, objectFields({ schema, root, value, pointer, changed: settle }));
    return group(place, inner);
  }
  show();
  if (!nullable) return group(place, inner);
  const use = h("input", { type: "checkbox", name: pointer, checked: Boolean(owner[name]), onchange: () => {
    owner[name] = use.checked ? {} : undefined;
    if (!use.checked) delete owner[name];
    show();
    changed();
  } });
  return group(place, h("label", { class: "inline" }, use, ` Use ${words(name).toLowerCase()}`), inner);
}

/** Objects in a row, added and removed. */
function objectsField(place) {
  const { schema, root, owner, name, pointer, changed } = place;
  const items = withoutNull(schema.items, root).schema;
  const rows = h("div");
  const show = () => fill(rows, (owner[name] ?? []).map((value, index) => h("div", { class: "row-card" },
    objectFields({ schema: items, root, value, pointer: `${pointer}/${index}`, changed }),
    h("button", { type: "button", class: "small", "aria-label": `Remove ${words(name).toLowerCase()} ${index + 1}`, onclick: () => { owner[name].splice(index, 1); if (!owner[name].length) delete owner[name]; show(); changed(); } }, "Remove"))));
  show();
  return group(place, rows, h("button", { type: "button", class: "small", onclick: () => { (owner[name] ??= []).push({}); show(); changed(); } }, `Add one`));
}

/** Names and values, a line each. */
function mapField(place) {
  const { schema, root, owner, name } = place;
  const values = Object.values(schema.patternProperties ?? {})[0] ?? (typeof schema.additionalProperties === "object" ? schema.additionalProperties : {});
  const text = Object.entries(owner[name] ?? {}).map(([key, value]) => `${key}=${asText(value)}`).join("\n");
  const isText = kindOf(withoutNull(values, root).schema, root) === "string";
  const area = h("textarea", { rows: "2", spellcheck: "false", oninput: () => {
    const pairs = area.value.split("\n").filter((line) => line.trim() !== "").map((line) => {
      const [key, ...value] = line.split("=");
      const whole = value.join("=");
      return [key.trim(), isText ? whole : typed(whole.trim(), {}, root)];
    });
    put(place, pairs.length ? Object.fromEntries(pairs) : undefined);
  } }, text);
  return labelled(place, area, { note: "A line each: name=value" });
}

/** Show the service's errors at their fields, and all of them at the top, each leading to its field. */
export function showErrors(form, summary, problem) {
  clearErrors(form, summary);
  const lost = [];
  const links = (problem.errors ?? []).map((error) => {
    const field = fieldOf(form, error.pointer);
    const sentence = [error.detail, error.hint].filter(Boolean).join(" ");
    if (!field) {
      lost.push(error);
      return h("li", {}, h("code", {}, error.pointer ?? error.parameter ?? ""), ` ${sentence}`);
    }
    const place = field.querySelector(":scope > .field-error");
    if (place) place.textContent = `${place.textContent} ${sentence}`.trim();
    const control = field.querySelector("input, select, textarea, button");
    control?.setAttribute("aria-invalid", "true");
    return h("li", {}, h("button", { type: "button", class: "link", onclick: () => reveal(control) }, error.pointer), ` ${sentence}`);
  });
  fill(summary, h("div", { class: "problem", role: "alert", tabindex: "-1" },
    h("p", {}, h("strong", {}, problem.code === "INVALID_SPEC" ? "This does not fit yet." : words((problem.code ?? "trouble").toLowerCase())), " ", h("code", {}, problem.code ?? "")),
    links.length ? h("ul", {}, links) : h("p", {}, problem.message)));
  summary.firstElementChild.focus();
}

export function clearErrors(form, summary) {
  fill(summary);
  for (const place of form.querySelectorAll(".field-error")) place.textContent = "";
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
}

/** The field at a pointer, or the nearest one around it. */
function fieldOf(form, pointer) {
  for (let path = pointer ?? ""; path; path = path.slice(0, path.lastIndexOf("/"))) {
    const field = [...form.querySelectorAll("[data-pointer]")].find((element) => element.dataset.pointer === path);
    if (field) return field;
  }
  return null;
}

function reveal(control) {
  for (let box = control?.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  control?.focus();
}
