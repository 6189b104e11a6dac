/** Things that go on while somebody looks: asked again and again, and left alone while the tab is hidden. */

import { events } from "./api.js";

const PAUSES_SECONDS = [1, 2, 5, 10];

/** Resolves after `seconds`, or when the signal aborts. */
export function pause(seconds, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, 1000 * seconds);
    signal?.addEventListener("abort", done);
  });
}

function whenSeen(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      document.removeEventListener("visibilitychange", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    document.addEventListener("visibilitychange", done);
    signal.addEventListener("abort", done);
  });
}

/**
 * Call `look` until it answers "ended" or the signal aborts, `seconds` apart. `notice(problem)` hears of a problem, and
 * null when it is over; after one the pauses grow.
 */
export async function repeat(look, seconds, signal, notice = () => {}) {
  let failures = 0;
  while (!signal.aborted) {
    await whenSeen(signal);
    if (signal.aborted) return;
    try {
      if ((await look()) === "ended") return;
      if (failures) notice(null);
      failures = 0;
    } catch (problem) {
      if (signal.aborted) return;
      notice(problem);
      if (problem.status >= 400 && problem.status < 500 && problem.status !== 429) return;
      failures += 1;
    }
    await pause(failures ? PAUSES_SECONDS[Math.min(failures, PAUSES_SECONDS.length) - 1] : seconds, signal);
  }
}


/**
 * Follow a job's events from `after` on, over broken lines and hidden tabs. Each goes to `take`; `isOver` is asked when a
 * stream has ended: a proxy may cut one that has more to say.
 */
export async function follow(jobId, after, signal, { take, isOver, notice }) {
  let seen = after;
  const look = async () => {
    // A browser has six lines to a host: a tab that nobody sees gives its own back.
    const line = new AbortController();
    const close = () => line.abort();
    const hide = () => document.hidden && line.abort();
    signal.addEventListener("abort", close, { once: true });
    document.addEventListener("visibilitychange", hide);
    try {
      for await (const event of events(jobId, seen, line.signal)) {
        seen = event.seq;
        take(event);
      }
      return (await isOver()) ? "ended" : "cut";
    } catch (error) {
      if (error.name === "AbortError") return "hidden";
      throw error;
    } finally {
      signal.removeEventListener("abort", close);
      document.removeEventListener("visibilitychange", hide);
    }
  };
  await repeat(look, 1, signal, notice);
}

/** A function that runs `work` soon, and at most once in `seconds`, however often it is called; `notice` hears of a problem. */
export function throttled(work, seconds, signal, notice) {
  let waiting = false;
  let last = -Infinity;
  return () => {
    if (waiting || signal.aborted) return;
    waiting = true;
    const rest = Math.max(0, 1000 * seconds - (performance.now() - last));
    setTimeout(() => {
      waiting = false;
      last = performance.now();
      if (!signal.aborted) Promise.resolve(work()).catch((problem) => signal.aborted || notice(problem));
    }, rest);
  };
}
