/** The server's API. All URLs are relative, so that the page works below any path. */

import { Feed, SharedFeed } from "./feed.js";
import { load } from "./storage.js";
import { codePoints, tokensOf } from "./text.js";

const WATCH_INTERVAL_MS = 20_000;

/** A failed request, with a message for the reader. `status` is 0 if there was no response. */
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/**
 * Call `onStatus` with each new status of training and server, and `onLost` when the connection breaks.
 */
export function watchStatus(onStatus, onLost) {
  const ownFeed = () => new Feed("api/events", onStatus, onLost);
  let feed = window.SharedWorker ? new SharedFeed(onStatus, onLost, fallBack) : ownFeed();

  function fallBack() {
    feed.close();
    feed = ownFeed();
    feed.watch();
  }

  // Also on hiding: the minute starts then.
  document.addEventListener("visibilitychange", () => feed.watch());
  setInterval(() => document.hidden || feed.watch(), WATCH_INTERVAL_MS);
  addEventListener("pagehide", () => feed.close());
  addEventListener("pageshow", (event) => event.persisted && feed.watch());
  feed.watch();
}

/** The metrics and samples of a run: {run, metrics, samples}. Throws ApiError. */
export async function fetchHistory(run) {
  const response = await send(`api/history?run=${encodeURIComponent(run)}`);
  if (!response.ok) throw await apiError(response);
  return response.json();
}

/** The response to a request with the API key that this tab has. Throws ApiError. */
export async function request(url, options = {}) {
  const key = load("key", "");
  const headers = key ? { ...options.headers, Authorization: `Bearer ${key}` } : options.headers;
  const response = await send(url, { ...options, headers });
  if (!response.ok) throw await apiError(response);
  return response;
}

/** Every run and snapshot, in OpenAI's shape. Throws ApiError. */
export const fetchModels = async () => (await (await request("v1/models")).json()).data;

/** A text as a QR code: the source of an SVG image. Throws ApiError. */
export async function fetchQrCode(text) {
  const headers = { "Content-Type": "application/json" };
  return (await request("api/qr", { method: "POST", headers, body: JSON.stringify({ text }) })).text();
}

/**
 * Request a completion and yield its chunks: {tokens, model, warnings, isEnded}, with `position` while it is queued.
 * Throws ApiError, or AbortError once `signal` is aborted.
 */
export async function* streamCompletion(request, key, signal) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  const body = JSON.stringify({ ...request, stream: true, echo: false });
  const response = await send("v1/completions", { method: "POST", headers, body, signal });
  if (!response.ok) throw await apiError(response);
  let done = false;
  let offset = 0;
  for await (const { data, comment } of parseEvents(response.body)) {
    if (data === undefined) {
      const position = /^queued (\d+)$/.exec(comment)?.[1];
      if (position) yield { tokens: [], warnings: [], position: Number(position) };
      continue;
    }
    // Read to the end of the stream: only then can the browser reuse the connection.
    done ||= data === "[DONE]";
    if (done) continue;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(asSentence(chunk.error.message), 500);
    const choice = chunk.choices?.[0] ?? { text: "" };
    const isEnded = choice.finish_reason === "stop";
    const { model, system_fingerprint: fingerprint } = chunk;
    yield { tokens: tokensOf(choice, offset), model, fingerprint, warnings: chunk.warnings ?? [], isEnded };
    offset += codePoints(choice.text);
  }
  if (!done) throw new ApiError("The connection ended before the text did. The text so far is kept below.");
}

/** Parse this server's stream of events, each of one line: yields {data} or {comment}. */
async function* parseEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    let chunk;
    try {
      chunk = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The connection was lost while the model was writing. The text so far is kept below.");
    }
    if (chunk.done) return;
    const parts = (buffer + chunk.value).split("\n\n");
    buffer = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ")) yield { data: part.slice(6) };
      else if (part.startsWith(": ")) yield { comment: part.slice(2) };
    }
  }
}

async function send(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Check your connection, then try again.");
  }
}

async function apiError(response) {
  let message = "";
  try {
    message = (await response.json()).error.message ?? "";
  } catch {
    // A proxy's error page, say. Only its status code is known.
  }
  return new ApiError(explain(response.status, message, response.headers.get("Retry-After")), response.status);
}

function explain(status, message, retryAfter) {
  if (status === 401) return "The server did not accept this API key. Check it, then try again.";
  if (status === 413) return "This prompt is too long for the server. Shorten it, then try again.";
  if (status === 429) {
    const wait = Number(retryAfter) > 0 ? `in ${Number(retryAfter)} s` : "in a moment";
    return `The server is busy and its queue is full. Try again ${wait}.`;
  }
  if (message) return asSentence(message);
  if (status >= 502 && status <= 504) return "The server is starting or very busy. Try again in a moment.";
  return `The server could not answer (error ${status}). Try again in a moment.`;
}

function asSentence(text) {
  const trimmed = text?.trim() || "Something went wrong on the server";
  return /[.!?…]$/.test(trimmed) ? trimmed : `${trimmed}.`;
}
