/** What the model learned since the mark before: its share of real words, its commonest slip, and a fresh line. */

import { $, el, setText } from "./dom.js";
import { number, percent, printable } from "./format.js";
import { historyTraining } from "./history.js";
import { store } from "./store.js";
import { chosenSample, sampleBefore } from "./timeline.js";

/** What a token is called, if it is not a letter. */
const UNITS = { byte: "byte", token: "token" };

/** "74 %, before 61 %". */
function withBefore(value, before) {
  if (!Number.isFinite(value)) return "";
  const was = Number.isFinite(before) ? percent(before) : "";
  return percent(value) + (was && was !== percent(value) ? `, before ${was}` : "");
}

/** A token's text in quotes; a space, a line break and the end of a text by their names. */
function quoted(token) {
  if (!token) return "(end of text)";
  const text = printable(token);
  return text.startsWith("(") && text !== token ? text : `“${text}”`;
}

/** "It still writes “e” where “a” stands, in 3.1 % of its mistakes." */
function slip(confusion) {
  if (!confusion) return "";
  const share = percent(confusion.share ?? 0).replace(" ", "\u00a0"); // not on two lines
  return `It still writes ${quoted(confusion.predicted)} where ${quoted(confusion.expected)} stands, in ${share} of its mistakes.`;
}

function render() {
  const sample = chosenSample();
  const learned = sample?.learned;
  $("learned").hidden = !learned;
  if (!learned) return;
  const before = sampleBefore();
  setText($("learned-title"), before ? `What it learned since step ${number(before.step)}` : "What it knows by now");
  const unit = UNITS[historyTraining(store.state)?.token_unit] ?? "letter";
  const figures = [
    ["Real words", withBefore(learned.real_words, before?.learned?.real_words)],
    [`Next ${unit} right`, withBefore(learned.accuracy, before?.learned?.accuracy)],
    ["Commonest slip", slip(learned.confusion)],
  ].filter(([, text]) => text);
  const row = ([name, text]) => el("div", {}, el("dt", {}, name), el("dd", {}, text));
  $("learned-figures").replaceChildren(...figures.map(row));
  const line = learned.line?.trim() ?? "";
  $("learned-line").hidden = !line;
  setText($("learned-line"), line);
}

store.subscribe(({ history }) => history, render);
store.subscribe(({ snapshot }) => snapshot, render);
