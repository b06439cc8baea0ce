/** A line to watch: scored at every snapshot, its sparkline shows how it is being learned. */

import { ApiError, postJson } from "./api.js";
import { $, svg, setText } from "./dom.js";
import { count, number, percent, snapshotName } from "./format.js";
import { current, isWriting, textOf } from "./manuscript.js";
import { keep, recall } from "./storage.js";
import { store } from "./store.js";
import { scoredTokens } from "./text.js";
import { TextView } from "./text-view.js";
import { chosenSample, onAxis } from "./timeline.js";

const HEIGHT = 92;
const [TOP, BOTTOM] = [10, HEIGHT - 8];
const TYPING_MS = 700;
const [FIRST_RETRY_MS, LAST_RETRY_MS] = [5000, 80_000];
const MAX_CHARACTERS = 400;
/** From a text that the default run has. */
const SHAKESPEARE = "What's in a name? That which we call a rose";

/** The line watched, "" if none; the lines that the reader chose, by run. */
let line = "";
const lines = new Map(recall("pinned-lines", []));
/** Of the run and line watched: {p, tokens} by step, with `p` the probability of a letter, and the steps asked for. */
let scores = new Map();
let asked = new Set();
let run = null;
let axis = null;
let isOnScreen = false;
let timer = 0;
let retryMs = FIRST_RETRY_MS;
/** When the next request may be sent, by performance.now(): the server is left alone after it refused one. */
let pausedUntil = 0;
let controller = null;

const field = $("pinned-line");
const letters = new TextView($("pinned-letters"));

/** A line to begin with: from the paper, or one that the text has, or the newest sample's. */
function defaultLine() {
  const version = current(store.state.manuscript);
  const written = isWriting(version) ? "" : textOf(version).split("\n").find((text) => text.trim().length >= 12);
  if (written) return written.trim().slice(0, 80);
  const { training } = store.state.history;
  const source = `${run} ${(training ?? store.state.status?.training)?.dataset_source ?? ""}`;
  if (/shakespeare|plays/i.test(source)) return SHAKESPEARE;
  const sample = (store.state.history.samples.at(-1)?.text ?? "").split("\n").map((text) => text.trim());
  return (sample.find((text) => text.length >= 24) ?? sample.find(Boolean) ?? "").slice(0, 80);
}

function showRun() {
  const { history } = store.state;
  $("pinned").hidden = !history?.samples.length || !keptSteps().length;
  if (!history || history.run === run) return;
  run = history.run;
  field.value = lines.get(run) ?? defaultLine();
  watch(lines.get(run) ?? "");
}

const keptSteps = () => store.state.kept?.get(store.state.history?.run)?.steps ?? [];

/** Begin to watch a line; "" ends it. */
function watch(text) {
  controller?.abort();
  line = text;
  scores = new Map();
  asked = new Set();
  retryMs = FIRST_RETRY_MS;
  pausedUntil = 0;
  setText($("pinned-error"), "");
  setText($("pin"), line ? "Watching" : "Watch");
  render();
  ask();
}

/** Score the line at the snapshots that are new, soon, if somebody can see it. */
function ask() {
  clearTimeout(timer);
  timer = 0;
  if (!line || !isOnScreen || document.hidden || controller) return;
  const steps = keptSteps().filter((step) => !asked.has(step));
  if (!steps.length || !store.state.status?.server.ready) return;
  timer = setTimeout(() => score(steps), Math.max(0, pausedUntil - performance.now()));
}

async function score(steps) {
  const own = (controller = new AbortController());
  // The first time the server chooses: of large models, a selection of the snapshots.
  const fields = { model: run, text: line, snapshots: asked.size ? steps.map(snapshotName) : "all" };
  let pause = null;
  if (!scores.size) setText($("pinned-facts"), "Asking each snapshot…");
  try {
    const reply = await postJson("api/scores", fields, own.signal);
    for (const found of reply.scores) {
      const tokens = scoredTokens(line, { ...reply, scores: [found] }).map((token) => ({ ...token, by: "text" }));
      scores.set(found.step, { p: 2 ** -found.bits_per_character, tokens });
    }
    steps.forEach((step) => asked.add(step));
    retryMs = FIRST_RETRY_MS;
    setText($("pinned-error"), reply.warnings.join(" "));
    pause = 0;
  } catch (error) {
    if (error.name !== "AbortError") {
      if (!(error instanceof ApiError)) throw error;
      pause = showError(error, steps);
    }
  } finally {
    if (controller === own) controller = null;
    render();
    // Another line may be watched meanwhile.
    if (pause !== null) {
      pausedUntil = performance.now() + pause;
      ask();
    }
  }
}

/** Say what failed; returns in how many milliseconds to try again, or null. */
function showError(error, steps) {
  if (error.status === 404) {
    // Thinned out between the list of models and now: the next list lacks them.
    steps.forEach((step) => asked.add(step));
    return asked.size ? 0 : null;
  }
  const isPassing = error.status === 429 || error.status >= 500 || error.status === 0;
  const pause = retryMs;
  retryMs = Math.min(LAST_RETRY_MS, retryMs * 2);
  const busy = `The line could not be scored yet: next attempt in ${pause / 1000} s.`;
  setText($("pinned-error"), isPassing ? busy : error.message);
  if (!isPassing) steps.forEach((step) => asked.add(step));
  return isPassing ? pause : null;
}

// What is shown

function render() {
  const points = [...scores].map(([step, { p }]) => [step, p]).sort(([a], [b]) => a - b);
  const sample = chosenSample();
  $("pinned-chart").hidden = $("pinned-letters").hidden = !points.length;
  if (!points.length) {
    const hint = line ? "" : "Each snapshot says how well it would have guessed this line.";
    if (!controller) setText($("pinned-facts"), hint);
    return;
  }
  const step = sample?.step ?? points.at(-1)[0];
  if (axis) draw(points, step);
  letters.show(scores.get(pointAt(points, step)[0]).tokens, true);
  setText($("pinned-facts"), `${describe(points, step)} What is marked surprises it.`);
}

/** The last score at or before a step, or the first. */
const pointAt = (points, step) => points.findLast(([at]) => at <= step) ?? points[0];

/** "Now it expects each letter of this line with 48 %, at first with 2 %." */
function describe(points, step) {
  const [first, last] = [points[0], points.at(-1)];
  const each = "each letter of this line with";
  if (points.length === 1) return `At step ${number(last[0])} it expects ${each} ${percent(last[1])}.`;
  const chosen = pointAt(points, step);
  const atFirst = `at first, at step ${number(first[0])}, with ${percent(first[1])}`;
  if (chosen === last) return `Now it expects ${each} ${percent(last[1])}, ${atFirst}.`;
  const then = `At step ${number(chosen[0])} it expected ${each} ${percent(chosen[1])}`;
  return `${then}, ${chosen === first ? "" : `${atFirst}, `}now with ${percent(last[1])}.`;
}

/** The sparkline, on the curve's time axis. */
function draw(points, step) {
  const top = Math.min(1, Math.ceil(Math.max(...points.map(([, p]) => p)) * 10 + 0.2) / 10);
  const y = (p) => BOTTOM - (p / top) * (BOTTOM - TOP);
  const x = (at) => Math.min(axis.x(at), axis.right); // while the newest mark glides in
  const place = ([at, p]) => `${x(at).toFixed(1)} ${y(p).toFixed(1)}`;
  const path = `M${points.map(place).join("L")}`;
  const [from, to] = [x(points[0][0]), x(points.at(-1)[0])];
  const label = (p) => svg("text", { x: axis.left - 8, y: y(p) + 4, "text-anchor": "end" }, `${Math.round(p * 100)} %`);
  const rule = (p) => svg("line", { class: "grid-line", x1: axis.left, x2: axis.right, y1: y(p), y2: y(p) });
  const dots = points.map(([at, p]) => {
    const isChosen = at === step;
    return svg("circle", { class: isChosen ? "chosen" : "val-point", cx: x(at), cy: y(p), r: isChosen ? 5 : 2 });
  });
  const playhead = svg("line", { class: "playhead", x1: x(step), x2: x(step), y1: 0, y2: BOTTOM });
  const summary = `Probability of each letter over ${count(points.length, "snapshot")}: ` +
    `from ${percent(points[0][1])} to ${percent(points.at(-1)[1])}`;
  const width = axis.right + 14;
  $("pinned-chart").replaceChildren(svg(
    "svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": summary },
    rule(top), rule(0), label(top), label(0), playhead,
    svg("path", { class: "pinned-area", d: `${path}L${to.toFixed(1)} ${BOTTOM}L${from.toFixed(1)} ${BOTTOM}Z` }),
    svg("path", { class: "val", d: path }), ...dots,
  ));
}

function onSubmit(event) {
  event.preventDefault();
  pin();
}

/** Watch what the field has, and keep it in this browser. */
function pin() {
  const text = field.value.trim().slice(0, MAX_CHARACTERS);
  if (text === line) return;
  lines.set(run, text);
  if (!text) lines.delete(run);
  keep("pinned-lines", [...lines]);
  watch(text);
}

let typing = 0;
$("pinned-form").addEventListener("submit", (event) => (clearTimeout(typing), onSubmit(event)));
field.addEventListener("input", () => {
  clearTimeout(typing);
  if (line) typing = setTimeout(pin, TYPING_MS);
});
new IntersectionObserver(([entry]) => {
  isOnScreen = entry.isIntersecting;
  ask();
}).observe($("pinned"));
document.addEventListener("visibilitychange", () => {
  if (document.hidden) controller?.abort();
  ask();
});
onAxis((drawn) => {
  axis = drawn;
  if (scores.size) render();
});
store.subscribe(({ history }) => history, showRun);
store.subscribe(({ snapshot }) => snapshot, render);
store.subscribe(({ kept }) => kept, () => (showRun(), ask()));
store.subscribe(({ status }) => status?.server.ready, () => ask());
