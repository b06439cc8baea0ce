/** What the model learned since the mark before: its share of real words, its commonest slip, and a fresh line. */

import { $, el, setText } from "./dom.js";
import { number, percent, printable } from "./format.js";
import { store } from "./store.js";
import { chosenSample, sampleBefore } from "./timeline.js";

/** "74 %, before 61 %". */
function withBefore(value, before) {
  if (!Number.isFinite(value)) return "";
  const was = Number.isFinite(before) ? percent(before) : "";
  return percent(value) + (was && was !== percent(value) ? `, before ${was}` : "");
}

/** "It still writes e where a stands, in 3.1 % of its mistakes." */
function slip(confusion) {
  if (!confusion?.expected || !confusion.predicted) return "";
  const [expected, predicted] = [printable(confusion.expected), printable(confusion.predicted)];
  const share = Number.isFinite(confusion.share) ? `, in ${percent(confusion.share)} of its mistakes` : "";
  return `It still writes ${predicted} where ${expected} stands${share}.`;
}

function render() {
  const sample = chosenSample();
  const learned = sample?.learned;
  $("learned").hidden = !learned;
  if (!learned) return;
  const before = sampleBefore();
  setText($("learned-title"), before ? `What it learned since step ${number(before.step)}` : "What it knows by now");
  const figures = [
    ["Real words", withBefore(learned.real_words, before?.learned?.real_words)],
    ["Next letter right", withBefore(learned.accuracy, before?.learned?.accuracy)],
    ["Commonest slip", slip(learned.confusion)],
  ].filter(([, text]) => text);
  $("learned-figures").replaceChildren(...figures.map(([name, text]) => el("div", {}, el("dt", {}, name), el("dd", {}, text))));
  const line = learned.line?.trim() ?? "";
  $("learned-line").hidden = !line;
  setText($("learned-line"), line);
}

store.subscribe(({ history }) => history, render);
store.subscribe(({ snapshot }) => snapshot, render);
