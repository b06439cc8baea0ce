/** The sampling settings: fields by their API names, their ranges and defaults, and the presets. */

/** The server's limits. A model reads the end of a longer prompt only, as it does of most texts. */
export const MAX_PROMPT_BYTES = 64 * 1024;
export const MAX_STOPS = 32;

/** `max_tokens` is the length; `model` null stands for the newest; `seed` null for another one each time. */
export const DEFAULTS = {
  model: null, max_tokens: 500, temperature: 0.8, top_k: 200, top_p: 1, min_p: 0, repetition_penalty: 1,
  presence_penalty: 0, frequency_penalty: 0, stop: [], seed: null, n: 1, ignore_eos: false,
};

/** What the presets set. */
export const PRESETS = {
  faithful: { temperature: 0.5, top_k: 200, top_p: 0.9, min_p: 0 },
  balanced: { temperature: 0.8, top_k: 200, top_p: 1, min_p: 0 },
  wild: { temperature: 1.2, top_k: 0, top_p: 1, min_p: 0.01 },
};

/** The name of the preset that the settings are; undefined if they are none. */
export const presetOf = (settings) =>
  Object.keys(PRESETS).find((name) => Object.entries(PRESETS[name]).every(([field, value]) => settings[field] === value));

/** The number fields: name in the API, id of the element, range, and what the message calls them. */
export const NUMBERS = [
  { name: "max_tokens", id: "length", label: "Length", min: 1, max: Infinity, isInteger: true },
  { name: "temperature", id: "temperature", label: "Temperature", min: 0, max: 2 },
  { name: "top_k", id: "top-k", label: "Top-k", min: 0, isInteger: true },
  { name: "top_p", id: "top-p", label: "Top-p", min: 0, max: 1 },
  { name: "min_p", id: "min-p", label: "Min-p", min: 0, max: 1 },
  { name: "repetition_penalty", id: "repetition-penalty", label: "Repetition penalty", min: 0.01, max: 10 },
  { name: "presence_penalty", id: "presence-penalty", label: "Presence penalty", min: -2, max: 2 },
  { name: "frequency_penalty", id: "frequency-penalty", label: "Frequency penalty", min: -2, max: 2 },
  { name: "seed", id: "seed", label: "Seed", min: 0, isInteger: true, isOptional: true },
  { name: "n", id: "n", label: "Versions", min: 1, max: 4, isInteger: true },
];

/** The request's fields for these settings, without what has its default in the API. */
export function requestOf(settings) {
  const request = {};
  for (const [name, value] of Object.entries(settings)) {
    const isNeeded = ["max_tokens", "temperature", "top_k"].includes(name);
    if (isNeeded || String(value ?? "") !== String(DEFAULTS[name] ?? "")) request[name] = value;
  }
  return request;
}

/** A random seed, so that every text can be written again. */
export const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];
