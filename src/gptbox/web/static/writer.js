/** The writing side: Generate, Stop, and the text as it comes. */

import { ApiError, complete } from "./api.js";
import { $, announce, appendFollowing, copies, say } from "./dom.js";
import { keep, recall } from "./keep.js";
import { describe, FieldError, markField, readForm } from "./options.js";
import { remember } from "./results.js";
import { count, duration, modelName, number, waiting } from "./words.js";

/** The keys that work everywhere on the page, for those who have keys. */
const ENTER = /Mac|iP(hone|ad)/.test(navigator.platform) ? "⌘ Enter" : "Ctrl + Enter";
const KEYS = matchMedia("(any-pointer: fine)").matches ? `${ENTER} generates, Esc stops.` : "";

/** The server as last heard of; null before the first word. */
let server = null;
/** The text being written: {stop: AbortController, ...}, or null. */
let running = null;
/** The last finished text, {request, text, facts}, or null. */
let last = null;

/** Take in a new state of the server and the training. */
export function update(status) {
  const wasReady = server?.ready;
  server = status.server;
  if (server.ready && wasReady === false) announce("The model is ready. You can generate now.");
  say($("reason"), server.ready ? KEYS : waiting(status.training, server.problem));
  const asksKey = Boolean(server.auth) && !recall("key-accepted", false);
  if ($("key-field").hidden === asksKey) $("key-field").hidden = !asksKey;
  fitLength(server.max_tokens);
  // Tiny Shakespeare is what most people begin with; other texts have other first words.
  $("prompt").placeholder = /shakespeare|plays/i.test(server.model ?? status.training?.run ?? "")
    ? "wherefore art thou"
    : "Once upon a time";
  buttons();
  if (running && !running.text) say($("facts"), queueWords(running));
}

/** The most that this server gives; a default that is more gives way to it. */
function fitLength(most) {
  const field = $("length");
  field.max = most ?? "";
  if (field.value === field.defaultValue && Number(field.value) > most) field.value = most;
}

function buttons() {
  const focused = document.activeElement;
  $("generate").disabled = running !== null || !server?.ready;
  $("stop").disabled = running === null;
  // A button that goes grey under the keyboard's focus would lose it: hand it to the other one.
  if (focused === $("generate") && running) $("stop").focus();
  if (focused === $("stop") && !running) $("generate").focus();
}

function complain(message, field = null) {
  say($("error"), message);
  markField(field);
}

function queueWords(run) {
  if (!run.position) return "Waiting for the first words…";
  if (run.position === 1) return "Waiting for a free place; yours is the next.";
  return `Waiting for a free place; ${count(run.position - 1, "text")} before yours.`;
}

function showWarnings(warnings) {
  const items = warnings.map((warning) => {
    const item = document.createElement("li");
    item.append(typeof warning === "string" ? warning : warning.message ?? JSON.stringify(warning));
    return item;
  });
  $("warnings").replaceChildren(...items);
  $("warnings").hidden = items.length === 0;
}

function begin(request) {
  if (last) remember(last);
  last = null;
  running = { request, text: "", pending: "", model: "", position: 0, started: performance.now(), stop: new AbortController() };
  complain("");
  showWarnings([]);
  $("blank").hidden = true;
  $("text").hidden = false;
  $("copy").hidden = true;
  say($("text-prompt"), request.prompt);
  $("text-written").replaceChildren(document.createTextNode(""));
  $("paper").scrollTop = $("paper").scrollHeight;
  $("paper").dataset.writing = "";
  say($("facts"), queueWords(running));
  $("result").scrollIntoView({ block: "nearest" });
  buttons();
  announce("Writing.");
}

/** Put what has come since the last frame on the page, in one go. */
function flush(run) {
  run.frame = 0;
  if (!run.pending) return;
  appendFollowing($("paper"), $("text-written").firstChild, run.pending);
  run.pending = "";
  say($("facts"), facts(run));
}

/** "500 characters in 0.9 s, 560 a second · shakespeare_char, step 1,250". */
function facts(run, verb = "") {
  const seconds = Math.max(0.001, (performance.now() - run.started) / 1000);
  const characters = [...run.text].length;
  const speed = `${count(characters, "character")} in ${duration(seconds)}, ${number(characters / seconds)} a second`;
  return [verb + speed, modelName(run.model)].filter(Boolean).join(" · ");
}

function end(run, verb, failure) {
  cancelAnimationFrame(run.frame);
  flush(run);
  running = null;
  delete $("paper").dataset.writing;
  const line = run.text ? facts(run, verb) : failure ? "" : "Stopped before the first words.";
  say($("facts"), line);
  if (run.text) {
    last = { request: run.request, text: run.text, facts: `${line} · ${describe(run.request)}` };
    say($("facts"), last.facts);
    $("copy").hidden = false;
  } else {
    $("text").hidden = true;
    $("blank").hidden = false;
  }
  const length = run.text ? `: ${count([...run.text].length, "character")}` : "";
  if (failure) complain(failure);
  else announce(`${verb ? "Stopped" : "Finished"}${length}.`);
  buttons();
}

async function generate() {
  if (running || !server?.ready) return;
  let request;
  try {
    request = readForm(server.max_tokens ?? Infinity);
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    return complain(error.message, error.field);
  }
  const key = $("key").value.trim() || recall("key", "");
  if (server.auth && !key) return complain("This server asks for an API key. Enter it first.", $("key"));
  begin(request);
  const run = running;
  try {
    for await (const piece of complete(request, server.auth ? key : "", run.stop.signal)) {
      acceptKey(key);
      run.position = piece.position ?? 0;
      if (run.position) say($("facts"), queueWords(run));
      run.model = piece.model ?? run.model;
      if (piece.warnings.length) showWarnings(piece.warnings);
      run.text += piece.text;
      run.pending += piece.text;
      run.frame ||= requestAnimationFrame(() => flush(run));
    }
    end(run, "");
  } catch (error) {
    if (error.name === "AbortError") return end(run, "Stopped: ");
    if (!(error instanceof ApiError)) throw error;
    end(run, run.text ? "Cut off: " : "", error.message);
    if (error.status === 401) refuseKey();
  }
}

function acceptKey(key) {
  if (!server.auth || recall("key-accepted", false)) return;
  keep("key", key);
  keep("key-accepted", true);
  $("key-field").hidden = true;
}

function refuseKey() {
  keep("key", "");
  keep("key-accepted", false);
  if (!server.auth) return;
  $("key-field").hidden = false;
  markField($("key"));
}

function stop() {
  running?.stop.abort();
}

export function start() {
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    generate();
  });
  $("form").addEventListener("input", (event) => {
    if (event.target.hasAttribute("aria-invalid")) complain("");
  });
  $("stop").addEventListener("click", stop);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") stop();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      generate();
    }
  });
  // The text in front joins the earlier ones, lest a reload lose it.
  addEventListener("pagehide", (event) => !event.persisted && last && remember(last));
  copies($("copy"), () => (last ? last.request.prompt + last.text : ""));
}
