/**
 * Steering: at a token of the text, a panel with the model's eight likeliest alternatives. Taking one rewrites the rest
 * with the same settings and seed, as a new version.
 */

import { ApiError, postJson } from "./api.js";
import { $, announce, el, setText } from "./dom.js";
import { percent, printable } from "./format.js";
import { showError as showFailure, write } from "./generation.js";
import * as manuscripts from "./manuscript.js";
import { requestOf } from "./sampling.js";
import { score } from "./scoring.js";
import { store } from "./store.js";
import { codePoints, wholeCharacters } from "./text.js";
import { elementAt, offsetAtPoint, offsetOf, unwrap, wrap } from "./text-range.js";

const NUM_ALTERNATIVES = 8;
/** Code units before and after the token whose tokens are found with it. */
const NEARBY = 200;
/** A rewritten text has at least so many tokens. */
const MIN_TOKENS = 100;
/** Ids sent as a prompt; no model sees more. */
const MAX_IDS = 16_384;

const root = $("text");
const panel = $("steer");

/** The tokens around the cursor: {pieces, tokens}, each token with its `start` and `end` in the text. */
let nearby = null;
/** The token at the cursor: its index in `nearby.tokens`; and the elements that show it. */
let index = -1;
let cursor = { elements: [], isOwn: false };
/** Where the cursor was, for going on from there. */
let lastOffset = null;
let controller = null;
/** Whether the panel is to open as soon as the alternatives are there. */
let isOpening = false;

const version = () => manuscripts.current(store.state.manuscript);
const text = () => manuscripts.textOf(version());
const isOpen = () => panel.matches(":popover-open");

/** The request that the version, or the one before it, was written with. */
function requestBefore({ versions }, { writing, parent }) {
  if (writing) return writing.request;
  return versions[parent] ? requestBefore({ versions }, versions[parent]) : requestOf(store.state.settings);
}

const settingsOf = (request) => {
  const { prompt, prompt_ids: ids, n, ...settings } = request;
  return settings;
};

/** The model whose alternatives are shown: that which would write the rest. */
const modelNow = () => requestBefore(store.state.manuscript, version()).model ?? store.state.run;

/** Find the tokens around the code unit `offset`, if they are not known. */
async function fetchNearby(offset) {
  const { pieces } = version();
  const known = nearby?.pieces === pieces ? nearby.tokens : null;
  // The first of those nearby may begin before its word.
  if (known && (known[0].start < offset || offset === 0) && offset < known.at(-1).end) return;
  const all = text();
  let [start] = wholeCharacters(all, Math.max(0, offset - NEARBY), offset);
  start = start && all.slice(0, offset).indexOf(" ", start) > 0 ? all.indexOf(" ", start) : start;
  const [, end] = wholeCharacters(all, offset, Math.min(all.length, offset + NEARBY));
  const request = { text: all.slice(start, end), prompt: all.slice(0, start), model: modelNow(), signal: newSignal() };
  const { tokens } = await score(request);
  let at = start;
  nearby = { pieces, tokens: tokens.map((token) => ({ ...token, start: at, end: (at += token.text.length), top: null })) };
}

function newSignal() {
  controller?.abort();
  controller = new AbortController();
  return controller.signal;
}

/** Give token `index` its alternatives: after exactly the text before it, as if the model were to go on from there. */
async function fetchAlternatives() {
  const { tokens } = nearby;
  const at = index;
  if (tokens[at].top) return;
  const [first, last] = partsOfCharacter();
  const reply = await score({
    text: text().slice(tokens[first].start, tokens[last].end), prompt: text().slice(0, tokens[first].start), model: modelNow(),
    topLogprobs: NUM_ALTERNATIVES, signal: newSignal(),
  });
  const { logprob, top } = reply.tokens[Math.min(at - first, reply.tokens.length - 1)];
  tokens[at] = { ...tokens[at], logprob, top };
}

/** Put the cursor on the token at `offset` and tell its probability. Returns whether it is still there. */
async function moveTo(offset) {
  if (manuscripts.isBusy(store.state.manuscript) || offset < 0 || offset >= text().length) return false;
  const { pieces } = version();
  try {
    await fetchNearby(offset);
    if (version().pieces !== pieces) return false;
    // Of several tokens in one character, the first: the others have the rest of it.
    const at = nearby.tokens.findIndex(({ start, end }) => start <= offset && offset < Math.max(end, start + 1));
    return await moveToToken(at);
  } catch (error) {
    return explain(error);
  }
}

/** Put the cursor on token `at` of those nearby. */
async function moveToToken(at) {
  const { tokens } = nearby;
  select(at);
  try {
    await fetchAlternatives();
  } catch (error) {
    return explain(error);
  }
  if (nearby?.tokens !== tokens || index !== at) return false;
  cursor.elements[0].setAttribute("aria-label", describe(tokens[at]));
  return true;
}

/** Show why there are no alternatives. */
function explain(error) {
  if (error.name === "AbortError") return false;
  if (!(error instanceof ApiError)) throw error;
  showError(error.message);
  return false;
}

function showError(message) {
  setText($("steer-title"), message);
  $("steer-list").replaceChildren();
  $("steer-note").hidden = true;
  if (!isOpen()) panel.showPopover();
  place();
  announce(message);
}

/** Show the cursor at token `at` of those nearby. */
function select(at) {
  clearCursor();
  index = at;
  const token = nearby.tokens[at];
  const [start, end] = wholeCharacters(text(), token.start, Math.max(token.end, token.start + 1));
  lastOffset = token.start;
  const own = elementAt(root, start, end);
  const elements = own ? [own] : wrap(root, start, end, () => el("span"));
  cursor = { elements, isOwn: !own };
  for (const element of elements) element.classList.add("cursor");
  const [first] = elements;
  first.setAttribute("role", "button");
  first.setAttribute("aria-haspopup", "dialog");
  first.setAttribute("aria-label", printable(token.key));
  first.tabIndex = -1;
  first.focus({ preventScroll: true });
  first.scrollIntoView({ block: "nearest" });
}

function clearCursor() {
  for (const element of cursor.elements) {
    if (cursor.isOwn) unwrap(element);
    else {
      element.classList.remove("cursor");
      for (const name of ["role", "aria-haspopup", "aria-label", "tabindex"]) element.removeAttribute(name);
    }
  }
  cursor = { elements: [], isOwn: false };
  index = -1;
}

function close() {
  isOpening = false;
  if (isOpen()) panel.hidePopover();
  clearCursor();
}

const describe = ({ key, logprob }) => `${printable(key)} ${percent(Math.exp(logprob))}`;

/** Put the cursor on the token that an element shows. */
export async function focusElement(element) {
  await moveTo(offsetOf(root, element, 0));
}

/** Move to the neighbour of the token, and show its alternatives if the panel is open. */
async function walk(distance) {
  const wasOpen = isOpen() || isOpening;
  const to = index + distance;
  const isNearby = index >= 0 && nearby.tokens[to] && (to > 0 || nearby.tokens[0].start === 0);
  const { start, end } = nearby?.tokens[index] ?? {};
  const offset = index < 0 ? Math.min(lastOffset ?? writtenFrom(), text().length - 1) : distance > 0 ? end : start - 1;
  if ((await (isNearby ? moveToToken(to) : moveTo(offset))) && wasOpen) showPanel();
}

/** Where the model's part of the text begins. */
function writtenFrom() {
  const { writing } = version();
  return writing ? manuscripts.textOf(version(), 0, writing.start).length : 0;
}

/** The first and the last token of the character that token `index` is in. The last one has its text. */
function partsOfCharacter() {
  const { tokens } = nearby;
  let [first, last] = [index, index];
  while (first > 0 && !tokens[first - 1].text) first--;
  while (!tokens[last].text && last < tokens.length - 1) last++;
  return [first, last];
}

/** The eight likeliest tokens in the place of token `index`. */
const alternatives = () => nearby.tokens[index].top.slice().sort((a, b) => b[1] - a[1]).slice(0, NUM_ALTERNATIVES);

function showPanel() {
  const token = nearby.tokens[index];
  const likeliest = alternatives();
  const most = Math.exp(likeliest[0][1]);
  const [first, last] = partsOfCharacter();
  const part = last > first ? ` (part ${index - first + 1} of ${last - first + 1} of a character)` : "";
  setText($("steer-title"), `${printable(token.key)} was ${percent(Math.exp(token.logprob))} likely${part}`);
  $("steer-list").replaceChildren(...likeliest.map(([key, logprob], i) => {
    const probability = Math.exp(logprob);
    const bar = el("span", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${(100 * probability) / most}%`;
    const button = el(
      "button", { type: "button", "data-number": i + 1 },
      el("kbd", { "aria-hidden": "true" }, String(i + 1)), el("span", { class: "sign" }, printable(key)),
      el("span", { class: "track" }, bar), el("span", { class: "share" }, percent(probability)),
    );
    if (key === token.key) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => take(i));
    return el("li", {}, button);
  }));
  $("steer-note").hidden = false;
  isOpening = false;
  if (!isOpen()) panel.showPopover();
  place();
  const list = likeliest.map(([key, logprob], i) => `${i + 1}: ${describe({ key, logprob })}`);
  announce(`${describe(token)}. ${list.join(", ")}.`);
}

/** Put the panel below the token or, where there is no room, above it. (On a phone it is at the bottom: paper.css.) */
function place() {
  const rect = (cursor.elements[0] ?? $("output")).getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = panel;
  const root_ = document.documentElement;
  const left = Math.max(8, Math.min(rect.left - 24, root_.clientWidth - width - 8));
  const below = rect.bottom + 8;
  const top = below + height < root_.clientHeight ? below : Math.max(8, rect.top - height - 8);
  panel.style.left = `${left}px`;
  panel.style.top = `${top}px`;
}

async function openAt(offset) {
  isOpening = true;
  if (await moveTo(offset)) showPanel();
}

/** How many tokens to write after the token, so that the text becomes about as long as it is. */
function restOf({ start, end }) {
  const { tokens } = nearby;
  const perCharacter = tokens.length / Math.max(1, codePoints(text().slice(tokens[0].start, tokens.at(-1).end)));
  const rest = Math.ceil(codePoints(text().slice(Math.max(end, start + 1))) * perCharacter);
  return Math.min(Math.max(rest, MIN_TOKENS), store.state.status.server.max_tokens ?? Infinity);
}

/** Take alternative `i` and rewrite the rest. */
async function take(i) {
  const token = nearby?.tokens[index];
  const alternative = token && alternatives()[i];
  if (!alternative) return;
  const [key, , id] = alternative;
  const { manuscript } = store.state;
  const settings = { ...settingsOf(requestBefore(manuscript, version())), max_tokens: restOf(token) };
  const parts = [...nearby.tokens.slice(partsOfCharacter()[0], index).map((part) => part.id), id];
  close();
  $("output").focus({ preventScroll: true });
  if (parts.length === 1 && !key.startsWith("bytes:")) {
    await write(manuscripts.steered(manuscript, token.start, key), settings);
    return;
  }
  try {
    await takePart(token.start, parts, settings);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    showFailure(error.message);
  }
}

/** Go on from the text up to `start` and tokens that are parts of a character. */
async function takePart(start, parts, settings) {
  const { manuscript } = store.state;
  const model = modelNow();
  const { prompt: character } = await postJson("detokenize", { model, tokens: parts });
  if (!character.includes("\ufffd")) {
    await write(manuscripts.steered(manuscript, start, character), settings);
    return;
  }
  // Half a character is no text: the prompt is given as ids, and the model's text begins with that character.
  const { tokens } = await postJson("tokenize", { model, prompt: text().slice(0, start).slice(-MAX_IDS) });
  const ids = [...tokens, ...parts].slice(-MAX_IDS);
  await write(manuscripts.steered(manuscript, start, ""), { ...settings, prompt_ids: ids });
}

function onKey(event) {
  const { key, target, ctrlKey, metaKey, altKey } = event;
  if (ctrlKey || metaKey || altKey || manuscripts.isBusy(store.state.manuscript)) return;
  const isAtToken = target.classList.contains("cursor");
  if (key === "ArrowRight" || key === "ArrowLeft") walk(key === "ArrowRight" ? 1 : -1);
  else if (isOpen() && /^[1-8]$/.test(key)) take(Number(key) - 1);
  else if (isOpen() && (key === "ArrowDown" || key === "ArrowUp")) moveInList(key === "ArrowDown" ? 1 : -1);
  else if (isAtToken && (key === "Enter" || key === " ")) openAt(lastOffset);
  else if (key === "Escape" && isOpen()) panel.hidePopover();
  else if (key === "Escape" && isAtToken) {
    clearCursor();
    $("output").focus({ preventScroll: true });
  } else return;
  event.preventDefault();
}

function moveInList(distance) {
  const buttons = [...$("steer-list").querySelectorAll("button")];
  const at = buttons.indexOf(document.activeElement) + distance;
  if (at < 0) cursor.elements[0]?.focus();
  else buttons[Math.min(at, buttons.length - 1)].focus();
}

// Capturing: before the paper takes a key for something to type.
$("output").addEventListener("keydown", onKey, true);
panel.addEventListener("keydown", onKey);
root.addEventListener("click", ({ clientX, clientY, detail }) => {
  if (detail > 1 || !getSelection().isCollapsed) return;
  const offset = offsetAtPoint(root, clientX, clientY);
  if (offset >= 0) openAt(offset);
});
panel.addEventListener("toggle", ({ newState }) => {
  if (newState === "closed" && panel.contains(document.activeElement)) cursor.elements[0]?.focus({ preventScroll: true });
});
$("steer-close").addEventListener("click", () => {
  panel.hidePopover();
  cursor.elements[0]?.focus({ preventScroll: true });
});
$("output").addEventListener("scroll", () => isOpen() && cursor.elements.length && place());
addEventListener("resize", () => isOpen() && place());
store.subscribe(({ manuscript }) => manuscript.current, () => {
  close();
  lastOffset = nearby = null;
});
new MutationObserver(() => $("output").hidden && close()).observe($("output"), { attributeFilter: ["hidden"] });
