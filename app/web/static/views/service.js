/** Who works for the service, and how much waits. */

import { get } from "../api.js";
import { fill, h, update } from "../dom.js";
import { bytes, count, duration } from "../format.js";
import { repeat } from "../live.js";
import { lineNotice, section, table, when } from "../parts.js";

const REFRESH_SECONDS = 3;

export async function serviceView({ main, signal, setTitle }) {
  setTitle("Workers");
  const place = h("div");
  const look = async () => {
    const [workers, queues] = await Promise.all([get("/v1/workers", { signal }), get("/v1/queues", { signal })]);
    if (signal.aborted) return;
    // `seen_at` changes with every look, and shows only whether somebody is still there.
    update(place, [workers.items.map(({ seen_at, ...worker }) => worker), queues.items], () => [queuesOf(queues.items), workersOf(workers.items)]);
  };
  await look();
  fill(main, h("h1", { tabindex: "-1" }, "Workers and queues"), place);
  repeat(look, REFRESH_SECONDS, signal, lineNotice);
}

function queuesOf(queues) {
  return section("Queues", table("Queues", [
    { label: "Queue", cell: (queue) => queue.name },
    { label: "Waiting", number: true, cell: (queue) => count(queue.depth) },
    { label: "Running", number: true, cell: (queue) => count(queue.running) },
    { label: "The oldest waits", number: true, cell: (queue) => duration(queue.oldest_wait_seconds === null ? null : Math.round(queue.oldest_wait_seconds)) },
    { label: "Workers", number: true, cell: (queue) => count(queue.workers) },
  ], queues));
}

function workersOf(workers) {
  if (!workers.length) return section("Workers", h("p", {}, "No worker has reported lately: jobs wait. ", h("code", {}, "fewbytes worker"), " starts one."));
  return section("Workers", table("Workers", [
    { label: "Worker", cell: (worker) => worker.id },
    { label: "Takes", cell: (worker) => worker.queues.join(", ") },
    { label: "Device", cell: (worker) => worker.device },
    { label: "Memory", number: true, cell: (worker) => bytes(worker.memory_bytes) },
    { label: "Since", cell: (worker) => when(worker.started_at) },
    { label: "Now", cell: (worker) => worker.trouble ?? (worker.job_id ? h("a", { href: `#/jobs/${worker.job_id}` }, worker.job_id) : "free, or with somebody else's job") },
  ], workers));
}
