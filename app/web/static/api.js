/** The service over HTTP: JSON in and out, problems as exceptions, events as they happen, uploads that go on after a break. */

const STORED_KEY = "fewbytes.key";
const UNREACHABLE = "The service does not answer. The page tries again by itself.";

/** An error of the API, as RFC 9457 has it; status 0 when there was no answer at all. */
export class ApiProblem extends Error {
  constructor(status, body) {
    super(body.detail ?? `The service answered ${status}.`);
    this.status = status;
    this.code = body.code ?? "UNKNOWN";
    this.errors = body.errors ?? [];
    this.retryable = body.retryable ?? status === 0;
    this.requestId = body.request_id ?? null;
  }
}

/** The key is kept in this tab alone, and goes when the tab goes. */
export const key = {
  get: () => sessionStorage.getItem(STORED_KEY),
  set: (value) => sessionStorage.setItem(STORED_KEY, value),
  forget: () => sessionStorage.removeItem(STORED_KEY),
};

let askForKey = () => Promise.resolve(false);

/** `ask(problem)` is called at a 401; it answers whether there is a new key to try with. */
export function whenUnauthenticated(ask) {
  let asking = null;
  // Several requests may be refused at once: one question answers them all.
  askForKey = (problem) => {
    asking ??= ask(problem).finally(() => { asking = null; });
    return asking;
  };
}

export function authorization() {
  const value = key.get();
  return value ? { Authorization: `Bearer ${value}` } : {};
}

/** The answer to a request, whatever its status of 2xx or 304. Raises ApiProblem. */
export async function request(method, path, { body, headers = {}, signal } = {}) {
  const json = body === undefined ? {} : { "Content-Type": "application/json" };
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: { Accept: "application/json", ...json, ...authorization(), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiProblem(0, { code: "UNREACHABLE", detail: UNREACHABLE });
  }
  if (answer.ok || answer.status === 304) return answer;
  const problem = await problemOf(answer);
  if (answer.status === 401 && (await askForKey(problem))) return request(method, path, { body, headers, signal });
  throw problem;
}

async function problemOf(answer) {
  try {
    return new ApiProblem(answer.status, await answer.json());
  } catch {
    return new ApiProblem(answer.status, {}); // a proxy's own page, say
  }
}

async function json(answer) {
  return answer.status === 204 ? null : answer.json();
}

export const get = async (path, options) => json(await request("GET", path, options));
export const post = async (path, body, options) => json(await request("POST", path, { ...options, body }));
export const remove = async (path) => json(await request("DELETE", path));

/** A path with those parameters that have a value. */
export function withQuery(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
  return given.length ? `${path}?${query}` : path;
}

/** All items of a list that is known to be short enough to be held whole: teachers, data sets. */
export async function all(path, options) {
  const items = [];
  let token = null;
  do {
    const page = await get(withQuery(path, { page_size: 200, page_token: token }), options);
    items.push(...page.items);
    token = page.next_page_token;
  } while (token);
  return items;
}

/** What is at a path, or null where there is nothing (an older service has not every route). */
export async function getIfThere(path, options) {
  try {
    return await get(path, options);
  } catch (problem) {
    if (problem.status === 404) return null;
    throw problem;
  }
}

/** The events of a job after `after`, as they happen, to its end. By fetch: an EventSource could not send the key. */
export async function* events(jobId, after, signal) {
  const answer = await request("GET", `/v1/jobs/${jobId}/events?stream=true&after=${after}`, {
    headers: { Accept: "text/event-stream" }, signal,
  });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(broken);
      if (done) return;
      buffer += value;
      const blocks = buffer.split("\n\n");
      buffer = blocks.pop();
      for (const block of blocks) {
        const event = parsedEvent(block);
        if (event !== null) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // the stream is over, whoever ended it
  }
}

/** A stream that breaks is a service that does not answer; one that was left is neither. */
function broken(error) {
  if (error.name === "AbortError") throw error;
  throw new ApiProblem(0, { code: "UNREACHABLE", detail: UNREACHABLE });
}

/** {seq, type, data} of a server-sent event; null for a comment. */
export function parsedEvent(block) {
  const fields = { event: "message", data: [], id: null };
  for (const line of block.split(/\r?\n/)) {
    const colon = line.indexOf(":");
    if (colon < 1) continue;
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (line.startsWith("data:")) fields.data.push(value);
    else fields[line.slice(0, colon)] = value;
  }
  if (!fields.data.length) return null;
  return { seq: Number(fields.id), type: fields.event, data: JSON.parse(fields.data.join("\n")) };
}

/** Give a file to the user. A link cannot send the key, so with one the bytes come through here. */
export async function download(path, name) {
  const answer = await request("GET", path, { headers: { Accept: "*/*" } });
  const url = URL.createObjectURL(await answer.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
