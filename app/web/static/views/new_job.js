/** A form that builds a job, checks it without storing anything, and sends it. */

import { get } from "../api.js";
import { fill, h } from "../dom.js";
import { bytes, count, short } from "../format.js";
import { beginning, ingredients, JobForm, tidied } from "../job_form.js";
import { table } from "../parts.js";
import { navigate } from "../router.js";
import { sendingPanel } from "../sending.js";

export async function newJobView({ main, query, signal, setTitle }) {
  setTitle("New job");
  const from = query.get("from");
  const [known, like] = await Promise.all([ingredients(signal), from ? get(`/v1/jobs/${from}`, { signal }) : null]);
  let spec = like ? structuredClone(like.spec) : beginning(known, query);
  const place = h("div");
  const panel = sendingPanel({
    path: "/v1/jobs", label: "Submit", spec: () => tidied(spec), plan: planOf, form: () => place,
    sent: (job) => navigate(`#/jobs/${job.id}`),
    replace: (next) => { spec = next; build(); },
  });
  const build = () => {
    const form = new JobForm({ known, spec, pointer: "", changed: panel.refresh });
    fill(place, form.node);
    panel.refresh();
  };
  build();
  fill(main, h("h1", { tabindex: "-1" }, "New job"),
    h("p", { class: "words" }, "Fields that are left empty take the default that they show. ", like && ["It begins like ", h("a", { href: `#/jobs/${from}` }, like.name ?? from), "."]),
    h("form", { class: "with-aside", novalidate: true, onsubmit: (event) => event.preventDefault() }, place, panel.node));
}

/** What the service says it would do. */
function planOf(plan) {
  const rows = plan.estimates.map((estimate, index) => ({ ...estimate, step: index + 1 }));
  return [
    table("Estimates after each step", [
      { label: "Step", cell: (row) => `${row.step}. ${row.method}` },
      { label: "Parameters", number: true, cell: (row) => count(row.parameters) },
      { label: "MACs", number: true, cell: (row) => short(row.macs) },
      { label: "Weights", number: true, cell: (row) => bytes(row.weight_bytes) },
      { label: "MACs it costs", number: true, cell: (row) => short(row.job_macs) },
    ], rows),
    h("p", {}, `All steps and seeds: ${plan.estimated_macs === null ? "only doing it tells" : `${short(plan.estimated_macs)} multiply-adds`}.`),
    plan.warnings.length > 0 && h("div", { class: "callout warn" }, h("h3", {}, "Warnings"), h("ul", {}, plan.warnings.map((warning) => h("li", {}, warning)))),
  ];
}
