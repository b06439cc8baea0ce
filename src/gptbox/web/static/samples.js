/** The samples written at each evaluation, on a slider: from noise to text. */

import { $, say } from "./dom.js";
import { loss, number, unseen } from "./words.js";

let samples = [];

/** Show the samples of a run, staying with the newest unless the reader has gone back to an older one. */
export function showSamples(rows, title) {
  say($("samples-title"), title);
  const slider = $("sample-slider");
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
  const slider = $("sample-slider");
  const sample = samples[Number(slider.value)];
  const place = `${Number(slider.value) + 1} of ${samples.length}`;
  const facts = `Step ${number(sample.step)}, loss ${loss(unseen(sample))}`;
  if ($("sample-facts").dataset.facts !== facts + place) {
    $("sample-facts").dataset.facts = facts + place;
    const left = document.createElement("span");
    const right = document.createElement("span");
    left.textContent = facts;
    right.textContent = place;
    $("sample-facts").replaceChildren(left, " ", right);
  }
  slider.setAttribute("aria-valuetext", `${facts}, ${place}`);
  const prompt = sample.prompt?.trim() ? sample.prompt : "";
  say($("sample-prompt"), prompt);
  say($("sample-written"), prompt ? sample.text : sample.text.replace(/^\n+/, ""));
}

export function start() {
  $("sample-slider").addEventListener("input", () => {
    render();
    $("sample-paper").scrollTop = 0;
  });
}
