/** The numbers of the service under the names that tables, reports and this page share: how each is called and shown. */

import { bytes, count, decimal, duration, milliseconds, percent, short, text, times, words } from "./format.js";

const COLUMNS = {
  train_accuracy: ["Train accuracy", percent],
  val_accuracy: ["Val accuracy", percent],
  test_accuracy: ["Test accuracy", percent],
  val_accuracy_best5: ["Val accuracy, best 5 epochs", percent],
  teacher_val_accuracy: ["Teacher's val accuracy", percent],
  teacher_test_accuracy: ["Teacher's test accuracy", percent],
  val_agreement: ["Val agreement", percent],
  test_agreement: ["Test agreement", percent],
  accuracy_before: ["Accuracy before", percent],
  accuracy_after: ["Accuracy after", percent],
  val_loss: ["Val loss", decimal],
  test_loss: ["Test loss", decimal],
  size_bytes: ["Bytes", count, bytes],
  parameters: ["Parameters", count, short],
  macs: ["MACs", short],
  latency_ms: ["Latency", milliseconds],
  compression_ratio: ["Compression", times],
  speed_up: ["Speed-up", times],
  epochs: ["Epochs", decimal],
  train_macs: ["MACs trained", short],
  seconds: ["Time", duration],
  seed: ["Seed", text],
  point: ["Point", text],
  step: ["Step", text],
  iteration: ["Iteration", text],
};

/** What is plotted along an axis, and what a front may be drawn of. */
export const MEASURES = ["size_bytes", "parameters", "macs", "latency_ms"];
export const ACCURACIES = ["test_accuracy", "val_accuracy", "test_agreement", "val_agreement", "test_loss", "val_loss"];

/** {name, label, show, axis}: `show` for a cell, `axis` for a tick. Of a name that nobody listed: as it is. */
export function column(name) {
  const [label, show, axis] = COLUMNS[name] ?? [words(name), (value) => (typeof value === "number" ? decimal(value) : text(value))];
  return { name, label, show, axis: axis ?? show };
}
