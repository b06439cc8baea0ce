/** The reader's own text, gone on with by the model as it was at the chosen snapshot. */

import { ApiError, streamCompletion } from "./api.js";
import { $, announce, setText } from "./dom.js";
import { number, printable, snapshotName } from "./format.js";
import { current, isWriting, textOf } from "./manuscript.js";
import { commit } from "./paper.js";
import { requestOf } from "./sampling.js";
import { store } from "./store.js";
import { chosenSample } from "./timeline.js";

/** Enough to see how it writes; a long text is for the paper. */
const MAX_TOKENS = 300;
/** For a reader without a seed of their own: texts differ by the snapshot alone. */
const SEED = 1;
const PROMPT_SHOWN = 60;

/** The texts written: {prompt, text, state} by run, step and request. `state`: "writing", "finished" or "stopped". */
const texts = new Map();
let controller = null;
let redraw = 0;

/** What the paper's latest text went on from, or the whole text if the model has not written. */
function readPrompt() {
  const version = current(store.state.manuscript);
  return version.writing ? textOf(version, 0, version.writing.start) : textOf(version);
}

/** The kept snapshot nearest to a step, or NaN. */
function nearestKept(step) {
  const steps = store.state.kept?.get(store.state.history.run)?.steps ?? [];
  return steps.reduce((best, kept) => (Math.abs(kept - step) < Math.abs(best - step) ? kept : best), steps[0] ?? NaN);
}

function requestAt(step) {
  const { n, model, ...sampling } = requestOf(store.state.settings);
  const limit = Math.min(MAX_TOKENS, store.state.status?.server.max_tokens ?? MAX_TOKENS);
  return {
    ...sampling, prompt: readPrompt(), seed: sampling.seed ?? SEED, max_tokens: Math.min(sampling.max_tokens, limit),
    model: `${store.state.history.run}@${snapshotName(step)}`,
  };
}

const isBusy = () => controller !== null;

function render() {
  clearTimeout(redraw);
  redraw = 0;
  const sample = chosenSample();
  const step = sample ? nearestKept(sample.step) : NaN;
  $("rewriting").hidden = !Number.isFinite(step);
  if ($("rewriting").hidden) return;
  const fields = requestAt(step);
  const entry = texts.get(JSON.stringify(fields));
  const isKept = step === sample.step;
  setText($("rewriting-title"), `Your text, at step ${number(step)}`);
  setText($("rewriting-hint"), describe(fields.prompt, sample.step, isKept ? null : step));
  const place = isKept ? "this snapshot" : `step ${number(step)}`;
  const action = entry ? `Written at ${place}` : `Write my text at ${place}`;
  setText($("rewrite"), isBusy() ? "Stop" : action);
  $("rewrite").disabled = !isBusy() && (!store.state.status?.server.ready || Boolean(entry));
  // Once there is a text at one snapshot, the place for it stays: nothing below jumps while the reader slides along.
  $("rewriting-output").hidden = texts.size === 0;
  setText($("rewriting-prompt"), entry ? entry.prompt : "");
  setText($("rewriting-completion"), entry ? entry.text : "Not written at this snapshot yet.");
  $("rewriting-output").dataset.state = entry?.state ?? "empty";
}

function describe(prompt, step, nearest) {
  const thinned = nearest === null ? "" :
    `The model of step ${number(step)} was thinned out to save space. ` +
    `The nearest kept one is that of step ${number(nearest)}. `;
  if (!prompt.trim()) return `${thinned}Write a few words on the paper: each snapshot can go on with them.`;
  const characters = [...prompt.trim().replace(/\s+/g, " ")];
  const shown = characters.slice(-PROMPT_SHOWN).join("");
  const cut = characters.length > PROMPT_SHOWN ? "…" : "";
  return `${thinned}It goes on from “${cut}${printable(shown)}”, with the same seed at each.`;
}

async function write() {
  if (isBusy()) return controller.abort();
  commit(); // what is being typed
  setText($("rewriting-error"), readPrompt().trim() ? "" : "The paper is empty: write a few words on it first.");
  if (!readPrompt().trim()) return undefined;
  const sample = chosenSample();
  const fields = requestAt(nearestKept(sample.step));
  const key = JSON.stringify(fields);
  const entry = { prompt: fields.prompt, text: "", state: "writing" };
  controller = new AbortController();
  texts.set(key, entry);
  render();
  try {
    for await (const chunks of streamCompletion(fields, { signal: controller.signal })) {
      for (const { tokens = [] } of chunks) for (const { text } of tokens) entry.text += text;
      redraw ||= setTimeout(render, 50);
    }
    entry.state = "finished";
    announce(`Written: ${$("rewriting-title").textContent}.`);
  } catch (error) {
    entry.state = "stopped";
    if (error.name !== "AbortError") {
      if (!(error instanceof ApiError)) throw error;
      setText($("rewriting-error"), error.message);
    }
    // What was written stays, as long as another click would not write more.
    if (!entry.text || error.name !== "AbortError") texts.delete(key);
  } finally {
    controller = null;
    render();
  }
  return undefined;
}

/** Soon, and not with each token that is written on the paper. */
function renderLater() {
  if (!isWriting(current(store.state.manuscript))) redraw ||= setTimeout(render, 300);
}

store.subscribe(({ history }) => history, render);
store.subscribe(({ snapshot }) => snapshot, render);
store.subscribe(({ kept }) => kept, () => store.state.history && render());
store.subscribe(({ settings }) => settings, () => store.state.history && render());
store.subscribe(({ status }) => status?.server.ready, () => store.state.history && render());
store.subscribe(({ manuscript }) => manuscript, () => store.state.history && renderLater());
$("rewrite").addEventListener("click", write);
