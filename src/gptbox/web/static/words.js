/** Numbers and states in plain words: pure functions, one place for all of the page's sentences on training. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const number = (value) => whole.format(value);

export const loss = (value) => (Number.isFinite(value) ? value.toFixed(2) : "–");

/** The loss on unseen text of a row or a state: the estimate that every snapshot has, or what was measured before. */
export const unseen = (row) => row?.val_loss_estimate ?? row?.val_loss ?? null;

/** The same as a figure: "about 1.53 (best 1.49)"; "1.4012, exact" of the best model once the run has ended. */
export function unseenLoss(training) {
  const best = training?.best_val_loss;
  if (training?.phase === "finished" && Number.isFinite(best)) return `${best.toFixed(4)},\u00a0exact`;
  const now = loss(unseen(training));
  const about = Number.isFinite(training?.val_loss_estimate) ? "about\u00a0" : "";
  return about + now + (Number.isFinite(best) && loss(best) !== now ? ` (best\u00a0${loss(best)})` : "");
}

/** The loss of the model that writes, as well as it is known: that of the training text where there is no other yet. */
export function writingLoss(training) {
  const best = training?.phase === "finished" ? training.best_val_loss : null;
  return best ?? unseen(training) ?? training?.train_loss ?? null;
}

/** "1 character", "500 characters". */
export const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;

/** 0.8 million, 12,345. */
export function size(parameters) {
  if (parameters < 100_000) return number(parameters);
  const millions = parameters / 1e6;
  return `${millions >= 100 ? number(millions) : millions.toPrecision(2)} million`;
}

/** "0.42 s", "8.2 s", "48 s", "3 min", "1 h 20 min". */
export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(seconds < 1 ? 2 : 1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const rest = minutes % 60;
  return `${Math.floor(minutes / 60)} h${rest ? ` ${rest} min` : ""}`;
}

/** "about 3 min left"; empty where nobody knows. */
export function timeLeft(seconds) {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 10) return "almost there";
  if (seconds < 55) return "less than a minute left";
  return `about ${seconds < 90 ? "1 min" : duration(seconds)} left`;
}

/** "shakespeare_char@step-000250" as "shakespeare_char, step 250". */
export function modelName(reference) {
  const match = /^(.*?)@(?:step-0*(\d+)|(.*))$/.exec(reference ?? "");
  if (!match) return reference || "";
  return `${match[1]}, ${match[2] ? `step ${number(Number(match[2]))}` : match[3]}`;
}

/** The run of a reference: "shakespeare_char@step-000250" is of "shakespeare_char". */
export const runOf = (reference) => (reference ?? "").split("@")[0];

/** Which model writes, where it is not of the run that is shown under Training; else empty. */
export function otherModel(training, server) {
  if (!training || !server.ready || runOf(server.model) === training.run) return "";
  const yet = ["preparing", "training"].includes(training.phase) ? " yet" : "";
  const none = training.latest_snapshot ? "" : `The run ${training.run} has no model${yet}. `;
  return `${none}The model of ${modelName(server.model)}, goes on writing.`;
}

/** What a loss in nats a character means to somebody who reads the text. */
export function reading(value) {
  if (!Number.isFinite(value)) return "";
  const means =
    value > 2.5 ? "a noise of letters"
    : value > 2.0 ? "syllables and spaces in the right places, with few words"
    : value > 1.6 ? "word shapes: short words are real, long ones invented"
    : value > 1.4 ? "mostly real words, in lines that almost make sense"
    : "real words in sentences, at a glance like the text itself";
  const choices = Math.round(Math.exp(value));
  const unsure = choices > 1 ? ` For each next letter the model hesitates between about ${choices}.` : "";
  return `A loss of ${loss(value)} reads as ${means}.${unsure}`;
}

const TITLES = {
  preparing: "Preparing the text",
  training: "The model is learning",
  finished: "Training is finished",
  stopped: "Training was stopped",
  failed: "Training failed",
};

/** The phase as a heading. */
export function phase(training, ready) {
  if (training) return TITLES[training.phase] ?? training.phase;
  return ready ? "No training here" : "The trainer has not started yet";
}

/** How far the run is, 0 to 1; null where nobody knows. */
export function fraction(training) {
  if (training.phase === "finished") return 1;
  if (training.phase === "preparing") return null;
  if (training.steps > 0) return Math.min(1, training.step / training.steps);
  if (Number.isFinite(training.eta_s)) return training.elapsed_s / Math.max(1e-9, training.elapsed_s + training.eta_s);
  return null;
}

/** Where a running training is, in two words; empty where none is running. */
export function progress(training) {
  if (training?.phase === "preparing") return "preparing the text";
  if (training?.phase !== "training") return "";
  const part = fraction(training);
  return part === null ? "training" : `training ${Math.floor(part * 100)} %`;
}

/** What the phase means for the reader, in a sentence or two. `silent_s`: since the trainer was last heard of. */
export function detail(training, ready, silent_s) {
  if (!training) {
    return ready
      ? "The model was trained elsewhere and is ready to write."
      : "It prepares the text and trains a model as soon as it runs: docker compose up starts it, and so does " +
        "gptbox train. This page notices by itself.";
  }
  const said = training.message ?? "";
  if (silent_s > 120 && ["preparing", "training"].includes(training.phase)) {
    return `The trainer has not been heard of for ${duration(silent_s)}. It may have been interrupted; ` +
      "started again, it goes on where it was.";
  }
  switch (training.phase) {
    case "preparing":
      return said || "The text is read and cut into training and validation parts. Training starts by itself.";
    case "training":
      return said;
    case "finished":
      return said || "The best model of this run does the writing.";
    case "stopped":
      return said || "Started again, it goes on from here.";
    case "failed":
      return `${said || "No reason was given."} The trainer's log says more.`;
    default:
      return said;
  }
}

/** Why there is nothing to write with yet, and when there will be. */
export function waiting(training, problem) {
  if (problem) return problem;
  if (!training) return "No model yet: the trainer has not started. This button wakes up with the first model.";
  switch (training.phase) {
    case "preparing":
      return "No model yet: the text is being prepared. The first model is usually there within half a minute of " +
        "training.";
    case "training":
      return "No model yet: the first one is being trained. It is usually there within half a minute of training; " +
        "this button wakes up by itself.";
    case "failed":
      return "There is no model: training failed before the first one. The reason stands under Training.";
    case "stopped":
      return "There is no model: training was stopped before the first one. It goes on when it is started again.";
    default:
      return "The model is being loaded. This button wakes up by itself.";
  }
}
