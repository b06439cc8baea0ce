/** The training side: phase, progress, losses, what they mean, the curve and the samples. */

import { history } from "./api.js";
import { Curve, lossTable } from "./curve.js";
import { $, announce, say } from "./dom.js";
import { showSamples } from "./samples.js";
import {
  count, detail, duration, fraction, loss, number, otherModel, phase, reading, runOf, size, timeLeft, unseenLoss,
  writingLoss,
} from "./words.js";

const REFETCH_MS = 2000;

/** The last state heard of, and when the trainer last wrote something, by this page's clock. */
let status = null;
let heardAt = performance.now();

let curve = null;
let rows = [];

/** What the shown history belongs to; when it was asked for; whether it is on its way. */
let shown = "";
let askedAt = -Infinity;
let asking = 0;

/** Take in a new state. */
export function update(next) {
  const before = status?.training;
  status = next;
  if (before?.updated_at !== next.training?.updated_at) heardAt = performance.now();
  if (before && next.training && before.phase !== next.training.phase) announce(`${phase(next.training, true)}.`);
  render();
  refetch();
}

function render() {
  const { training, server } = status;
  say($("phase"), phase(training, server.ready));
  $("phase").dataset.phase = training?.phase ?? "none";
  say($("detail"), detail(training, server.ready, (performance.now() - heardAt) / 1000));
  say($("writes"), otherModel(training, server));
  renderProgress(training);

  const value = writingLoss(training);
  say($("reading"), reading(value));
  $("numbers").hidden = !Number.isFinite(value);
  say($("train-loss"), loss(training?.train_loss));
  say($("val-loss"), unseenLoss(training));
  say($("speed"), training?.tokens_per_s ? number(training.tokens_per_s) : "–");

  const made = [
    training?.parameters && `${size(training.parameters)} parameters`, training?.architecture, training?.device,
  ];
  about("source", training?.dataset_source);
  about("model", made.filter(Boolean).join(", "));
  about("elapsed", training?.tokens > 0 && `${duration(training.elapsed_s)}, ${number(training.tokens)} tokens`);
  $("about").hidden = ![...$("about").children].some((row) => !row.hidden);
}

function about(id, text) {
  $(id).parentElement.hidden = !text;
  say($(id), text || "");
}

function renderProgress(training) {
  const bar = $("progress");
  const active = training?.phase === "training";
  const part = training && fraction(training);
  const nowhere = training?.phase === "stopped" && part === null;
  bar.hidden = !training || training.phase === "failed" || nowhere;
  $("steps").hidden = !training?.step;
  document.title = "gptbox";
  if (!training) return;
  const percent = part === null ? null : Math.floor(part * 100);
  const left = active ? timeLeft(training.eta_s) : "";
  bar.toggleAttribute("data-unknown", part === null);
  $("progress-bar").style.width = part === null ? "" : `${part * 100}%`;
  if (percent === null) {
    bar.removeAttribute("aria-valuenow");
    bar.removeAttribute("aria-valuetext");
  } else {
    bar.setAttribute("aria-valuenow", percent);
    bar.setAttribute("aria-valuetext", [`${percent} percent`, left].filter(Boolean).join(", "));
    if (active) document.title = `${percent} % · gptbox`;
  }
  const of = training.steps > 0 ? ` of ${number(training.steps)}` : "";
  const done = training.phase === "finished" ? count(training.step, "step") : `Step ${number(training.step)}${of}`;
  say($("steps-done"), done);
  const took = training.phase === "finished" && training.elapsed_s > 0 ? `in ${duration(training.elapsed_s)}` : "";
  say($("steps-left"), took || left);
}

/** The history of the run that is shown; of the one that writes where the newer one ended before it began to learn. */
async function findHistory(training, server) {
  const own = await history(training.run);
  const ended = ["stopped", "failed"].includes(training.phase);
  if (own.metrics.length || own.samples.length || !ended || !server.ready) return own;
  return history(runOf(server.model));
}

/** Ask for the history when it has grown, but not more often than every two seconds. */
async function refetch() {
  const { training, server } = status;
  if (!training || asking) return;
  const { run, step, latest_snapshot: newest } = training;
  const wanted = [run, step, training.phase, newest, runOf(server.model)].join(" ");
  if (wanted === shown) return;
  asking = setTimeout(async () => {
    askedAt = performance.now();
    let answer;
    try {
      answer = await findHistory(training, server);
    } catch {
      // The connection's own notice says what is wrong; the next state tries again.
      asking = 0;
      return;
    }
    asking = 0;
    shown = wanted;
    rows = answer.metrics;
    $("curve").hidden = rows.length === 0;
    const another = answer.run !== training.run;
    say($("curve-title"), another ? `Loss of ${answer.run}` : "Loss");
    curve.show(rows);
    renderTable();
    showSamples(answer.samples, another ? `How ${answer.run} learned` : "Watch it learn");
    refetch();
  }, Math.max(0, askedAt + REFETCH_MS - performance.now()));
}

function renderTable() {
  if ($("curve-table").open && rows.length) $("curve-rows").replaceChildren(lossTable(rows));
}

export function start() {
  curve = new Curve($("plot"));
  $("curve-table").addEventListener("toggle", renderTable);
  // A silent trainer sends nothing that would wake this page.
  setInterval(() => status && render(), 15_000);
}
