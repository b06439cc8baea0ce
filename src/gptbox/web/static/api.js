/** The server, as this page uses it. Every address is relative, so that the page works below any path. */

import { Feed, SharedFeed } from "./feed.js";

const WATCH_EVERY_MS = 20_000;

/** A refusal or failure, in words for people. `status` is 0 where no answer came. */
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/**
 * Call `onStatus` with every new state of training and server, and `onLost` when the connection breaks.
 * It is taken up again for ever, and given up when no tab of this browser has been visible for a minute.
 */
export function watchStatus(onStatus, onLost) {
  const own = () => new Feed("api/events", onStatus, onLost);
  let feed = window.SharedWorker ? new SharedFeed(onStatus, onLost, doWithout) : own();

  function doWithout() {
    feed.close();
    feed = own();
    feed.watch();
  }

  // At hiding, too: the minute counts from then.
  document.addEventListener("visibilitychange", () => feed.watch());
  setInterval(() => document.hidden || feed.watch(), WATCH_EVERY_MS);
  addEventListener("pagehide", () => feed.close());
  addEventListener("pageshow", (event) => event.persisted && feed.watch());
  feed.watch();
}

/** The metrics and samples of a run: {run, metrics, samples}. Throws ApiError. */
export async function history(run) {
  const response = await reach(`api/history?run=${encodeURIComponent(run)}`);
  if (!response.ok) throw await refusal(response);
  return response.json();
}

/**
 * Ask for a text and yield its pieces as they come: {text, model, warnings, finished}.
 * Throws ApiError; or AbortError once `signal` is aborted.
 */
export async function* complete(request, key, signal) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  const body = JSON.stringify({ ...request, stream: true, echo: false });
  const response = await reach("v1/completions", { method: "POST", headers, body, signal });
  if (!response.ok) throw await refusal(response);
  let done = false;
  for await (const { data, comment } of events(response.body)) {
    if (data === undefined) {
      const position = /^queued (\d+)$/.exec(comment)?.[1];
      if (position) yield { text: "", warnings: [], position: Number(position), finished: false };
      continue;
    }
    // Read on to the stream's very end: the browser can then use the connection again.
    done ||= data === "[DONE]";
    if (done) continue;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(sentence(chunk.error.message), 500);
    const choice = chunk.choices?.[0];
    yield {
      text: choice?.text ?? "",
      model: chunk.model,
      warnings: chunk.warnings ?? [],
      finished: Boolean(choice?.finish_reason),
    };
  }
  if (!done) throw new ApiError("The connection ended before the text did. What came is kept below.");
}

/** Each server-sent event in a stream of bytes: its data, or the comment that stands in its place. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The connection was lost while the model was writing. What came is kept below.");
    }
    if (piece.done) return;
    const parts = (rest + piece.value).replaceAll("\r\n", "\n").split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) yield { data: lines.map((line) => line.slice(5).trimStart()).join("\n") };
      else if (part.startsWith(":")) yield { comment: part.slice(1).trim() };
    }
  }
}

async function reach(address, options) {
  try {
    return await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Check your connection, then try again.");
  }
}

/** What an answer other than 200 means, in words. */
async function refusal(response) {
  let said = "";
  try {
    said = (await response.json()).error.message ?? "";
  } catch {
    // Not ours: a proxy's page, say. The number below has to do.
  }
  return new ApiError(explain(response.status, said, response.headers.get("Retry-After")), response.status);
}

function explain(status, said, retryAfter) {
  if (status === 401) return "The server did not accept this API key. Check it, then try again.";
  if (status === 413) return "This prompt is too long for the server. Shorten it, then try again.";
  if (status === 429) {
    const wait = Number(retryAfter) > 0 ? `in ${Number(retryAfter)} s` : "in a moment";
    return `Many people are writing just now and the queue is full. Try again ${wait}.`;
  }
  if (said) return sentence(said);
  if (status >= 502 && status <= 504) return "The server is starting or very busy. Try again in a moment.";
  return `The server could not answer (error ${status}). Try again in a moment.`;
}

function sentence(text) {
  const trimmed = String(text ?? "").trim() || "Something went wrong on the server";
  return /[.!?…]$/.test(trimmed) ? trimmed : `${trimmed}.`;
}
