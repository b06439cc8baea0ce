/** The phase of training: what happens, how far it is, and what will happen when. */

import { $, announce, setText } from "./dom.js";
import * as format from "./format.js";
import { shownTraining } from "./history.js";
import { store } from "./store.js";

/** When the trainer last wrote a status, by this page's clock. */
let updatedAt = performance.now();

function showStatus({ training }, statusBefore) {
  const before = statusBefore?.training;
  if (before?.updated_at !== training?.updated_at) updatedAt = performance.now();
  const phaseChanged = before && training && before.phase !== training.phase;
  if (phaseChanged) announce(`${format.phaseTitle(training, true)}.`);
  render();
}

function render() {
  const { status } = store.state;
  if (!status) return;
  const { server } = status;
  const training = shownTraining(store.state);
  const isNewest = training?.run === status.training?.run;
  const silent_s = isNewest ? (performance.now() - updatedAt) / 1000 : 0;
  setText($("phase"), format.phaseTitle(training, server.ready));
  $("phase").dataset.phase = training?.phase ?? "none";
  setText($("phase-detail"), format.phaseDetail(training, server.ready, silent_s));
  setText($("other-model"), isNewest ? format.otherModel(training, server) : "");
  renderProgress(training);
  renderPlan(training, server);
  renderAbout(training);
}

/** What will happen, before there is a snapshot. */
function renderPlan(training, server) {
  const isOver = training ? !["preparing", "training"].includes(training.phase) : server.ready;
  $("plan").hidden = isOver || Boolean(training?.latest_snapshot);
  const current = { preparing: 0, training: 1 }[training?.phase] ?? -1;
  [...$("plan").querySelectorAll("li")].forEach((item, i) => {
    if (i === current) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
  });
}

function renderAbout(training) {
  const { parameters, architecture, device, tokens } = training ?? {};
  const model = [parameters && `${format.parameters(parameters)} parameters`, architecture, device];
  const loss = format.modelLoss(training);
  setDetail("dataset", training?.dataset_source);
  setDetail("health", training?.dataset_health?.map(format.isolate).join("\n\n"));
  setDetail("model", model.filter(Boolean).join(", "));
  setDetail("elapsed", tokens > 0 && `${format.duration(training.elapsed_s)}, ${format.number(tokens)} tokens`);
  setDetail("train-loss", Number.isFinite(loss) && format.loss(training.train_loss));
  setDetail("val-loss", Number.isFinite(loss) && format.validationLabel(training));
  $("about").hidden = ![...$("about").querySelectorAll("dl > div")].some((row) => !row.hidden);
}

/** Fill in a row of #about, and hide it if there is nothing to show. */
function setDetail(id, text) {
  $(id).parentElement.hidden = !text;
  setText($(id), text || "");
}

function renderProgress(training) {
  const bar = $("progress");
  const { phase, step, steps, elapsed_s, eta_s, tokens_per_s: speed } = training ?? {};
  const active = phase === "training";
  const fraction = training && format.progress(training);
  const isRunning = active || phase === "preparing";
  const stoppedEarly = phase === "stopped" && fraction === null;
  bar.hidden = !training || !phase || phase === "failed" || stoppedEarly;
  $("steps").hidden = !step;
  document.title = "gptbox";
  if (!training) return;
  const percent = fraction === null ? null : Math.floor(fraction * 100);
  const timeLeft = active ? format.timeLeft(eta_s) : "";
  bar.toggleAttribute("data-indeterminate", fraction === null && isRunning);
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
  setText($("speed"), active && speed ? `${format.number(speed)} tokens per second` : "");
  const duration = finished && elapsed_s > 0 ? `in ${format.duration(elapsed_s)}` : "";
  setText($("steps-time"), duration || timeLeft);
}

store.subscribe(({ status }) => status, showStatus);
store.subscribe(({ run }) => run, render);
store.subscribe(({ history }) => history, render);
// A silent trainer sends no status, so the page checks for silence itself.
setInterval(render, 15_000);
