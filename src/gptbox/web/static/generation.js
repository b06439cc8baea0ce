/** The writing section: Generate, Stop, and the text as it arrives. */

import { ApiError, streamCompletion } from "./api.js";
import { $, announce, appendAndFollow, copyOnClick, el, setText } from "./dom.js";
import { describeSettings, FieldError, markInvalid, readForm } from "./form.js";
import * as format from "./format.js";
import { addRecent } from "./recent.js";
import { load, save } from "./storage.js";

/** The page's keyboard shortcuts, where there is a keyboard. */
const ENTER = /Mac|iP(hone|ad)/.test(navigator.platform) ? "⌘ Enter" : "Ctrl + Enter";
const SHORTCUTS = matchMedia("(any-pointer: fine)").matches ? `${ENTER} generates, Esc stops.` : "";

/** The latest status of the server; null before the first. */
let server = null;
/** The generation in progress (see `begin`), or null. */
let current = null;
/** The last finished text, {request, text, facts}, or null. */
let last = null;

/** Show a new status. */
export function update(status) {
  const wasReady = server?.ready;
  server = status.server;
  if (server.ready && wasReady === false) announce("The model is ready. You can generate now.");
  setText($("generate-hint"), server.ready ? SHORTCUTS : format.noModelReason(status.training, server.problem));
  const needsKey = Boolean(server.auth) && !load("key-accepted", false);
  if ($("key-field").hidden === needsKey) $("key-field").hidden = !needsKey;
  limitLength(server.max_tokens);
  // An example that suits the dataset.
  $("prompt").placeholder = /shakespeare|plays/i.test(server.model ?? status.training?.run ?? "")
    ? "wherefore art thou"
    : "Once upon a time";
  updateButtons();
  if (current && !current.text) setText($("facts"), queueMessage(current));
}

/** Apply the server's limit, also to an untouched default above it. */
function limitLength(maxTokens) {
  const field = $("length");
  field.max = maxTokens ?? "";
  if (field.value === field.defaultValue && Number(field.value) > maxTokens) field.value = maxTokens;
}

function updateButtons() {
  const focused = document.activeElement;
  $("generate").disabled = current !== null || !server?.ready;
  $("stop").disabled = current === null;
  // A button that is disabled loses the keyboard focus: pass it to the other one.
  if (focused === $("generate") && current) $("stop").focus();
  if (focused === $("stop") && !current) $("generate").focus();
}

function showError(message, field = null) {
  setText($("error"), message);
  markInvalid(field);
}

function queueMessage({ position }) {
  if (!position) return "Waiting for the first words…";
  if (position === 1) return "Waiting in the queue: you are next.";
  return `Waiting in the queue: ${format.count(position - 1, "text")} ahead of yours.`;
}

function showWarnings(warnings) {
  const texts = warnings.map((warning) =>
    typeof warning === "string" ? warning : warning.message ?? JSON.stringify(warning));
  $("warnings").replaceChildren(...texts.map((text) => el("li", {}, text)));
  $("warnings").hidden = texts.length === 0;
}

function begin(request) {
  if (last) addRecent(last);
  last = null;
  const controller = new AbortController();
  current = { request, text: "", pending: "", model: "", position: 0, startedAt: performance.now(), controller };
  showError("");
  showWarnings([]);
  $("output-hint").hidden = true;
  $("text").hidden = false;
  $("copy").hidden = true;
  setText($("text-prompt"), request.prompt);
  $("text-completion").replaceChildren(document.createTextNode(""));
  $("output").scrollTop = $("output").scrollHeight;
  $("output").dataset.writing = "";
  setText($("facts"), queueMessage(current));
  $("result").scrollIntoView({ block: "nearest" });
  updateButtons();
  announce("Writing.");
}

/** Show the text received since the last frame. */
function flush(job) {
  job.frame = 0;
  if (!job.pending) return;
  appendAndFollow($("output"), $("text-completion").firstChild, job.pending);
  job.pending = "";
  setText($("facts"), formatFacts(job));
}

/** "500 characters in 0.9 s, 560 per second · shakespeare_char, step 1,250". */
function formatFacts({ text, startedAt, model }, prefix = "") {
  const seconds = Math.max(0.001, (performance.now() - startedAt) / 1000);
  const length = [...text].length;
  const rate = `${format.number(length / seconds)} per second`;
  const summary = `${prefix}${format.count(length, "character")} in ${format.duration(seconds)}, ${rate}`;
  return [summary, format.modelName(model)].filter(Boolean).join(" · ");
}

function end(job, prefix, failure) {
  const { request, text } = job;
  cancelAnimationFrame(job.frame);
  flush(job);
  current = null;
  delete $("output").dataset.writing;
  const facts = text ? formatFacts(job, prefix) : failure ? "" : "Stopped before the first words.";
  setText($("facts"), facts);
  if (text) {
    last = { request, text, facts: `${facts} · ${describeSettings(request)}` };
    setText($("facts"), last.facts);
    $("copy").hidden = false;
  } else {
    $("text").hidden = true;
    $("output-hint").hidden = false;
  }
  const length = text ? `: ${format.count([...text].length, "character")}` : "";
  if (failure) showError(failure);
  else announce(`${prefix ? "Stopped" : "Finished"}${length}.`);
  updateButtons();
}

async function generate() {
  if (current || !server?.ready) return;
  let request;
  try {
    request = readForm(server.max_tokens ?? Infinity);
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    return showError(error.message, error.field);
  }
  const key = $("key").value.trim() || load("key", "");
  if (server.auth && !key) return showError("This server requires an API key. Enter it first.", $("key"));
  begin(request);
  const job = current;
  try {
    for await (const chunk of streamCompletion(request, server.auth ? key : "", job.controller.signal)) {
      acceptKey(key);
      job.position = chunk.position ?? 0;
      if (job.position) setText($("facts"), queueMessage(job));
      job.model = chunk.model ?? job.model;
      if (chunk.warnings.length) showWarnings(chunk.warnings);
      job.text += chunk.text;
      job.pending += chunk.text;
      job.frame ||= requestAnimationFrame(() => flush(job));
    }
    end(job, "");
  } catch (error) {
    if (error.name === "AbortError") return end(job, "Stopped: ");
    if (!(error instanceof ApiError)) throw error;
    end(job, job.text ? "Cut off: " : "", error.message);
    if (error.status === 401) rejectKey();
  }
}

function acceptKey(key) {
  if (!server.auth || load("key-accepted", false)) return;
  save("key", key);
  save("key-accepted", true);
  $("key-field").hidden = true;
}

function rejectKey() {
  save("key", "");
  save("key-accepted", false);
  if (!server.auth) return;
  $("key-field").hidden = false;
  markInvalid($("key"));
}

function stop() {
  current?.controller.abort();
}

export function init() {
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    generate();
  });
  $("form").addEventListener("input", (event) => {
    if (event.target.hasAttribute("aria-invalid")) showError("");
  });
  $("stop").addEventListener("click", stop);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") stop();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      generate();
    }
  });
  // The shown text joins the recent ones, so that a reload does not lose it.
  addEventListener("pagehide", (event) => !event.persisted && last && addRecent(last));
  copyOnClick($("copy"), () => (last ? last.request.prompt + last.text : ""));
}
