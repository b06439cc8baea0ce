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

/** The status of training and server, with the training of `run`. Throws ApiError. */
export async function fetchStatus(run) {
  const response = await send(`api/status?run=${encodeURIComponent(run)}`);
  if (!response.ok) throw await apiError(response);
  return response.json();
}

/**
 * The reply to a JSON request to `path`, with the reader's API key if there is one. Throws ApiError, or AbortError once
 * `signal` is aborted.
 */
export async function postJson(path, body, signal) {
  return (await post(path, body, { signal })).json();
}

/** The list at `/v1/models`. Throws ApiError. */
export async function fetchModels() {
  const response = await send("v1/models", { headers: headersWith(load("key", "")) });
  if (!response.ok) throw await apiError(response);
  return (await response.json()).data;
}

/** A text as a QR code: the source of an SVG image. Throws ApiError. */
export const fetchQrCode = async (text) => (await post("api/qr", { text })).text();

/** The content of a file, as a Blob, with the reader's API key if there is one. Throws ApiError. */
export async function fetchFile(url) {
  const response = await send(url, { headers: headersWith(load("key", "")) });
  if (!response.ok) throw await apiError(response);
  return response.blob();
}

/**
 * Request completions and yield their chunks, in lists of those that came together: {index, tokens, model, fingerprint,
 * warnings, isEnded, isDone}, or {position} while they are queued. `isEnded`: by the model or a stop string. Throws
 * ApiError, or AbortError once `signal` is aborted.
 */
export async function* streamCompletion(request, options) {
  const response = await post("v1/completions", { ...request, stream: true, echo: false }, options);
  let done = false;
  const offsets = [];
  for await (const events of parseEvents(response.body)) {
    const chunks = [];
    for (const { data, comment } of events) {
      const position = /^queued (\d+)$/.exec(comment)?.[1];
      if (position) chunks.push({ position: Number(position) });
      // Read to the end of the stream: only then can the browser reuse the connection.
      done ||= data === "[DONE]";
      if (!data || done) continue;
      const chunk = JSON.parse(data);
      if (chunk.error) {
        if (chunks.length) yield chunks;
        throw new ApiError(asSentence(chunk.error.message), 500);
      }
      for (const choice of chunk.choices ?? []) {
        const { index, text, finish_reason: reason } = choice;
        const offset = offsets[index] ?? 0;
        offsets[index] = offset + codePoints(text);
        chunks.push({
          index, tokens: tokensOf(choice, offset), model: chunk.model, fingerprint: chunk.system_fingerprint,
          warnings: chunk.warnings ?? [], isEnded: reason === "stop", isDone: Boolean(reason),
        });
      }
    }
    if (chunks.length) yield chunks;
  }
  if (!done) throw new ApiError("The connection ended before the text did. The text so far is kept.");
}

const headersWith = (key) => (key ? { Authorization: `Bearer ${key}` } : {});

async function post(path, body, { signal, key = load("key", "") } = {}) {
  const headers = { "Content-Type": "application/json", ...headersWith(key) };
  const response = await send(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!response.ok) throw await apiError(response);
  return response;
}

/** Parse this server's stream of events, each of one line: yields lists of {data} or {comment}. */
async function* parseEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    let chunk;
    try {
      chunk = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The connection was lost while the model was writing. The text so far is kept.");
    }
    if (chunk.done) return;
    const parts = (buffer + chunk.value).split("\n\n");
    buffer = parts.pop();
    yield parts.map((part) => (part.startsWith("data: ") ? { data: part.slice(6) } : { comment: part.slice(2) }));
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
