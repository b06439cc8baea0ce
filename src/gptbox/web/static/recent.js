/** The texts generated earlier in this tab, stored in the browser only. */

import { $, announce, copyOnClick, el } from "./dom.js";
import { fillForm } from "./form.js";
import { textFacts } from "./format.js";
import { load, save } from "./storage.js";
import { store } from "./store.js";
import { isUnfinished, isWithinCharacter, plainText } from "./text.js";

const MAX_TEXTS = 30;

/** Newest first; each {request, text, facts}. */
let texts = load("results", []);

/** Add a text that has ended, dropping the oldest ones when the storage is full. */
function addRecent(ended) {
  const entry = { request: ended.request, text: plainText(ended), facts: textFacts(ended) };
  texts = [entry, ...texts].slice(0, MAX_TEXTS);
  while (!save("results", texts) && texts.length > 1) texts = texts.slice(0, -1);
  const list = $("recent-list");
  list.prepend(listItem(entry));
  while (list.childElementCount > texts.length) list.lastElementChild.remove();
  $("recent").hidden = false;
}

function listItem({ request, text, facts }) {
  const line = (request.prompt + text).replace(/\s+/g, " ").trim();
  let end = 80;
  while (isWithinCharacter(line.slice(0, end), line.slice(end))) end--;
  const copy = el("button", { class: "link" }, "Copy");
  copyOnClick(copy, () => request.prompt + text);
  const reuse = el("button", { class: "link" }, "Use these settings");
  reuse.addEventListener("click", () => {
    fillForm(request);
    $("prompt").focus();
    announce("Prompt and settings are back in the form.");
  });
  const buttons = el("span", { class: "buttons" }, reuse, copy);
  const details = el(
    "details", {},
    el("summary", { dir: "auto" }, `${line.slice(0, end) || "(empty)"}…`),
    el("p", { class: "text", translate: "no" }, el("strong", {}, request.prompt), text),
    el("div", { class: "row" }, el("p", {}, facts), buttons),
  );
  return el("li", {}, details);
}

const hasEnded = (text) => text?.length > 0 && !isUnfinished(text);

// The texts stored before a reload.
$("recent-list").append(...texts.map(listItem));
$("recent").hidden = texts.length === 0;
$("clear-recent").addEventListener("click", () => {
  texts = [];
  save("results", texts);
  $("recent-list").replaceChildren();
  $("recent").hidden = true;
  $("prompt").focus();
  announce("Recent texts cleared.");
});
store.subscribe(({ text }) => text, (text, before) => hasEnded(before) && addRecent(before));
// The shown text joins the recent ones, so that a reload does not lose it.
addEventListener("pagehide", (event) => {
  const { text } = store.state;
  if (!event.persisted && hasEnded(text)) addRecent(text);
});
