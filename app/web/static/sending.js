/** Beside a form: check it, send it, and see the same as curl and as JSON that can be edited. */

import { post } from "./api.js";
import { curlOf } from "./curl.js";
import { fill, h } from "./dom.js";
import { clearErrors, showErrors } from "./form.js";
import { announce, copyButton } from "./parts.js";

/**
 * `path` takes the JSON of `spec()`; `plan(answer)` shows what `validate_only` answered, `sent(answer)` goes on after it was stored;
 * `replace(spec)` shows a spec that was edited as JSON; `form()` is where errors belong.
 */
export function sendingPanel({ path, spec, plan, sent, replace, form, label }) {
  const summary = h("div");
  const answer = h("div", { role: "status" });
  const command = h("pre", { tabindex: "0", "aria-label": "The same by curl" });
  const area = h("textarea", { id: "as-json", rows: "16", spellcheck: "false" });
  const complaint = h("p", { class: "field-error", id: "as-json-error" });
  area.setAttribute("aria-describedby", complaint.id);
  // The same key for the same body: pressing twice, or again after a lost answer, makes one.
  let once = { body: null, key: null };

  const run = async (button, work) => {
    clearErrors(form(), summary);
    button.disabled = true;
    try {
      await work();
    } catch (problem) {
      fill(answer);
      showErrors(form(), summary, problem);
    } finally {
      button.disabled = false;
    }
  };
  const check = (event) => run(event.currentTarget, async () => {
    fill(answer, h("h2", {}, "Plan"), plan(await post(`${path}?validate_only=true`, spec())));
    announce("It fits: the plan is shown.");
  });
  const send = (event) => run(event.currentTarget, async () => {
    const body = JSON.stringify(spec());
    if (once.body !== body) once = { body, key: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` };
    sent(await post(path, spec(), { headers: { "Idempotency-Key": once.key } }));
  });
  const apply = () => {
    let value;
    try {
      value = JSON.parse(area.value);
    } catch (error) {
      complaint.textContent = `This is not JSON: ${error.message}`;
      return;
    }
    complaint.textContent = "";
    replace(value);
    announce("The form shows the JSON.");
  };
  const node = h("aside", { class: "sending", "aria-label": "Check and send" },
    summary,
    h("div", { class: "row" }, h("button", { type: "button", onclick: check }, "Check"), h("button", { type: "button", class: "primary", onclick: send }, label)),
    answer,
    h("details", { open: true }, h("summary", {}, "The same by curl"), command, copyButton(() => command.textContent, "Copy the curl")),
    h("details", {}, h("summary", {}, "Edit as JSON"), h("label", { for: "as-json" }, "Spec"), area, complaint, h("button", { type: "button", onclick: apply }, "Use this JSON")));
  return {
    node,
    refresh() {
      command.textContent = curlOf(path, spec());
      if (document.activeElement !== area) area.value = JSON.stringify(spec(), null, 2);
    },
  };
}
