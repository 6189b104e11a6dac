/** Teachers and data sets: upload a file, say what it is, read the verdict; and what is there. */

import { all, get, post, remove } from "../api.js";
import { architectureFields, datasetWords } from "../choices.js";
import { fill, h, uniqueId, update } from "../dom.js";
import { clearErrors, objectFields, showErrors } from "../form.js";
import { bytes, count, percent, plural, short, words } from "../format.js";
import { repeat } from "../live.js";
import { announce, badge, confirmed, facts, folded, lineNotice, problemBox, section, table, when } from "../parts.js";
import { navigate } from "../router.js";
import { layerTable } from "../stages.js";
import { upload } from "../transfer.js";

const REFRESH_SECONDS = 3;

export async function modelsView({ main, signal, setTitle }) {
  setTitle("Models and data");
  const [openapi, architectures, files] = await Promise.all([get("/openapi.json", { signal }), get("/v1/architectures", { signal }), all("/v1/files", { signal })]);
  const lists = h("div");
  const look = async () => {
    const [teachers, datasets] = await Promise.all([all("/v1/teachers", { signal }), all("/v1/datasets", { signal })]);
    if (!signal.aborted) update(lists, [teachers, datasets].map((rows) => rows.map((row) => [row.id, row.state])), () => [teachersOf(teachers), datasetsOf(datasets)]);
  };
  await look();
  fill(main, h("h1", { tabindex: "-1" }, "Models and data"), new Uploading({ openapi, architectures: architectures.items, files, registered: look, signal }).node, lists);
  repeat(look, REFRESH_SECONDS, signal, lineNotice);
}

/** A file on its way, and then the form that says what it is. */
class Uploading {
  constructor({ openapi, architectures, files, registered, signal }) {
    Object.assign(this, { openapi, architectures, registered, signal });
    this.line = new AbortController();
    signal.addEventListener("abort", () => this.line.abort());
    const id = uniqueId("upload");
    this.input = h("input", { id, name: "upload", type: "file", onchange: () => this.begin(this.input.files[0]) });
    this.bar = h("progress", { max: "1", value: 0, "aria-label": "Upload", hidden: true });
    this.words = h("span", { class: "quiet" });
    this.button = h("button", { type: "button", hidden: true, onclick: () => this.toggle() }, "Pause");
    this.form = h("div");
    const known = h("select", { id: `${id}-known`, name: "known file", onchange: () => known.value && this.register(known.value) },
      h("option", { value: "" }, "choose"), files.map((file) => h("option", { value: file.name }, `${file.name} (${bytes(file.size_bytes)})`)));
    this.node = h("section", { class: "upload" }, h("h2", {}, "Upload"),
      h("p", { class: "words" }, "A checkpoint (.pt, .bin, .safetensors …) or photos (.zip or .tar, a folder for each class)."),
      h("div", { class: "drop", ondragover: (event) => event.preventDefault(), ondrop: (event) => { event.preventDefault(); this.begin(event.dataTransfer.files[0]); } },
        h("label", { for: id }, "File, chosen or dropped here"), this.input),
      h("div", { class: "row" }, this.bar, this.words, this.button),
      files.length > 0 && h("p", {}, h("label", { for: `${id}-known` }, "or one that is there already "), known),
      this.form);
  }

  begin(file) {
    if (!file) return;
    this.line.abort();
    this.file = file;
    fill(this.form);
    this.go();
  }

  toggle() {
    if (this.line.signal.aborted) this.go();
    else {
      this.line.abort();
      this.button.textContent = "Go on";
      this.words.textContent += ", paused";
    }
  }

  async go() {
    const { file } = this;
    const line = new AbortController();
    this.line = line;
    this.bar.hidden = this.button.hidden = false;
    this.button.textContent = "Pause";
    const say = (sentence) => { this.words.textContent = sentence; };
    try {
      const name = await upload(file, {
        signal: line.signal,
        progress: (sent) => {
          this.bar.value = file.size ? sent / file.size : 0;
          say(`${file.name}: ${bytes(sent)} of ${bytes(file.size)} (${percent(file.size ? sent / file.size : 0)})`);
        },
        waiting: (problem) => problem && say(`${problem.message} Trying again.`),
      });
      if (name === null || line !== this.line) return;
      this.button.hidden = true;
      announce(`${file.name} has arrived.`);
      this.register(name);
    } catch (problem) {
      if (line !== this.line) return;
      this.button.textContent = "Try again";
      line.abort();
      fill(this.form, problemBox(problem));
    }
  }

  /** Ask what the file is. Archives are taken for photos until somebody says otherwise. */
  register(file) {
    const kinds = { teacher: ["TeacherSpec", "/v1/teachers"], dataset: ["DatasetSpec", "/v1/datasets"] };
    const first = /\.(zip|tar|tgz|tar\.\w+)$/i.test(file) ? "dataset" : "teacher";
    const place = h("div");
    const choice = (kind, label) => h("label", { class: "inline" }, h("input", { type: "radio", name: "kind of file", value: kind, checked: kind === first, onchange: () => show(kind) }), ` ${label}`);
    const show = (kind) => fill(place, this.registration(file, ...kinds[kind]));
    fill(this.form, h("fieldset", { class: "field" }, h("legend", {}, `${file} is`), choice("teacher", "a trained network (teacher)"), choice("dataset", "photos (data set)")), place);
    show(first);
  }

  registration(file, schemaName, path) {
    const spec = { file };
    const [summary, form, verdict] = [h("div"), h("div"), h("div", { role: "status" })];
    const noop = () => {};
    const special = { architecture: ({ owner, pointer }) => {
      const value = { ...owner.architecture };
      const settle = () => { if (value.architecture) owner.architecture = value; else delete owner.architecture; };
      return h("fieldset", { class: "field", "data-pointer": pointer }, h("legend", {}, "Architecture"),
        architectureFields({ architectures: this.architectures, owner: value, pointer, changed: settle, empty: "the file brings its own graph" }), h("p", { class: "field-error" }));
    }, class_names: (place) => namesField(place) };
    fill(form, objectFields({ schema: this.openapi.components.schemas[schemaName], root: this.openapi, value: spec, pointer: "", changed: noop, skip: ["file", "folder"], special }));
    const send = async (event) => {
      const button = event.currentTarget;
      clearErrors(form, summary);
      fill(verdict, h("p", {}, "A worker looks at it …"));
      button.disabled = true;
      try {
        const made = await this.settled(await post(path, spec));
        fill(verdict, made.error ? problemBox(made.error) : verdictOf(made));
        announce(`${made.name ?? made.id} is ${made.state}.`);
      } catch (problem) {
        fill(verdict);
        showErrors(form, summary, problem);
      } finally {
        button.disabled = false;
        this.registered();
      }
    };
    return h("form", { novalidate: true, onsubmit: (event) => event.preventDefault() }, summary, form,
      h("button", { type: "button", class: "primary", onclick: send }, "Register"), verdict);
  }

  /** The row once somebody has looked at it. */
  async settled(made) {
    let row = made;
    await repeat(async () => {
      if (row.state !== "inspecting") return "ended";
      row = await get(row.links.self);
      return row.state === "inspecting" ? "goes on" : "ended";
    }, 1, this.signal);
    return row;
  }
}

/** Class names, a line each: they may hold commas. */
function namesField({ owner, name, pointer, schema }) {
  const id = uniqueId("names");
  const area = h("textarea", { id, name: pointer, rows: "3", spellcheck: "false", "aria-describedby": `${id}-about`, oninput: () => {
    const names = area.value.split("\n").map((line) => line.trim()).filter(Boolean);
    if (names.length) owner[name] = names;
    else delete owner[name];
  } });
  return h("div", { class: "field", "data-pointer": pointer }, h("label", { for: id }, words(name)), area,
    h("div", { class: "about", id: `${id}-about` }, schema.description ?? "A line each, in the order of the network's outputs. Empty: the file carries them."), h("p", { class: "field-error" }));
}

function verdictOf(made) {
  const link = h("a", { href: `#/models/${made.id}` }, made.name ?? made.id);
  const warnings = made.report?.warnings ?? [];
  return h("div", { class: "callout" }, h("p", {}, badge(made.state), " ", link),
    made.id.startsWith("tch_") ? teacherFacts(made) : h("p", {}, datasetWords(made)),
    warnings.length > 0 && h("ul", {}, warnings.map((warning) => h("li", {}, warning))),
    h("p", {}, h("a", { href: `#/new?${made.id.startsWith("tch_") ? "teacher" : "dataset"}=${made.id}` }, "Make a job with it")));
}

function teachersOf(teachers) {
  if (!teachers.length) return section("Teachers", h("p", { class: "empty" }, "None yet."));
  return section("Teachers", table("Teachers", [
    { label: "Name", cell: (row) => h("a", { href: `#/models/${row.id}` }, row.name ?? row.id) },
    { label: "State", cell: (row) => badge(row.state) },
    { label: "Architecture", cell: (row) => row.report?.architecture ?? (row.report?.soft_labels ? "a table of soft labels" : row.report ? "its own graph" : "–") },
    { label: "Parameters", number: true, cell: (row) => count(row.report?.parameters) },
    { label: "Bytes", number: true, cell: (row) => count(row.file_size_bytes) },
    { label: "Since", cell: (row) => when(row.created_at) },
  ], teachers));
}

function datasetsOf(datasets) {
  if (!datasets.length) return section("Data sets", h("p", { class: "empty" }, "None yet."));
  return section("Data sets", table("Data sets", [
    { label: "Name", cell: (row) => h("a", { href: `#/models/${row.id}` }, row.name ?? row.id) },
    { label: "State", cell: (row) => badge(row.state) },
    { label: "Classes", number: true, cell: (row) => count(row.report?.class_names?.length) },
    ...["train", "val", "test", "unlabeled"].map((split) => ({ label: split, number: true, cell: (row) => count(row.report?.splits?.[split]?.num_images) })),
    { label: "Since", cell: (row) => when(row.created_at) },
  ], datasets));
}

function teacherFacts({ report, file_size_bytes }) {
  return facts([["Architecture", report?.architecture], ["Parameters", report && count(report.parameters)], ["MACs", report && short(report.macs)],
    ["Input", report?.input_shape?.join(" × ")], ["Classes", report?.num_classes], ["Bytes", count(file_size_bytes)]]);
}

export const teacherView = (context) => resourceView(context, "teachers", (row) => [
  teacherFacts(row),
  row.report?.class_names && h("p", {}, h("strong", {}, "Classes: "), row.report.class_names.join(", ")),
  row.report?.layers?.length > 0 && section("Layers", h("p", { class: "words" }, plural(row.report.layers.length, "layer")), layerTable(row.report.layers)),
]);

export const datasetView = (context) => resourceView(context, "datasets", (row) => {
  const splits = Object.entries(row.report?.splits ?? {}).filter(([, split]) => split.num_images);
  return [
    splits.length > 0 && section("Splits", table("Images by class and split", [
      { label: "Class", cell: ([, name]) => name },
      ...splits.map(([split, found]) => ({ label: split, number: true, cell: ([, name]) => count(found.per_class?.[name]) })),
    ], row.report.class_names.map((name, index) => [index, name]))),
    h("p", { class: "quiet" }, splits.map(([split, { num_images }]) => `${split} ${count(num_images)}`).join(", ")),
  ];
});

/** A teacher or a data set by itself. */
async function resourceView({ main, params: [id], signal, setTitle }, kind, body) {
  const path = `/v1/${kind}/${id}`;
  let row = await get(path, { signal });
  setTitle(row.name ?? id);
  const place = h("div");
  const show = () => update(place, row, () => [
    h("p", { class: "row" }, badge(row.state)),
    h("div", { class: "row actions" },
      row.state === "ready" && h("a", { href: `#/new?${kind === "teachers" ? "teacher" : "dataset"}=${id}` }, "Make a job with it"),
      confirmed("Delete", "Delete for good?", async () => { await remove(path); navigate("#/models"); }, { class: "quiet" })),
    facts([["Id", h("code", {}, id)], ["Registered", when(row.created_at)]]),
    row.error && problemBox(row.error),
    row.report?.warnings?.length > 0 && h("div", { class: "callout warn" }, h("h2", {}, "Warnings"), h("ul", {}, row.report.warnings.map((warning) => h("li", {}, warning)))),
    body(row),
    h("section", {}, h("h2", {}, "Spec"), folded("As it was registered", false, h("pre", { tabindex: "0", "aria-label": "Spec" }, JSON.stringify(row.spec, null, 2)))),
  ]);
  fill(main, h("p", { class: "trail" }, h("a", { href: "#/models" }, "Models and data")), h("h1", { tabindex: "-1" }, row.name ?? id), place);
  show();
  repeat(async () => {
    if (row.state !== "inspecting") return "ended";
    row = await get(path, { signal });
    show();
    return "goes on";
  }, 1, signal, lineNotice);
}

