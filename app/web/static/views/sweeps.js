/** All sweeps, the newest first. */

import { get, withQuery } from "../api.js";
import { fill, h } from "../dom.js";
import { duration, percent, plural, time } from "../format.js";
import { repeat } from "../live.js";
import { LongList } from "../long_list.js";
import { badge, lineNotice } from "../parts.js";
import { ENDED } from "./jobs.js";

const PAGE_SIZE = 100;
const REFRESH_SECONDS = 3;

export async function sweepsView({ main, signal, setTitle }) {
  setTitle("Sweeps");
  const status = h("p", { class: "quiet", role: "status" });
  const list = new LongList({
    label: "Sweeps",
    load: (token) => get(withQuery("/v1/sweeps", { page_size: PAGE_SIZE, page_token: token }), { signal }),
    row: sweepRow,
    isFinished: (sweep) => ENDED.has(sweep.state),
    changed: ({ items, isEnd }) => { status.textContent = `${plural(items.length, "sweep")}${isEnd ? "" : " so far; more as you scroll"}`; },
  });
  list.signal = signal;
  await list.more();
  const head = [h("h1", { tabindex: "-1" }, "Sweeps"), status];
  const none = h("p", { class: "empty" }, "There are no sweeps yet. ", h("a", { href: "#/new-sweep" }, "Make one"), ": one spec, many jobs, one table.");
  fill(main, head, list.items.length ? list.node : none);
  list.start(signal);
  repeat(async () => {
    await list.refresh();
    if (list.items.length && !list.node.isConnected) fill(main, head, list.node);
  }, REFRESH_SECONDS, signal, lineNotice);
}

function sweepRow(sweep) {
  return h("a", { href: `#/sweeps/${sweep.id}`, class: "job-row" },
    badge(sweep.state),
    h("span", { class: "name" }, sweep.name ?? sweep.preset ?? sweep.id),
    h("span", { class: "doing" }, counted(sweep)),
    h("span", { class: "when" }, time(sweep.created_at)));
}

function counted({ counts, progress, state }) {
  const said = Object.entries(counts ?? {}).filter(([, number]) => number > 0).map(([name, number]) => `${number} ${name}`);
  if (!ENDED.has(state) && progress?.fraction > 0) said.unshift(percent(progress.fraction));
  if (!ENDED.has(state) && progress?.eta_seconds > 0) said.push(`${duration(progress.eta_seconds)} left`);
  return said.join(" · ");
}
