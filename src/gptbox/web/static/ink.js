/** Surprise ink: each token shaded by how surprising it was, from the stream or from `/api/scores`. */

import { ApiError } from "./api.js";
import { $, setText } from "./dom.js";
import { percent, printable } from "./format.js";
import * as manuscripts from "./manuscript.js";
import { scoreAll } from "./scoring.js";
import { focusElement } from "./steer.js";
import { save } from "./storage.js";
import { store } from "./store.js";
import { tokensIn } from "./text-view.js";

let controller = null;
/** Lists of pieces for which scores were requested, so that what cannot be scored is requested once. */
const requested = new WeakSet();

const version = () => manuscripts.current(store.state.manuscript);
const isScored = ({ text, logprob }) => !text || logprob !== undefined;

/** The model that wrote the version or, of an edit, the one before it. */
export function writerOf({ versions }, { writing, parent }) {
  return writing?.model || (versions[parent] ? writerOf({ versions }, versions[parent]) : null);
}

/** Request what the current version lacks. */
async function scoreVersion() {
  const { manuscript, ink, settings, run, status } = store.state;
  const { id, pieces, writing } = version();
  controller?.abort();
  setText($("ink-note"), "");
  if (!ink.isOn || manuscripts.isBusy(manuscript) || !status?.server.ready) return;
  if (requested.has(pieces) || pieces.every(isScored)) return;
  requested.add(pieces);
  controller = new AbortController();
  const { signal } = controller;
  // What the model has just written has its log-probabilities from the stream.
  const end = pieces.findLastIndex((piece) => !isScored(piece)) + 1;
  // The rest as it was written, after its prompt.
  const start = Math.min(writing?.start ?? end, end);
  const texts = [manuscripts.textOf({ pieces }, 0, start), manuscripts.textOf({ pieces }, start, end)];
  try {
    const tokens = await scoreWith([writerOf(manuscript, version()), settings.model, run].filter(Boolean), texts, signal);
    const latest = store.state.manuscript;
    if (latest.versions[id]?.pieces !== pieces) return;
    const scored = manuscripts.withTokens(latest, id, [...tokens, ...pieces.slice(end)]);
    requested.add(scored.versions[id].pieces);
    store.update({ manuscript: scored });
  } catch (error) {
    requested.delete(pieces);
    if (error.name === "AbortError") return;
    if (!(error instanceof ApiError)) throw error;
    setText($("ink-note"), `The ink is missing: ${error.message}`);
  }
}

/** The tokens by the first of the models that is still there, or else by the one in use. */
async function scoreWith([model = null, ...others], [prompt, text], signal) {
  try {
    return [...(await scoreAll(prompt, model, signal)), ...(await scoreAll(text, model, signal, prompt))];
  } catch (error) {
    if (error.status !== 404 || !model) throw error;
    return scoreWith(others, [prompt, text], signal);
  }
}

/** Go to the next token at which the model was guessing or, if there is none, to the next surprising one. */
function nextSurprise() {
  if (!store.state.ink.isOn || $("output").hidden) return;
  const found = [4, 3, 2, 1].map((step) => [...$("text").querySelectorAll(`[data-surprise="${step}"]`)]);
  const elements = found.find((list) => list.length);
  if (!elements) return setText($("ink-note"), "No surprise in this text.");
  const from = $("text").querySelector(".cursor");
  const isAfter = (element) => !from || from.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING;
  const isNested = (element) => from && (element.contains(from) || from.contains(element));
  focusElement(elements.find((element) => isAfter(element) && !isNested(element)) ?? elements[0]);
}

function showInk() {
  const { isOn } = store.state.ink;
  $("ink-toggle").setAttribute("aria-pressed", isOn);
  $("ink-legend").hidden = !isOn;
}

/** "e 45 %", for each token of the element. */
const describe = (tokens) => tokens.map(({ key, text, logprob }) => `${printable(key ?? text)} ${percent(Math.exp(logprob))}`).join("\n");

$("ink-toggle").addEventListener("click", () => {
  const { ink } = store.state;
  save("ink", !ink.isOn);
  store.update({ ink: { ...ink, isOn: !ink.isOn } });
});
$("next-surprise").addEventListener("click", nextSurprise);
document.addEventListener("keydown", (event) => {
  const { key, target, ctrlKey, metaKey, altKey } = event;
  if (key.toLowerCase() !== "n" || ctrlKey || metaKey || altKey || !store.state.ink.isOn) return;
  if (target.matches("textarea, input:not([type=radio], [type=checkbox], [type=range]), select")) return;
  event.preventDefault();
  nextSurprise();
}, true);
// Titles of all tokens would be much of the page.
document.addEventListener("pointerover", ({ target }) => {
  const tokens = target.title ? null : tokensIn(target);
  if (tokens) target.title = describe(tokens);
});
store.subscribe(({ ink }) => ink.isOn, showInk);
store.subscribe(({ manuscript, ink, status }) =>
  [ink.isOn, manuscript.current, manuscripts.isBusy(manuscript), Boolean(status?.server.ready)].join(), scoreVersion);
showInk();
