/** Copied words: what stands verbatim in the training text underlined, with its share and places. */

import { ApiError, postJson } from "./api.js";
import { $, announce, el, setText } from "./dom.js";
import { number, percent } from "./format.js";
import { writerOf } from "./ink.js";
import * as manuscripts from "./manuscript.js";
import { onRendered } from "./paper.js";
import { save } from "./storage.js";
import { store } from "./store.js";
import { withoutHalf } from "./text.js";
import { wrap } from "./text-range.js";

/** Of a longer text, the end: the server's limit is 64 KiB, and a code unit has at most three bytes. */
const MAX_LENGTH = 21_000;

const root = $("text");
const bubble = $("source");
let controller = null;
/** The spans that the elements show. */
const spanOf = new WeakMap();
/** The span that Next went to. */
let last = null;

const version = () => manuscripts.current(store.state.manuscript);
const update = (change) => store.update({ ink: { ...store.state.ink, ...change } });

/** Whether the feature is there at all: a run from before has no index. */
const isOffered = ({ history, status }) => history?.has_index === true && Boolean(status?.server.ready);

async function find() {
  const { manuscript, ink, settings, run } = store.state;
  controller?.abort();
  if (!isOffered(store.state) || !ink.isCopiedOn || manuscripts.isBusy(manuscript)) return undefined;
  setText($("copied-note"), "");
  const text = manuscripts.textOf(version());
  if (text === ink.copied?.text) return undefined;
  if (!text) return update({ copied: null });
  // The text's end, from a whole character on.
  const from = text.length - withoutHalf(text.slice(-MAX_LENGTH)).length;
  controller = new AbortController();
  const { signal } = controller;
  const model = writerOf(manuscript, version())?.split("@")[0] ?? settings.model ?? run;
  try {
    const reply = await postJson("api/copied", { model, text: text.slice(from) }, signal);
    if (!signal.aborted) update({ copied: { text, share: reply.share, spans: inCodeUnits(reply.spans, text, from) } });
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    if (!(error instanceof ApiError)) throw error;
    setText($("copied-note"), error.status === 404 ? "" : error.message);
  }
  return undefined;
}

/** The spans with their bounds in code units of the whole text. */
function inCodeUnits(spans, text, from) {
  const offsets = [];
  let at = from;
  for (const character of text.slice(from)) {
    offsets.push(at);
    at += character.length;
  }
  offsets.push(at);
  return spans.map((span) => ({ ...span, start: offsets[span.start], end: offsets[span.end] }));
}

/** Underline the spans in the text that has just been rendered. */
function underline() {
  const { ink } = store.state;
  const { copied } = ink;
  const isShown = ink.isCopiedOn && isOffered(store.state) && copied && copied.text === manuscripts.textOf(version());
  $("copied-facts").hidden = !isShown;
  if (!isShown || root.querySelector(".copied")) return;
  for (const span of copied.spans) {
    for (const element of wrap(root, span.start, span.end, () => el("span", { class: "copied" }))) spanOf.set(element, span);
  }
  const { share, spans } = copied;
  setText($("copied-share"), spans.length
    ? `${percent(share)} copied: ${spans.length === 1 ? "one passage stands" : `${spans.length} passages stand`} word for word in the training text.`
    : "Nothing copied: no passage of 20 characters or more stands word for word in the training text.");
  $("next-copied").hidden = !spans.length;
}

/** Redraw the text without its underlines. */
const removeUnderlines = () => {
  for (const element of root.querySelectorAll(".copied")) {
    const { parentNode } = element;
    element.replaceWith(...element.childNodes);
    parentNode.normalize();
  }
};

function showSource(element) {
  const { source } = spanOf.get(element);
  const place = source.line ? `line ${number(source.line)}` : `character ${number(source.position)}`;
  $("source-place").textContent = `In the training text, ${place}:`;
  $("source-context").replaceChildren(
    "…", source.before, el("mark", {}, spanText(element)), source.after, "…",
  );
  if (!bubble.matches(":popover-open")) bubble.showPopover();
  const rect = element.getClientRects()[0];
  const { clientWidth } = document.documentElement;
  bubble.style.left = `${Math.max(8, Math.min(rect.left, clientWidth - bubble.offsetWidth - 8))}px`;
  const above = rect.top - bubble.offsetHeight - 6;
  bubble.style.top = `${above > 0 ? above : rect.bottom + 6}px`;
}

function spanText(element) {
  const { start, end } = spanOf.get(element);
  return manuscripts.textOf(version()).slice(start, end);
}

const hideSource = () => bubble.matches(":popover-open") && bubble.hidePopover();

/** Go to the next passage that stands in the training text. */
function next() {
  const { spans } = store.state.ink.copied;
  last = spans[(spans.indexOf(last) + 1) % spans.length];
  const element = [...root.querySelectorAll(".copied")].find((each) => spanOf.get(each) === last);
  if (!element) return;
  element.tabIndex = -1;
  element.focus({ preventScroll: true });
  element.scrollIntoView({ block: "nearest" });
  showSource(element);
  announce(`${$("source-place").textContent} ${$("source-context").textContent}`);
}

function showToggle() {
  const { isCopiedOn } = store.state.ink;
  $("copied-toggle").hidden = !isOffered(store.state);
  $("copied-toggle").setAttribute("aria-pressed", isCopiedOn);
  if (!isCopiedOn) {
    removeUnderlines();
    hideSource();
  }
  underline();
}

onRendered(underline);
store.subscribe((state) => [state.ink.isCopiedOn, isOffered(state)].join(), showToggle);
store.subscribe(({ ink }) => ink.copied, () => {
  removeUnderlines();
  underline();
});
store.subscribe((state) => [state.ink.isCopiedOn, isOffered(state), state.manuscript.current,
  manuscripts.isBusy(state.manuscript)].join(), find);
store.subscribe(({ manuscript }) => manuscript.current, hideSource);
$("copied-toggle").addEventListener("click", () => {
  save("copied", !store.state.ink.isCopiedOn);
  update({ isCopiedOn: !store.state.ink.isCopiedOn });
});
$("next-copied").addEventListener("click", next);
root.addEventListener("pointerover", ({ target, pointerType }) => {
  const element = target.closest?.(".copied") ?? target.querySelector?.(":scope > .copied");
  if (element && pointerType === "mouse") showSource(element);
});
root.addEventListener("pointerout", hideSource);
root.addEventListener("focusout", hideSource);
showToggle();
find();
