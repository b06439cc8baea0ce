/** The training section: phase, progress, losses and what they mean, and the loss chart. */

import { fetchHistory } from "./api.js";
import { $, announce, setText } from "./dom.js";
import * as format from "./format.js";
import { LossChart, lossTable } from "./loss-chart.js";
import { store } from "./store.js";

const REFETCH_MS = 2000;

const chart = new LossChart($("loss-chart"));

/** When the trainer last wrote a status, by this page's clock. */
let updatedAt = performance.now();

/** The state whose history is shown, the time of the last fetch, and the timer of a pending one (0 if none). */
let shownState = "";
let fetchedAt = -Infinity;
let fetchTimer = 0;

function showStatus({ training }, statusBefore) {
  const before = statusBefore?.training;
  if (before?.updated_at !== training?.updated_at) updatedAt = performance.now();
  const phaseChanged = before && training && before.phase !== training.phase;
  if (phaseChanged) announce(`${format.phaseTitle(training, true)}.`);
  render();
  refetch();
}

function render() {
  const { training, server } = store.state.status;
  setText($("phase"), format.phaseTitle(training, server.ready));
  $("phase").dataset.phase = training?.phase ?? "none";
  setText($("phase-detail"), format.phaseDetail(training, server.ready, (performance.now() - updatedAt) / 1000));
  setText($("other-model"), format.otherModel(training, server));
  renderProgress(training);

  const loss = format.modelLoss(training);
  setText($("loss-meaning"), format.lossMeaning(loss, training));
  $("metrics").hidden = !Number.isFinite(loss);
  setText($("train-loss"), format.loss(training?.train_loss));
  setText($("val-loss"), format.validationLabel(training));
  setText($("speed"), training?.tokens_per_s ? format.number(training.tokens_per_s) : "–");

  const { parameters, architecture, device } = training ?? {};
  const model = [parameters && `${format.parameters(parameters)} parameters`, architecture, device];
  const trained = training?.tokens > 0;
  setDetail("dataset", training?.dataset_source);
  setDetail("health", training?.dataset_health?.map(format.isolate).join("\n\n"));
  setDetail("model", model.filter(Boolean).join(", "));
  setDetail("elapsed", trained && `${format.duration(training.elapsed_s)}, ${format.number(training.tokens)} tokens`);
  $("about").hidden = ![...$("about").children].some((row) => !row.hidden);
}

/** Fill in a row of #about, and hide it if there is nothing to show. */
function setDetail(id, text) {
  $(id).parentElement.hidden = !text;
  setText($(id), text || "");
}

function renderProgress(training) {
  const bar = $("progress");
  const { phase, step, steps, elapsed_s, eta_s } = training ?? {};
  const active = phase === "training";
  const fraction = training && format.progress(training);
  const stoppedEarly = phase === "stopped" && fraction === null;
  bar.hidden = !training || phase === "failed" || stoppedEarly;
  $("steps").hidden = !step;
  document.title = "gptbox";
  if (!training) return;
  const percent = fraction === null ? null : Math.floor(fraction * 100);
  const timeLeft = active ? format.timeLeft(eta_s) : "";
  bar.toggleAttribute("data-indeterminate", fraction === null);
  $("progress-bar").style.width = fraction === null ? "" : `${fraction * 100}%`;
  if (percent === null) {
    bar.removeAttribute("aria-valuenow");
    bar.removeAttribute("aria-valuetext");
  } else {
    bar.setAttribute("aria-valuenow", percent);
    bar.setAttribute("aria-valuetext", [`${percent} percent`, timeLeft].filter(Boolean).join(", "));
    if (active) document.title = `${percent} % · gptbox`;
  }
  const finished = phase === "finished";
  const of = steps > 0 ? ` of ${format.number(steps)}` : "";
  const done = finished ? format.count(step, "step") : `Step ${format.number(step)}${of}`;
  setText($("steps-done"), done);
  const duration = finished && elapsed_s > 0 ? `in ${format.duration(elapsed_s)}` : "";
  setText($("steps-time"), duration || timeLeft);
}

/** The run's history; if it ended before it learned anything, that of the run whose model is in use. */
async function findHistory(training, server) {
  const own = await fetchHistory(training.run);
  const ended = ["stopped", "failed"].includes(training.phase);
  if (own.metrics.length || own.samples.length || !ended || !server.ready) return own;
  return fetchHistory(format.runOf(server.model));
}

/** Fetch the history if it has grown, at most every REFETCH_MS. */
function refetch() {
  const { training, server } = store.state.status;
  if (!training || fetchTimer) return;
  const { run, step, latest_snapshot: newest } = training;
  const state = [run, step, training.phase, newest, format.runOf(server.model)].join(" ");
  if (state === shownState) return;
  fetchTimer = setTimeout(async () => {
    fetchedAt = performance.now();
    let history;
    try {
      history = await findHistory(training, server);
    } catch {
      // The connection notice tells the reader; the next status tries again.
      fetchTimer = 0;
      return;
    }
    fetchTimer = 0;
    shownState = state;
    store.update({ history: { ...history, isOther: history.run !== training.run } });
    refetch();
  }, Math.max(0, fetchedAt + REFETCH_MS - performance.now()));
}

function showHistory({ run, isOther, metrics }) {
  $("loss").hidden = metrics.length === 0;
  setText($("loss-title"), isOther ? `Loss of ${run}` : "Loss");
  chart.show(metrics);
  renderTable();
}

function renderTable() {
  const rows = store.state.history?.metrics;
  if ($("loss-table").open && rows?.length) $("loss-rows").replaceChildren(lossTable(rows));
}

store.subscribe(({ status }) => status, showStatus);
store.subscribe(({ history }) => history, showHistory);
$("loss-table").addEventListener("toggle", renderTable);
// A silent trainer sends no status, so the page checks for silence itself.
setInterval(() => store.state.status && render(), 15_000);
