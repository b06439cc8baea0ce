/** The text as it arrives, its facts and its warnings. Tokens are only ever appended, once per frame. */

import { $, copyOnClick, el, setText } from "./dom.js";
import { isolate, textFacts } from "./format.js";
import { tokenElement } from "./probabilities.js";
import { store } from "./store.js";
import { isUnfinished, isWithinCharacter, plainText } from "./text.js";

/** On the page: the first `count` of `tokens`, and whether they are coloured. */
let shown = { tokens: null, count: 0, isColoured: false };
/** The tokens of the last coloured element. */
let complete = [];
/** The tokens after them if they end within a code point; not on the page yet. */
let incomplete = [];
let frame = 0;

function render() {
  cancelAnimationFrame(frame);
  frame = 0;
  const { text, showProbabilities } = store.state;
  if (!text) return;
  const hasEnded = !isUnfinished(text);
  const isEmpty = hasEnded && !text.length;
  $("output-hint").hidden = !isEmpty;
  $("text").hidden = isEmpty;
  $("copy").hidden = !hasEnded || isEmpty;
  $("output").toggleAttribute("data-writing", !hasEnded);
  renderTokens(text, showProbabilities && text.hasProbabilities);
  setText($("facts"), textFacts(text));
}

/** Scrolls on only if the reader is at the end. */
function renderTokens({ request, tokens }, isColoured) {
  const output = $("output");
  const isNew = tokens !== shown.tokens;
  const isAtEnd = isNew || output.scrollHeight - output.scrollTop - output.clientHeight < 24;
  if (isNew) setText($("text-prompt"), request.prompt);
  if (isNew || isColoured !== shown.isColoured) {
    $("text-completion").replaceChildren();
    shown = { tokens, count: 0, isColoured };
    incomplete = [];
  }
  const added = tokens.slice(shown.count);
  shown.count = tokens.length;
  if (isColoured) appendColoured(added);
  else if (added.length) appendPlain(plainText({ tokens: added }));
  if (isAtEnd) output.scrollTop = output.scrollHeight;
}

function appendPlain(string) {
  const last = $("text-completion").lastChild;
  if (last?.nodeType === Node.TEXT_NODE) last.appendData(string);
  else $("text-completion").append(string);
}

function appendColoured(tokens) {
  for (const token of tokens) {
    if (token.logprob === undefined) {
      appendPlain(token.text);
      continue;
    }
    incomplete.push(token);
    if (!token.text) continue;
    const last = $("text-completion").lastChild;
    const isExtension = complete.length < 50 && last?.title && isWithinCharacter(last.textContent, token.text);
    complete = isExtension ? [...complete, ...incomplete] : incomplete;
    if (isExtension) last.remove();
    $("text-completion").append(tokenElement(complete));
    incomplete = [];
  }
}

function renderWarnings(warnings = []) {
  $("warnings").replaceChildren(...warnings.map((warning) => el("li", {}, isolate(warning))));
  $("warnings").hidden = !warnings.length;
}

store.subscribe(({ text }) => text, (text) => {
  if (text.state === "writing") frame ||= requestAnimationFrame(render);
  else render();
});
store.subscribe(({ showProbabilities }) => showProbabilities, render);
store.subscribe(({ text }) => text?.warnings, renderWarnings);

copyOnClick($("copy"), () => store.state.text.request.prompt + plainText(store.state.text));
// A selection is copied without the colours, too.
$("text").addEventListener("copy", (event) => {
  const selected = getSelection().toString();
  if (!selected) return;
  event.clipboardData.setData("text/plain", selected);
  event.preventDefault();
});
