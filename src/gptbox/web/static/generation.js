/** The form, Generate and Stop: from a request to the end of its text. */

import { ApiError, streamCompletion } from "./api.js";
import { $, announce, setText } from "./dom.js";
import { FieldError, markInvalid, readForm } from "./form.js";
import * as format from "./format.js";
import { randomSeed } from "./permalink.js";
import { load, save } from "./storage.js";
import { store } from "./store.js";
import { appendChunk, endText, isUnfinished, newText } from "./text.js";

/** Alternatives requested for each token: the API's maximum. */
const MAX_LOGPROBS = 5;

const ENTER = /Mac|iP(hone|ad)/.test(navigator.platform) ? "⌘ Enter" : "Ctrl + Enter";
const SHORTCUTS = matchMedia("(any-pointer: fine)").matches ? `${ENTER} generates, Esc stops.` : "";

/** Aborts the request of the latest text. */
let controller = null;

const isWriting = ({ text }) => isUnfinished(text);

function showStatus({ training, server }, before) {
  if (server.ready && before?.server.ready === false) announce("The model is ready. You can generate now.");
  setText($("generate-hint"), server.ready ? SHORTCUTS : format.noModelReason(training, server.problem));
  const needsKey = Boolean(server.auth) && !load("key-accepted", false);
  $("key-field").hidden = !needsKey;
  limitLength(server.max_tokens);
  const unit = server.token_unit ?? "character";
  setText($("top-k-hint"), `Likeliest ${unit}s to pick from, 0 for all`);
  setText($("length-hint"), `${unit[0].toUpperCase()}${unit.slice(1)}s to write`);
  $("prompt").placeholder = /shakespeare|plays/i.test(server.model ?? training?.run)
    ? "wherefore art thou"
    : "Once upon a time";
  updateButtons();
}

/** Apply the server's limit, also to an untouched default above it. */
function limitLength(maxTokens) {
  const field = $("length");
  field.max = maxTokens ?? "";
  if (field.value === field.defaultValue && Number(field.value) > maxTokens) field.value = maxTokens;
}

function updateButtons() {
  const focused = document.activeElement;
  const writing = isWriting(store.state);
  $("generate").disabled = writing || !store.state.status?.server.ready;
  $("stop").disabled = !writing;
  // A button that is disabled loses the keyboard focus: pass it to the other one.
  if (focused === $("generate") && writing) $("stop").focus();
  if (focused === $("stop") && !writing) $("generate").focus();
}

function showError(message, field = null) {
  setText($("error"), message);
  markInvalid(field);
}

function begin(request) {
  controller = new AbortController();
  showError("");
  store.update({ text: newText(request, store.state.showProbabilities) });
  $("result").scrollIntoView({ block: "nearest" });
  announce("Writing.");
}

function end(state, failure) {
  store.update({ text: endText(store.state.text, state) });
  const { length } = store.state.text;
  if (failure) showError(failure);
  else {
    const written = length ? `: ${format.count(length, "character")}` : "";
    announce(`${state === "stopped" ? "Stopped" : "Finished"}${written}.`);
  }
}

async function generate() {
  const server = store.state.status?.server;
  if (isWriting(store.state) || !server?.ready) return;
  let request;
  try {
    request = readForm(server.max_tokens ?? Infinity);
    request.seed ??= randomSeed();
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    return showError(error.message, error.field);
  }
  const key = $("key").value.trim() || load("key", "");
  if (server.auth && !key) return showError("This server requires an API key. Enter it first.", $("key"));
  begin(request);
  const fields = store.state.text.hasProbabilities ? { ...request, logprobs: MAX_LOGPROBS } : request;
  try {
    for await (const chunk of streamCompletion(fields, server.auth ? key : "", controller.signal)) {
      acceptKey(key);
      store.update({ text: appendChunk(store.state.text, chunk) });
    }
    end("finished");
  } catch (error) {
    if (error.name === "AbortError") return end("stopped");
    if (!(error instanceof ApiError)) throw error;
    end("failed", error.message);
    if (error.status === 401) rejectKey();
  }
}

function acceptKey(key) {
  if (!store.state.status.server.auth || load("key-accepted", false)) return;
  save("key", key);
  save("key-accepted", true);
  $("key-field").hidden = true;
}

function rejectKey() {
  save("key", "");
  save("key-accepted", false);
  if (!store.state.status.server.auth) return;
  $("key-field").hidden = false;
  markInvalid($("key"));
}

const stop = () => controller?.abort();

store.subscribe(({ status }) => status, showStatus);
store.subscribe(isWriting, updateButtons);
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
