/** Pure functions that put numbers and states into words. */

const integerFormat = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const number = (value) => integerFormat.format(value);

export const loss = (value) => (Number.isFinite(value) ? value.toFixed(2) : "–");

/** The validation loss of a metrics row or status: the estimate, else the exact loss, else null. */
export const valLoss = (row) => row?.val_loss_estimate ?? row?.val_loss ?? null;

/** "about 1.53 (best 1.49)"; "1.4012, exact" for the best model of a finished run. */
export function validationLabel(training) {
  const best = training?.best_val_loss;
  if (training?.phase === "finished" && Number.isFinite(best)) return `${best.toFixed(4)},\u00a0exact`;
  const current = loss(valLoss(training));
  const about = Number.isFinite(training?.val_loss_estimate) ? "about\u00a0" : "";
  const showBest = Number.isFinite(best) && loss(best) !== current;
  return about + current + (showBest ? ` (best\u00a0${loss(best)})` : "");
}

/** The loss of the model in use: the validation loss, or the training loss until there is one. */
export function modelLoss(training) {
  const best = training?.phase === "finished" ? training.best_val_loss : null;
  return best ?? valLoss(training) ?? training?.train_loss ?? null;
}

/** "1 character", "500 characters". */
export const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;

/** "0.80 million", "12,345". */
export function parameters(value) {
  if (value < 100_000) return number(value);
  const millions = value / 1e6;
  return `${millions >= 100 ? number(millions) : millions.toPrecision(2)} million`;
}

/** "45 %", "4.5 %", "< 0.1 %". */
export function percent(fraction) {
  const value = 100 * fraction;
  if (value < 0.1) return "< 0.1 %";
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} %`;
}

const SPACES = new Map([[" ", "(space)"], ["\n", "(line break)"], ["\t", "(tab)"]]);

/** A text with foreign words isolated, so that right-to-left ones do not reorder what is beside them. */
export const isolate = (text) => text.replace(/[^\0-~]+( [^\0-~]+)*/g, "\u2068$&\u2069");

const codePoint = (character) => `U+${character.codePointAt().toString(16).toUpperCase().padStart(4, 0)}`;

/** A token's text, made visible: a combining mark on a circle, an invisible character by its number. */
export const printable = (text) =>
  SPACES.get(text) ??
  isolate(text.replaceAll("\n", "↵").replace(/^[\p{Cf}\ufe00-\ufe0f]$/u, codePoint).replace(/^\p{M}/u, "◌$&"));

/** "0.42 s", "8.2 s", "48 s", "3 min", "1 h 20 min". */
export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(seconds < 1 ? 2 : 1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const rest = minutes % 60;
  return `${Math.floor(minutes / 60)} h${rest ? ` ${rest} min` : ""}`;
}

/** "about 3 min left"; empty if unknown. */
export function timeLeft(seconds) {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 10) return "almost there";
  if (seconds < 55) return "less than a minute left";
  return `about ${seconds < 90 ? "1 min" : duration(seconds)} left`;
}

/** "shakespeare_char, step 250" for "shakespeare_char@step-000250". */
export function modelName(model) {
  const match = /^(.*?)@(?:step-0*(\d+)|(.*))$/.exec(model ?? "");
  if (!match) return model || "";
  return `${match[1]}, ${match[2] ? `step ${number(Number(match[2]))}` : match[3]}`;
}

/** "step-000250" for 250. */
export const snapshotName = (step) => `step-${String(step).padStart(6, "0")}`;

/** The step of a snapshot's model, "shakespeare_char@step-000250"; NaN of any other name. */
export const stepOf = (model) => Number(/@step-(\d+)$/.exec(model)?.[1] ?? NaN);

/** The run of a model: "shakespeare_char" for "shakespeare_char@step-000250". */
export const runOf = (model) => (model ?? "").split("@")[0];

/** Names the model in use if it is not of the run shown under Training; else empty. */
export function otherModel(training, server) {
  if (!training || !server.ready || runOf(server.model) === training.run) return "";
  const yet = ["preparing", "training"].includes(training.phase) ? " yet" : "";
  const noModel = training.latest_snapshot ? "" : `The run ${training.run} has no model${yet}. `;
  return `${noModel}Texts still come from ${modelName(server.model)}.`;
}

/** What a loss in nats per token means for the text. */
export function lossMeaning(value, training) {
  if (!Number.isFinite(value)) return "";
  const { characters_per_token: characters, letters_per_token: letters, token_unit: unit } = training;
  const perLetter = value / (letters ?? characters ?? 1);
  const text =
    perLetter > 2.5 ? "a jumble of characters"
    : perLetter > 2.0 ? "syllables and spaces in the right places, but few words"
    : perLetter > 1.6 ? "word shapes: short words are real, long ones invented"
    : perLetter > 1.4 ? "mostly real words, in lines that almost make sense"
    : "real words in sentences, at a glance like the text itself";
  const perplexity = Math.round(Math.exp(value));
  const token = unit === "token" ? `token of ${characters.toPrecision(2)} characters` : unit ?? "character";
  const choices = perplexity > 1 ? ` For each ${token}, the model hesitates between about ${number(perplexity)}.` : "";
  return `A loss of ${loss(value)} reads as ${text}.${choices}`;
}

function queueMessage(position) {
  if (!position) return "Waiting for the first words…";
  if (position === 1) return "Waiting in the queue: you are next.";
  return `Waiting in the queue: ${count(position - 1, "text")} ahead of yours.`;
}

/** A request's sampling settings on one line. */
const describeSettings = (request) =>
  [
    `temperature ${request.temperature}`, `top-k ${request.top_k > 0 ? request.top_k : "off"}`,
    ...["top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed"]
      .filter((name) => request[name] !== undefined)
      .map((name) => `${name.replaceAll("_", name.endsWith("_p") ? "-" : " ")} ${request[name]}`),
  ].join(", ");

/** "500 characters in 0.9 s, 560 per second · shakespeare_char, step 1,250", with the settings at the end of a text. */
export function textFacts({ state, length, seconds, model, request, position, isEnded }) {
  if (state === "waiting") return queueMessage(position);
  if (!length) {
    const reason = isEnded ? "The model ended the text at once." : "The length is too short for a character.";
    return { failed: "", stopped: "Stopped before the first words." }[state] ?? reason;
  }
  const prefix = { stopped: "Stopped: ", failed: "Cut off: " }[state] ?? (isEnded ? "Ended by the model: " : "");
  const rate = `${number(length / seconds)} per second`;
  const summary = `${prefix}${count(length, "character")} in ${duration(seconds)}, ${rate}`;
  const settings = state === "writing" ? "" : describeSettings(request);
  return [summary, modelName(model), settings].filter(Boolean).join(" · ");
}

const PHASE_TITLES = {
  preparing: "Preparing the text",
  training: "The model is learning",
  finished: "Training is finished",
  stopped: "Training was stopped",
  failed: "Training failed",
};

export function phaseTitle(training, ready) {
  if (training) return PHASE_TITLES[training.phase] ?? training.phase;
  return ready ? "No training run" : "The trainer has not started yet";
}

/** How far the run is, 0 to 1; null if unknown. */
export function progress({ phase, step, steps, elapsed_s, eta_s }) {
  if (phase === "finished") return 1;
  if (phase === "preparing") return null;
  if (steps > 0) return Math.min(1, step / steps);
  return Number.isFinite(eta_s) ? elapsed_s / Math.max(1e-9, elapsed_s + eta_s) : null;
}

/** "training 30 %"; empty if no training is under way. */
export function progressLabel(training) {
  if (training?.phase === "preparing") return "preparing the text";
  if (training?.phase !== "training") return "";
  const fraction = progress(training);
  return fraction === null ? "training" : `training ${Math.floor(fraction * 100)} %`;
}

const PHASE_DETAILS = {
  preparing: "The text is being split into training and validation parts. Training starts by itself.",
  finished: "Texts come from the best model of this run.",
  stopped: "When started again, it continues from here.",
};

/** What the phase means, in a sentence or two. `silent_s`: seconds since the trainer's last update. */
export function phaseDetail(training, ready, silent_s) {
  if (!training) {
    return ready
      ? "The model was trained elsewhere and is ready to write."
      : "Start it with docker compose up or gptbox train: it prepares the text, then trains a model. " +
        "This page updates by itself.";
  }
  const { phase, message } = training;
  if (silent_s > 120 && ["preparing", "training"].includes(phase)) {
    return `No news from the trainer for ${duration(silent_s)}. It may have been interrupted; ` +
      "when started again, it continues where it stopped.";
  }
  if (phase === "failed") return `${message || "No reason was given."} See the trainer's log for details.`;
  return message || (PHASE_DETAILS[phase] ?? "");
}

const NO_MODEL_REASONS = {
  preparing: "No model yet: the text is being prepared. This button usually works within half a minute of training.",
  training: "No model yet. The first one usually appears within half a minute of training; then this button works.",
  failed: "There is no model: training failed before the first one. The reason is given under Training.",
  stopped: "There is no model: training was stopped before the first one. It continues when started again.",
};

/** Why no text can be generated yet, and when it can. */
export function noModelReason(training, problem) {
  if (problem) return problem;
  if (!training) return "No model yet: the trainer has not started. This button works once there is a model.";
  return NO_MODEL_REASONS[training.phase] ?? "The model is being loaded. This button works once it is ready.";
}
