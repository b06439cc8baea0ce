/** The sampling settings: presets, length, and all fields behind "More". Checked before they are sent. */

import { $, el, setText } from "./dom.js";
import * as format from "./format.js";
import { DEFAULTS, MAX_STOPS, NUMBERS, PRESETS, presetOf } from "./sampling.js";
import { save } from "./storage.js";
import { store } from "./store.js";

/** An invalid field and what is wrong with it. */
export class FieldError extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

/** The settings in the fields. Throws FieldError. */
export function read() {
  const settings = { ...store.state.settings };
  for (const field of NUMBERS) settings[field.name] = readNumber(field);
  const stops = $("stop-strings").value.split("\n").filter(Boolean);
  if (stops.length > MAX_STOPS) throw new FieldError($("stop-strings"), `At most ${MAX_STOPS} stop texts are allowed.`);
  settings.stop = stops.map((stop) => stop.replaceAll("\\n", "\n"));
  settings.ignore_eos = $("ignore-eos").checked;
  settings.model = $("snapshot-choice").value || null;
  return settings;
}

function readNumber({ id, label, min, max = Number.MAX_SAFE_INTEGER, isInteger, isOptional, name }) {
  const field = $(id);
  const limit = name === "max_tokens" ? store.state.status?.server.max_tokens ?? max : max;
  // Browsers also give "" for letters in a number field; badInput tells the two apart.
  if (isOptional && field.value === "" && !field.validity.badInput) return null;
  const value = field.value === "" ? NaN : Number(field.value);
  if (value >= min && value <= limit && (!isInteger || Number.isSafeInteger(value))) return value;
  const kind = isInteger ? "a whole number" : "a number";
  const to = limit < Number.MAX_SAFE_INTEGER ? `from ${min} to ${format.number(limit)}` : `${min} or more`;
  const range = `${kind}${to.startsWith("from") ? " " : ", "}${to}`;
  const empty = isOptional ? ", or empty for a different text each time" : "";
  throw new FieldError(field, `${label} must be ${range}${empty}.`);
}

/** Set some of the settings. */
export function fill(fields) {
  const settings = { ...store.state.settings };
  for (const name of Object.keys(DEFAULTS)) if (name in fields) settings[name] = fields[name] ?? DEFAULTS[name];
  change(settings);
  show(settings);
}

/** Put the settings into the fields. */
function show(settings) {
  for (const { name, id } of NUMBERS) $(id).value = settings[name] ?? "";
  const stops = [settings.stop].flat();
  $("stop-strings").value = stops.map((stop) => stop.replaceAll("\n", "\\n")).join("\n");
  $("ignore-eos").checked = settings.ignore_eos;
  showModels();
  showPreset(settings);
}

function showPreset(settings) {
  const preset = presetOf(settings);
  for (const name of Object.keys(PRESETS)) $(`preset-${name}`).checked = name === preset;
  $("own-preset").hidden = Boolean(preset);
}

function change(settings) {
  save("settings", settings);
  store.update({ settings });
}

/** Take over what has been typed, if it is valid. */
function onInput(event) {
  if (event.target.name === "preset") return fill(PRESETS[event.target.value]);
  if (!event.target.closest("#settings")) return undefined;
  try {
    const settings = read();
    change(settings);
    showPreset(settings);
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
  }
  return undefined;
}

/** Apply the server's limit, also to an untouched default above it, and name its tokens. */
function showStatus({ server }) {
  const limit = server.max_tokens;
  const field = $("length");
  field.max = limit ?? "";
  if (Number(field.value) === DEFAULTS.max_tokens && DEFAULTS.max_tokens > limit) fill({ max_tokens: limit });
  const unit = server.token_unit ?? "character";
  setText($("top-k-hint"), `Picks from the likeliest ${unit}s only, 0 for all`);
  setText($("length-hint"), `${unit[0].toUpperCase()}${unit.slice(1)}s to write`);
}

/** The snapshots of the run that is shown, newest first, and the chosen one. */
function showModels() {
  const { settings: { model }, run, status, kept } = store.state;
  const shown = run ?? status?.training?.run ?? format.runOf(status?.server.model);
  const steps = kept?.get(shown)?.steps ?? [];
  const ids = steps.map((step) => `${shown}@${format.snapshotName(step)}`).reverse();
  if (model && !ids.includes(model)) ids.unshift(model);
  const options = ids.map((id) => el("option", { value: id }, format.modelName(id)));
  $("snapshot-choice").replaceChildren(el("option", { value: "" }, "newest"), ...options);
  $("snapshot-choice").value = model ?? "";
}

/** Mark one field as invalid and focus it; null clears all marks. */
export function markInvalid(invalid) {
  for (const field of $("form").querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  if (!invalid) return;
  invalid.setAttribute("aria-invalid", "true");
  if (invalid.closest("#more")) $("more").open = true;
  invalid.focus();
}

store.subscribe(({ status }) => status, showStatus);
store.subscribe(({ run }) => run, () => fill({ model: null }));
store.subscribe(({ kept }) => kept, showModels);
$("form").addEventListener("input", onInput);
$("reset-settings").addEventListener("click", () => fill(DEFAULTS));
show(store.state.settings);
