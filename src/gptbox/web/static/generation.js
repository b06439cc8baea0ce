/** Generate, Stop and Regenerate: from a request to the end of its texts. */

import { ApiError, streamCompletion } from "./api.js";
import { $, announce, setText } from "./dom.js";
import * as format from "./format.js";
import * as manuscripts from "./manuscript.js";
import { commit, setText as setPaper } from "./paper.js";
import { MAX_PROMPT_BYTES, randomSeed, requestOf } from "./sampling.js";
import { FieldError, markInvalid, read } from "./settings.js";
import { load, save } from "./storage.js";
import { store } from "./store.js";
import { byteLength, withoutHalf } from "./text.js";

/** Alternatives requested for each token: the API's maximum. */
const MAX_LOGPROBS = 5;

const ENTER = /Mac|iP(hone|ad)/.test(navigator.platform) ? "⌘ Enter" : "Ctrl + Enter";
const SHORTCUTS = matchMedia("(any-pointer: fine)").matches ? `${ENTER} generates, Esc stops.` : "";

/** Aborts the request of the texts being written. */
let controller = null;

const isBusy = ({ manuscript }) => manuscripts.isBusy(manuscript);

function showStatus({ training, server }, before) {
  if (server.ready && before?.server.ready === false) announce("The model is ready. You can generate now.");
  setText($("generate-hint"), server.ready ? SHORTCUTS : format.noModelReason(training, server.problem));
  $("key-field").hidden = !server.auth || load("key-accepted", false);
  const isPlay = /shakespeare|plays/i.test(server.model ?? training?.run);
  $("prompt").placeholder = `${isPlay ? "wherefore art thou" : "Once upon a time"} …`;
  updateButtons();
}

function updateButtons() {
  const focused = document.activeElement;
  const { manuscript, status } = store.state;
  const isWriting = isBusy(store.state);
  const { pieces, writing } = manuscripts.current(manuscript);
  const isCut = writing?.state === "failed" && writing.length > 0;
  const goesOn = pieces.at(-1)?.by === "model" && $("prompt").hidden;
  setText($("generate"), isCut ? "Continue from here" : goesOn ? "Continue" : "Generate");
  $("generate").disabled = isWriting || !status?.server.ready;
  $("stop").disabled = !isWriting;
  $("regenerate").hidden = !writing;
  $("regenerate").disabled = isWriting || !status?.server.ready;
  // A button that is disabled loses the keyboard focus: pass it to another one.
  if (focused === $("stop") && !isWriting) $("generate").focus();
  else if (focused?.disabled) $("stop").focus();
}

export function showError(message, field = null) {
  setText($("error"), message);
  markInvalid(field);
}

/** The settings with `fields` in place of what the form says; null if the form has an error, which is shown. */
function readSettings(fields) {
  try {
    return { ...requestOf(read()), ...fields };
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    showError(error.message, error.field);
    return null;
  }
}

/**
 * Go on from the end of the text: with the form's settings, or with `fields` by their API names instead; a `prompt` among
 * them becomes the text first. With a seed they give the same text again.
 */
export function generate({ prompt, ...fields } = {}) {
  if (!canWrite()) return undefined;
  commit();
  if (prompt !== undefined) setPaper(prompt);
  const settings = readSettings(fields);
  return settings && write(manuscripts.continuation(store.state.manuscript), settings);
}

/** Write the current version once more with another seed, beside it. */
function regenerate() {
  const { writing } = manuscripts.current(store.state.manuscript);
  if (!canWrite() || !writing) return undefined;
  return write(manuscripts.sameBeginning(store.state.manuscript), { ...writing.request, seed: randomSeed() });
}

const canWrite = () => !isBusy(store.state) && store.state.status?.server.ready;

/** The end of a text that the server accepts as a prompt. */
function promptOf(text) {
  if (byteLength(text) <= MAX_PROMPT_BYTES) return text;
  let end = text.slice(-MAX_PROMPT_BYTES);
  while (byteLength(end) > MAX_PROMPT_BYTES) end = end.slice(Math.ceil((byteLength(end) - MAX_PROMPT_BYTES) / 3));
  return withoutHalf(end);
}

/**
 * Let the model write from `place` (manuscript.js) with these settings, in as many versions as they ask for. `prompt_ids`
 * among them are sent in the place of the text, for a text that ends within a character.
 */
export async function write(place, { n = 1, prompt_ids: ids, ...settings }) {
  const { server } = store.state.status;
  const key = $("key").value.trim() || load("key", "");
  if (server.auth && !key) return showError("This server requires an API key. Enter it first.", $("key"));
  const model = settings.model ?? store.state.run ?? undefined;
  const prompt = promptOf(manuscripts.textOf(place));
  const request = { ...settings, ...(model ? { model } : {}), prompt, seed: settings.seed ?? randomSeed() };
  const requests = Array.from({ length: n }, (_, i) => ({
    ...request, seed: request.seed + i, ...(ids ? { prompt_ids: ids } : {}),
  }));
  controller = new AbortController();
  showError("");
  const manuscript = manuscripts.beginWriting(store.state.manuscript, requests, place, performance.now());
  const versions = Array.from({ length: n }, (_, i) => manuscript.lastId - n + 1 + i);
  store.update({ manuscript });
  $("paper").scrollIntoView({ block: "nearest" });
  announce("Writing.");
  const body = { ...request, prompt: ids ?? prompt, ...(n > 1 ? { n } : {}) };
  if (store.state.ink.isOn && n === 1) body.logprobs = MAX_LOGPROBS;
  try {
    for await (const chunks of streamCompletion(body, { signal: controller.signal, key: server.auth ? key : "" })) {
      acceptKey(key);
      store.update({ manuscript: chunks.reduce((result, chunk) => addChunk(result, chunk, versions), store.state.manuscript) });
    }
    return end(versions, "finished");
  } catch (error) {
    if (error.name === "AbortError") return end(versions, "stopped");
    end(versions, "failed");
    if (!(error instanceof ApiError)) throw error;
    showError(error.message);
    if (error.status === 401) rejectKey();
  }
  return undefined;
}

/** The manuscript with a chunk added to its version; the place in the queue is that of all. */
function addChunk(manuscript, { index, position, ...chunk }, versions) {
  const now = performance.now();
  if (position) {
    const queued = { tokens: [], warnings: [], position, isEnded: false };
    return versions.reduce((result, id) => manuscripts.append(result, id, queued, now), manuscript);
  }
  const result = manuscripts.append(manuscript, versions[index], chunk, now);
  return chunk.isDone ? manuscripts.endWriting(result, versions[index], "finished", now) : result;
}

function end(versions, state) {
  const now = performance.now();
  let { manuscript } = store.state;
  let length = 0;
  for (const id of versions) {
    const version = manuscript.versions[id];
    if (manuscripts.isWriting(version)) manuscript = manuscripts.endWriting(manuscript, id, state, now);
    ({ length } = version.writing);
    // What was not begun is no version.
    if (!length && state !== "finished") manuscript = manuscripts.remove(manuscript, id);
  }
  store.update({ manuscript });
  if (state === "failed") return;
  if (state === "stopped" && !length) showError("Stopped before the first words.");
  const written = versions.length > 1 ? `: ${versions.length} versions` : length ? `: ${format.count(length, "character")}` : "";
  announce(`${state === "stopped" ? "Stopped" : "Finished"}${written}.`);
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

/** Stop writing, also at the server. */
export const stop = () => controller?.abort();

store.subscribe(({ status }) => status, showStatus);
store.subscribe(({ manuscript }) => manuscripts.current(manuscript), (version, before) => {
  // Not at each chunk.
  if (version.id !== before.id || version.writing?.state !== before.writing?.state) updateButtons();
});
store.subscribe(isBusy, updateButtons);
new MutationObserver(updateButtons).observe($("prompt"), { attributeFilter: ["hidden"] });
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
$("form").addEventListener("input", (event) => {
  if (event.target.hasAttribute("aria-invalid")) showError("");
});
$("stop").addEventListener("click", stop);
$("regenerate").addEventListener("click", regenerate);
document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented) return;
  if (event.key === "Escape") stop();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    generate();
  }
});
updateButtons();
