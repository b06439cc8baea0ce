/** What was written earlier in this visit, kept in the browser alone. */

import { $, announce, copies, make } from "./dom.js";
import { keep, recall } from "./keep.js";
import { fillForm } from "./options.js";

const MOST = 30;

/** The newest first; each {request, text, facts}. */
let results = recall("results", []);

/** Add a result, dropping the oldest where there is no more room. */
export function remember(result) {
  results = [result, ...results].slice(0, MOST);
  while (!keep("results", results) && results.length > 1) results = results.slice(0, -1);
  $("earlier-list").prepend(entry(result));
  while ($("earlier-list").childElementCount > results.length) $("earlier-list").lastElementChild.remove();
  $("earlier").hidden = false;
}

function entry({ request, text, facts }) {
  const start = (request.prompt + text).replace(/\s+/g, " ").trim().slice(0, 80);
  const copy = make("button", { type: "button", class: "quiet" }, "Copy");
  copies(copy, () => request.prompt + text);
  const again = make("button", { type: "button", class: "quiet" }, "Use these settings");
  again.addEventListener("click", () => {
    fillForm(request);
    $("prompt").focus();
    announce("First words and settings are back in the form.");
  });
  const details = make(
    "details", {},
    make("summary", {}, `${start || "(empty)"}…`),
    make("p", { class: "text", translate: "no" }, make("strong", {}, request.prompt), text),
    make("div", { class: "under" }, make("p", {}, facts), make("span", { class: "pair" }, again, copy)),
  );
  return make("li", {}, details);
}

/** Show what this tab remembers from before a reload. */
export function start() {
  $("earlier-list").append(...results.map(entry));
  $("earlier").hidden = results.length === 0;
  $("forget").addEventListener("click", () => {
    results = [];
    keep("results", results);
    $("earlier-list").replaceChildren();
    $("earlier").hidden = true;
    $("prompt").focus();
    announce("The earlier texts are forgotten.");
  });
}
