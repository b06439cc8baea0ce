/** The timeline: one control over all snapshots of a run. Curve and slider move it, or it plays by itself. */

import { evaluations, lossTable } from "./axis.js";
import { $, announce, el, setText } from "./dom.js";
import * as format from "./format.js";
import { historyTraining } from "./history.js";
import { LossCurve } from "./loss-curve.js";
import { explainByHeart, explainOverfitting, overfitsFrom } from "./overfitting.js";
import { load, save } from "./storage.js";
import { store } from "./store.js";

/** The slider's unit is the axis, so that its thumb lies under the mark. Both know the thumb's width (timeline.css). */
const SLIDER_UNITS = 1000;
const THUMB_PX = 20;

/** Playing all snapshots takes about so long, one is shown for at least and at most so long. */
const PLAY_MS = 12_000;
const [MIN_FRAME_MS, MAX_FRAME_MS] = [180, 450];

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const slider = $("timeline-slider");
const curve = new LossCurve($("loss-chart"), placeSlider, (x) => {
  chooseAt(x);
  slider.focus({ preventScroll: true }); // so that the arrow keys go on from there
});

/** The run shown, its snapshots as its samples by step, and its metrics rows by step. */
let run = null;
let samples = [];
let rows = new Map();
/** The step after which the run overfits, or null. */
let overfits = null;
let axis = null;
let isLogarithmic = load("log-time", true);
let isDragged = false;
/** The timer of the next frame while the timeline plays, else 0. */
let frameTimer = 0;
const axisListeners = [];

/** Call `listener(axis)` whenever the curve's time axis has been drawn (axis.js), for what is aligned with it. */
export const onAxis = (listener) => {
  axisListeners.push(listener);
  if (axis) listener(axis);
};

const chosenIndex = () => indexOf(store.state.snapshot);

/** The index of a step's sample, or of the nearest one; null is the newest. */
function indexOf(step) {
  if (step === null || !samples.length) return samples.length - 1;
  const distance = (i) => Math.abs(samples[i].step - step);
  return samples.reduce((best, _, i) => (distance(i) < distance(best) ? i : best), 0);
}

/** The sample of the chosen snapshot, and that of the mark before; undefined where there is none. */
export const chosenSample = () => samples[chosenIndex()];
export const sampleBefore = () => samples[chosenIndex() - 1];

/** The step of the run's best snapshot: the server's, where it is known. */
function bestStep() {
  const best = store.state.kept?.get(run)?.best;
  if (Number.isFinite(best)) return best;
  const evaluated = evaluations([...rows.values()]);
  return evaluated.length
    ? evaluated.reduce((low, row) => (format.valLoss(row) < format.valLoss(low) ? row : low)).step
    : null;
}

function choose(index) {
  const { step } = samples[index];
  store.update({ snapshot: index === samples.length - 1 ? null : step });
}

/** Choose the snapshot nearest to a place on the curve, in pixels. */
function chooseAt(x) {
  if (!axis || !samples.length) return;
  pause();
  const distance = ({ step }) => Math.abs(axis.x(step) - x);
  choose(samples.reduce((best, sample, i) => (distance(sample) < distance(samples[best]) ? i : best), 0));
}

function showHistory(history) {
  const before = run;
  const isNewRun = history.run !== before;
  const newest = samples.at(-1)?.step;
  run = history.run;
  rows = new Map((history.metrics.length ? history.metrics : history.samples).map((row) => [row.step, row]));
  samples = [...new Map(history.samples.map((sample) => [sample.step, sample])).values()];
  if (isNewRun && before !== null) {
    pause();
    store.update({ snapshot: null });
  }
  const hasCurve = rows.size > 0;
  $("timeline").hidden = !hasCurve && !samples.length;
  $("timeline-curve").hidden = !hasCurve;
  $("loss-table").hidden = !hasCurve;
  $("log-time").hidden = !hasCurve;
  $("sample").hidden = !samples.length;
  setText($("timeline-title"), history.isOther ? `How ${run} learned` : "How it learned");
  drawCurve(!isNewRun && samples.at(-1)?.step !== newest);
  renderTable();
  render();
  if (!isNewRun && newest === undefined && samples.length) welcomeFirst();
}

/** The first snapshot is an event; generation.js announces it, as from now on one can write. */
function welcomeFirst() {
  if (reducedMotion.matches) return;
  const ring = (color) => ({ boxShadow: `0 0 0 4px ${color}` });
  $("sample-output").animate([ring("var(--accent)"), ring("transparent")], { duration: 3000, easing: "ease-in" });
}

function drawCurve(glides = false) {
  const metrics = [...rows.values()];
  overfits = overfitsFrom(metrics);
  const before = $("overfitting").textContent;
  setText($("overfitting"), explainOverfitting(overfits));
  if (overfits !== null && !before && store.state.status?.training?.phase === "training") {
    announce(explainOverfitting(overfits));
  }
  curve.show({ rows: metrics, best: bestStep(), overfitsFrom: overfits, isLogarithmic }, glides);
}

/** Put the slider under the curve: its thumb's centre moves from the axis' first to its last step. */
function placeSlider(drawn) {
  axis = drawn;
  slider.style.marginLeft = `${axis.left - THUMB_PX / 2}px`;
  slider.style.width = `${axis.right - axis.left + THUMB_PX}px`;
  placeThumb();
  for (const listener of axisListeners) listener(axis);
}

function placeThumb() {
  const sample = chosenSample();
  if (sample && axis) slider.value = Math.min(1, axis.fraction(sample.step)) * SLIDER_UNITS;
}

/** "Step 1,250, after 24 s: loss 1.61". */
function describe(sample) {
  const seconds = rows.get(sample.step)?.elapsed_s;
  const after = seconds > 0 ? `, after ${format.duration(seconds)}` : "";
  return `Step ${format.number(sample.step)}${after}: loss ${format.loss(format.valLoss(sample))}`;
}

function render() {
  const sample = chosenSample();
  renderMeaning(sample);
  if (!sample) return curve.choose(null);
  const index = chosenIndex();
  const position = `${index + 1} of ${samples.length}`;
  const isBest = sample.step === bestStep() && samples.length > 1;
  setText($("sample-step"), describe(sample));
  setText($("sample-position"), `${position}${isBest ? ", the best" : ""}`);
  slider.disabled = samples.length < 2;
  slider.setAttribute("aria-valuetext", `${describe(sample)}, ${position}`);
  placeThumb();
  curve.choose({ step: sample.step, loss: format.valLoss(sample) });
  renderSample(sample);
  renderPlay();
}

/** What the loss of the chosen snapshot reads like, or that of the run before it has snapshots. */
function renderMeaning(sample) {
  const training = historyTraining(store.state);
  const loss = format.valLoss(sample) ?? format.modelLoss(training);
  const isByHeart = sample && overfits !== null && sample.step > overfits;
  setText($("loss-meaning"), isByHeart ? explainByHeart(loss, overfits) : format.lossMeaning(loss, training));
}

function renderSample({ prompt, text }) {
  const shownPrompt = prompt?.trim() ? prompt : "";
  const shownText = shownPrompt ? text : text.replace(/^\n+/, "");
  if ($("sample-prompt").textContent + $("sample-completion").textContent === shownPrompt + shownText) return;
  if (frameTimer) dissolve();
  setText($("sample-prompt"), shownPrompt);
  setText($("sample-completion"), shownText);
  $("sample-output").scrollTop = 0;
}

/** Let the text shown go over into the next one: letters that stay the same stand still. */
function dissolve() {
  const paragraph = $("sample-output").querySelector(".text");
  const [prompt, text] = [$("sample-prompt").textContent, $("sample-completion").textContent];
  const before = el("p", { class: "text before", "aria-hidden": "true" }, el("strong", {}, prompt), text);
  for (const old of $("sample-output").querySelectorAll(".before")) old.remove();
  $("sample-output").append(before);
  const timing = { duration: frameMs() * 0.7, easing: "ease-in-out" };
  paragraph.animate({ opacity: [0, 1] }, timing);
  before.animate({ opacity: [1, 0] }, timing).finished.then(() => before.remove(), () => before.remove());
}

// Playing

const frameMs = () => Math.min(MAX_FRAME_MS, Math.max(MIN_FRAME_MS, PLAY_MS / samples.length));

function renderPlay() {
  const isAtEnd = chosenIndex() === samples.length - 1;
  const step = isAtEnd ? "Back to the first" : "Next snapshot";
  $("play").hidden = samples.length < 2;
  setText($("play"), reducedMotion.matches ? step : frameTimer ? "Pause" : "Play");
  $("play").dataset.playing = Boolean(frameTimer);
}

function pause() {
  clearTimeout(frameTimer);
  frameTimer = 0;
  renderPlay();
}

function play() {
  if (chosenIndex() === samples.length - 1) choose(0);
  frameTimer = setTimeout(showNext, frameMs());
  renderPlay();
}

function showNext() {
  const next = chosenIndex() + 1;
  if (next < samples.length - 1) frameTimer = setTimeout(showNext, frameMs());
  if (next < samples.length) choose(next);
  if (next >= samples.length - 1) {
    pause();
    announce(`${describe(chosenSample())}, the newest.`);
  }
}

function onPlay() {
  if (reducedMotion.matches) return choose((chosenIndex() + 1) % samples.length);
  if (frameTimer) pause();
  else play();
}

// The slider

const KEYS = new Map([
  ["ArrowLeft", -1], ["ArrowDown", -1], ["ArrowRight", 1], ["ArrowUp", 1], ["PageDown", -5], ["PageUp", 5],
  ["Home", -Infinity], ["End", Infinity],
]);

/** A key goes from snapshot to snapshot, however far apart they are on the axis. */
function onKey(event) {
  const by = KEYS.get(event.key);
  if (by === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  pause();
  choose(Math.max(0, Math.min(samples.length - 1, chosenIndex() + by)));
}

function onSlide() {
  if (!axis) return;
  const x = axis.left + (Number(slider.value) / SLIDER_UNITS) * (axis.right - axis.left);
  const before = chosenIndex();
  const beforeX = Math.min(axis.x(samples[before].step), axis.right);
  chooseAt(x);
  // A screen reader's small step must not end at the same snapshot.
  if (!isDragged && chosenIndex() === before && Math.abs(x - beforeX) > 0.5) {
    choose(Math.max(0, Math.min(samples.length - 1, before + Math.sign(x - beforeX))));
  }
  placeThumb();
}

function renderTable() {
  if ($("loss-table").open && rows.size) $("loss-rows").replaceChildren(lossTable([...rows.values()]));
}

function renderScale() {
  $("log-time").setAttribute("aria-pressed", isLogarithmic);
}

store.subscribe(({ history }) => history, showHistory);
store.subscribe(({ snapshot }) => snapshot, render);
store.subscribe(({ kept }) => kept, () => run && (drawCurve(), render()));
store.subscribe(({ status }) => status, () => renderMeaning(chosenSample()));
slider.addEventListener("input", onSlide);
slider.addEventListener("keydown", onKey);
slider.addEventListener("pointerdown", () => { isDragged = true; });
for (const name of ["pointerup", "pointercancel"]) addEventListener(name, () => { isDragged = false; });
$("play").addEventListener("click", onPlay);
$("log-time").addEventListener("click", () => {
  isLogarithmic = !isLogarithmic;
  save("log-time", isLogarithmic);
  renderScale();
  drawCurve();
});
$("loss-table").addEventListener("toggle", renderTable);
document.addEventListener("visibilitychange", () => document.hidden && frameTimer && pause());
reducedMotion.addEventListener("change", () => (pause(), samples.length && renderPlay()));
renderScale();
