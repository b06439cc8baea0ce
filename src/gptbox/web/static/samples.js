/** The samples written at each evaluation, on a slider from first to newest. */

import { $, setText } from "./dom.js";
import * as format from "./format.js";
import { store } from "./store.js";

const slider = $("sample-slider");
let samples = [];

/** Show the samples of a run. The slider follows the newest one unless the reader has moved it back. */
function showSamples({ run, isOther, samples: rows }) {
  setText($("samples-title"), isOther ? `How ${run} learned` : "Watch it learn");
  const atNewest = Number(slider.value) >= samples.length - 1;
  samples = rows;
  $("samples").hidden = samples.length === 0;
  if (!samples.length) return;
  slider.max = samples.length - 1;
  slider.hidden = samples.length === 1;
  if (atNewest) slider.value = samples.length - 1;
  render();
}

function render() {
  const sample = samples[Number(slider.value)];
  const position = `${Number(slider.value) + 1} of ${samples.length}`;
  const facts = `Step ${format.number(sample.step)}, loss ${format.loss(format.valLoss(sample))}`;
  setText($("sample-step"), facts);
  setText($("sample-position"), position);
  slider.setAttribute("aria-valuetext", `${facts}, ${position}`);
  const prompt = sample.prompt?.trim() ? sample.prompt : "";
  setText($("sample-prompt"), prompt);
  setText($("sample-completion"), prompt ? sample.text : sample.text.replace(/^\n+/, ""));
}

store.subscribe(({ history }) => history, showSamples);
slider.addEventListener("input", () => {
  render();
  $("sample-output").scrollTop = 0;
});
