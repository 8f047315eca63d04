// Talks to the server. Addresses are relative, so that the page also works under a path of a proxy.

import { InputError } from "./dom.js";

/** An error that the server named; `param` is the field of the request that it is about. */
class ServerError extends Error {
  constructor(error, status) {
    super(error.message);
    Object.assign(this, { param: error.param ?? null, status });
  }
}

let askForKey = async () => null;
let key = null;
try {
  key = sessionStorage.getItem("key");
} catch { /* Storage may be forbidden; then the page keeps the key while it is open. */ }

function keep(given) {
  key = given;
  try {
    sessionStorage.setItem("key", given);
  } catch { /* As above. */ }
}

/** Sets the function that asks for an API key when the server wants one, and is told whether it refused one. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

async function request(path, { body, signal } = {}) {
  for (;;) {
    const headers = {};
    const sent = key;
    if (sent) {
      headers.Authorization = `Bearer ${sent}`;
    }
    if (body) {
      headers["Content-Type"] = "application/json";
    }
    const method = body ? "POST" : "GET";
    let response;
    try {
      response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
    } catch (error) {
      throw signal?.aborted ? error : new InputError(null, "no-server");
    }
    if (response.ok) {
      return response;
    }
    if (response.status === 401) {
      const given = await askForKey(sent !== null);
      if (given) {
        keep(given);
        continue;
      }
    }
    const answer = await response.json().catch(() => null);
    // Paths of other programs' interfaces say it in `detail`.
    const message = answer?.error?.message ?? answer?.detail;
    throw typeof message === "string"
      ? new ServerError({ message, param: answer.error?.param }, response.status)
      : new InputError(null, "server-status", { status: response.status });
  }
}

const json = async (path, options) => (await request(path, options)).json();

export const models = async () => (await json("v1/models")).data;
export const indexes = async () => (await json("v1/index")).indexes;
export const imageSettings = (image) => json("sdapi/v1/png-info", { body: { image } });
export const similarity = (body, signal) => json("v1/similarity", { body, signal });
export const search = async (body, signal) => (await json("v1/search", { body, signal })).hits;
/** An image of an index. Its address starts with a slash, which a proxy's path would have to precede. */
export const indexedImage = async (address, signal) => (await request(address.replace(/^\//, ""), { signal })).blob();

/** Draws, and yields the events of the server as they come. Aborting the signal cancels the work. */
export async function* draw(body, signal) {
  const response = await request("v1/images/generations", { body: { ...body, stream: true, response_format: "b64_json" }, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffered = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      throw signal?.aborted ? error : new InputError(null, "no-server");
    });
    if (done) {
      return;
    }
    buffered += value.replaceAll("\r", "");
    const events = buffered.split("\n\n");
    buffered = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n").trim();
      if (!data.startsWith("{")) {
        continue;
      }
      const parsed = JSON.parse(data);
      if (parsed.error) {
        throw new ServerError(parsed.error, 200);
      }
      yield parsed;
    }
  }
}
