/** Characters on the paper that the model does not know, named before the text is sent. */

import { ApiError, postJson } from "./api.js";
import { $, el } from "./dom.js";
import { count, isolate, printable } from "./format.js";
import { store } from "./store.js";

const DELAY_MS = 300;
/** Characters that are named; the rest is counted. */
const MAX_NAMED = 6;

/** What a model reads in the place of a character, itself if it knows it; emptied when another model is used. */
const readings = new Map();
let readingsOf = null;
let timer = 0;

/** Ask which of the characters the model does not know. */
async function look(characters, model) {
  if (!characters.length) return;
  const reply = await postJson("tokenize", { model, prompt: characters.join(""), return_token_strs: true });
  // A model of bytes or of longer tokens knows all; one of characters has a token for each.
  const isByCharacter = reply.warnings.length && reply.token_strs.length === characters.length;
  characters.forEach((character, i) => readings.set(character, isByCharacter ? reply.token_strs[i] : character));
}

async function check() {
  const { settings, run, status } = store.state;
  const model = settings.model ?? run;
  const user = model ?? status?.server.model;
  if (!status?.server.ready || $("prompt").hidden) return;
  if (readingsOf !== user) readings.clear();
  readingsOf = user;
  const text = $("prompt").value;
  const isWhole = (character) => !/[\ud800-\udfff]/.test(character) || character.length > 1;
  const characters = [...new Set(text)].filter((character) => isWhole(character) && !readings.has(character));
  try {
    await look(characters.slice(0, 10_000), model);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return; // Generate says what is wrong
  }
  if (text === $("prompt").value) show(text);
}

/** Where a character stands: "line 2, character 5". */
function placeOf(text, at) {
  const lines = text.slice(0, at).split("\n");
  return `line ${lines.length}, character ${[...lines.at(-1)].length + 1}`;
}

function show(text) {
  const found = new Map();
  let at = 0;
  for (const character of text) {
    if ((readings.get(character) ?? character) !== character) {
      const entry = found.get(character) ?? { at, times: 0 };
      entry.times++;
      found.set(character, entry);
    }
    at += character.length;
  }
  const items = [...found].slice(0, MAX_NAMED).map(([character, { at: first, times }]) => {
    const where = times > 1 ? `${times} times, first in ${placeOf(text, first)}` : placeOf(text, first);
    const words = `The model does not know ${isolate(printable(character))} (${where}) and reads ${isolate(printable(readings.get(character)))} instead. `;
    const button = el("button", { type: "button", class: "link", "aria-label": `Show ${printable(character)}` }, "Show");
    button.addEventListener("click", () => {
      $("prompt").focus();
      $("prompt").setSelectionRange(first, first + character.length);
    });
    return el("li", {}, words, button);
  });
  if (found.size > MAX_NAMED) items.push(el("li", {}, `It does not know ${count(found.size - MAX_NAMED, "other character")}.`));
  $("unknown").replaceChildren(...items);
  $("unknown").hidden = !items.length || $("prompt").hidden;
}

function schedule() {
  clearTimeout(timer);
  timer = setTimeout(check, DELAY_MS);
}

$("prompt").addEventListener("input", schedule);
store.subscribe(({ settings, run, status }) => [settings.model, run, status?.server.model, status?.server.ready].join(), schedule);
store.subscribe(({ manuscript }) => manuscript.current, schedule);
new MutationObserver(() => {
  $("unknown").hidden = true;
  schedule();
}).observe($("prompt"), { attributeFilter: ["hidden"] });
