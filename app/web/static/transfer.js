/** Uploads that go on after a break: the service says how much has arrived, and the rest is sent. */

import { ApiProblem, authorization, post, request } from "./api.js";
import { pause } from "./live.js";

const CHUNK_BYTES = 8 << 20; // small enough that a pause is quick, large enough that requests cost nothing
const PAUSES_SECONDS = [1, 2, 4, 8, 15];
const REMEMBERED = "fewbytes.uploads";

/** The unfinished upload of this very file, if this tab began one. */
function remembered(file) {
  return JSON.parse(sessionStorage.getItem(REMEMBERED) ?? "{}")[nameOf(file)] ?? null;
}

function rememberUpload(file, id) {
  const known = JSON.parse(sessionStorage.getItem(REMEMBERED) ?? "{}");
  if (id) known[nameOf(file)] = id;
  else delete known[nameOf(file)];
  sessionStorage.setItem(REMEMBERED, JSON.stringify(known));
}

const nameOf = (file) => `${file.name}|${file.size}|${file.lastModified}`;

/** A name that the service takes. */
export function storableName(name) {
  return name.replace(/[^A-Za-z0-9._-]/g, "_").replace(/^[^A-Za-z0-9]+/, "").slice(-200) || "file";
}

/**
 * Send a file, in pieces; resolves to the name it has there. `progress(sent)` counts bytes; the signal pauses: another call with the
 * same file goes on. `waiting(problem)` hears why it waits, and null when it goes on.
 */
export async function upload(file, { progress, waiting, signal }) {
  let { id, offset } = await begun(file);
  let failures = 0;
  progress(offset);
  while (offset < file.size) {
    if (signal.aborted) return null;
    try {
      await sendPiece(id, file, offset, (sent) => progress(offset + sent), signal);
      offset = Math.min(file.size, offset + CHUNK_BYTES);
      if (failures) waiting(null);
      failures = 0;
    } catch (problem) {
      if (signal.aborted) return null;
      if (!problem.retryable || failures >= PAUSES_SECONDS.length) throw problem;
      waiting(problem);
      await pause(PAUSES_SECONDS[failures], signal);
      failures += 1;
      offset = (await offsetOf(id)) ?? offset;
    }
    progress(offset);
  }
  rememberUpload(file, null);
  return storableName(file.name);
}

async function begun(file) {
  const id = remembered(file);
  if (id) {
    const offset = await offsetOf(id).catch((problem) => { if (problem.status !== 404) throw problem; return null; });
    if (offset !== null) return { id, offset };
  }
  const made = await post("/v1/uploads", { name: storableName(file.name), size_bytes: file.size });
  rememberUpload(file, made.id);
  return { id: made.id, offset: 0 };
}

/** How much has arrived; null when there was no answer. */
async function offsetOf(id) {
  try {
    return Number((await request("HEAD", `/v1/uploads/${id}`)).headers.get("Upload-Offset"));
  } catch (problem) {
    if (problem.status === 0) return null;
    throw problem;
  }
}

/** One piece by XMLHttpRequest: fetch does not say how much of a body has left. */
function sendPiece(id, file, offset, sent, signal) {
  const piece = file.slice(offset, offset + CHUNK_BYTES);
  return new Promise((resolve, reject) => {
    const line = new XMLHttpRequest();
    const stop = () => line.abort();
    line.open("PUT", `/v1/uploads/${id}`);
    line.setRequestHeader("Content-Type", "application/octet-stream");
    line.setRequestHeader("Content-Range", `bytes ${offset}-${offset + piece.size - 1}/${file.size}`);
    for (const [name, value] of Object.entries(authorization())) line.setRequestHeader(name, value);
    line.upload.onprogress = (event) => sent(event.loaded);
    line.onload = () => (line.status < 300 ? resolve() : reject(problemOf(line)));
    line.onerror = () => reject(new ApiProblem(0, { code: "UNREACHABLE", detail: "The line broke. What has arrived is kept." }));
    line.onabort = () => reject(new ApiProblem(0, { code: "PAUSED", detail: "Paused." }));
    line.onloadend = () => signal.removeEventListener("abort", stop);
    signal.addEventListener("abort", stop, { once: true });
    line.send(piece);
  });
}

function problemOf(line) {
  try {
    return new ApiProblem(line.status, JSON.parse(line.responseText));
  } catch {
    return new ApiProblem(line.status, {});
  }
}
