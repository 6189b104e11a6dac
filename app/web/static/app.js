/** Where the page begins: routes, the question for a key, and what stands below every view. */

import { key, whenUnauthenticated } from "./api.js";
import { fill, h } from "./dom.js";
import { start } from "./router.js";
import { jobView } from "./views/job.js";
import { jobsView } from "./views/jobs.js";
import { datasetView, modelsView, teacherView } from "./views/models.js";
import { newJobView } from "./views/new_job.js";
import { newSweepView } from "./views/new_sweep.js";
import { serviceView } from "./views/service.js";
import { sweepView } from "./views/sweep.js";
import { sweepsView } from "./views/sweeps.js";

const ROUTES = [
  [/^\/jobs$/, jobsView],
  [/^\/jobs\/((?:job|ins)_[0-9a-z]+)$/, jobView],
  [/^\/sweeps$/, sweepsView],
  [/^\/sweeps\/(swp_[0-9a-z]+)$/, sweepView],
  [/^\/new$/, newJobView],
  [/^\/new-sweep$/, newSweepView],
  [/^\/models$/, modelsView],
  [/^\/models\/(tch_[0-9a-z]+)$/, teacherView],
  [/^\/models\/(dst_[0-9a-z]+)$/, datasetView],
  [/^\/service$/, serviceView],
];

/** A dialog that asks for a key; resolves to whether one was given. */
function askForKey(problem) {
  return new Promise((resolve) => {
    const field = h("input", { id: "key", name: "key", type: "password", autocomplete: "off", required: true });
    const dialog = h("dialog", { "aria-labelledby": "key-title" },
      h("form", { method: "dialog" },
        h("h2", { id: "key-title" }, "This service needs a key"),
        h("p", {}, problem.message),
        h("label", { for: "key" }, "Key"), field,
        h("p", { class: "quiet" }, "It is kept in this tab, and forgotten when you close it."),
        h("div", { class: "row" },
          h("button", { class: "primary", value: "use" }, "Use it"),
          h("button", { value: "cancel", formnovalidate: true }, "Cancel"))));
    dialog.addEventListener("close", () => {
      const isGiven = dialog.returnValue === "use" && field.value.trim() !== "";
      if (isGiven) key.set(field.value.trim());
      dialog.remove();
      showKeyState();
      resolve(isGiven);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

function showKeyState() {
  const place = document.getElementById("key-state");
  if (!key.get()) {
    fill(place, "No key in use");
    return;
  }
  const forget = () => { key.forget(); location.reload(); };
  fill(place, "A key is in use: ", h("button", { type: "button", class: "link", onclick: forget }, "forget it"));
}

// The skip link's target is a place of this page, and the address says which view is shown.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});

whenUnauthenticated(askForKey);
showKeyState();
start(document.getElementById("main"), ROUTES);
