/**
 * Permalinks: the page with a fragment that says how the model wrote a text, so that it can write it again. Browsers
 * send no fragment to a server.
 *
 *     #m=RUN@step-000250&p=PROMPT&s=SEED&t=TEMPERATURE&k=TOP_K&n=LENGTH&top_p=0.9&stop=STOP&f=FINGERPRINT
 *
 * Values are percent-encoded; fields at their neutral values are left out. Pure functions, without the page.
 */

import { stepOf } from "./format.js";
import { MAX_PROMPT_BYTES, MAX_STOPS } from "./sampling.js";
import { byteLength, codePoints } from "./text.js";

/** Longer addresses are cut by some mail and chat programs. */
export const LONG_LINK = 2000;

/** A value as text, short enough for a message. */
const quote = (text) => `“${codePoints(text) > 40 ? `${[...text].slice(0, 40).join("")}…` : text}”`;

/** What is wrong with a value. */
class ValueProblem extends Error {}

const number = (requirement, isValid) => ({
  write: String,
  read(text) {
    const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : NaN;
    if (!isValid(value)) throw new ValueProblem(`it must be ${requirement}`);
    return value;
  },
});
const range = (min, max) => number(`a number from ${min} to ${max}`, (value) => value >= min && value <= max);
const integer = (min) =>
  number(`a whole number, ${min} or more`, (value) => Number.isSafeInteger(value) && value >= min);

const text = (requirement, isValid) => ({
  write: (value) => value.toWellFormed(),
  read(value) {
    if (!isValid(value)) throw new ValueProblem(requirement);
    return value;
  },
});

/**
 * The fields of a link, in its order: key in the fragment, the API's name, the words for it, and the value where the
 * link has none. A `list` may have several values.
 */
const FIELDS = [
  { key: "m", name: "model", words: "model", neutral: null, ...text(
    "it must be a run, such as shakespeare_char, or a snapshot, such as shakespeare_char@step-000250",
    (value) => /^[A-Za-z0-9][\w.-]{0,63}(@(best|latest|step-\d{6,}))?$/.test(value),
  ) },
  { key: "p", name: "prompt", words: "prompt", neutral: "", isEmptyAllowed: true, ...text(
    "it is longer than 64 KiB", (value) => byteLength(value) <= MAX_PROMPT_BYTES,
  ) },
  { key: "s", name: "seed", words: "seed", neutral: null, ...integer(0) },
  { key: "t", name: "temperature", words: "temperature", neutral: 0.8, isAlwaysWritten: true, ...range(0, 2) },
  { key: "k", name: "top_k", words: "top-k", neutral: 200, isAlwaysWritten: true, ...integer(0) },
  { key: "n", name: "max_tokens", words: "length", neutral: 500, isAlwaysWritten: true, ...integer(1) },
  { key: "top_p", name: "top_p", words: "top-p", neutral: 1, ...range(0, 1) },
  { key: "min_p", name: "min_p", words: "min-p", neutral: 0, ...range(0, 1) },
  { key: "repetition_penalty", name: "repetition_penalty", words: "repetition penalty", neutral: 1,
    ...number("a number above 0, at most 10", (value) => value > 0 && value <= 10) },
  { key: "presence_penalty", name: "presence_penalty", words: "presence penalty", neutral: 0, ...range(-2, 2) },
  { key: "frequency_penalty", name: "frequency_penalty", words: "frequency penalty", neutral: 0, ...range(-2, 2) },
  { key: "ignore_eos", name: "ignore_eos", words: "field ignore_eos", neutral: false, write: String, read(value) {
    if (value !== "true" && value !== "false") throw new ValueProblem("it must be true or false");
    return value === "true";
  } },
  { key: "stop", name: "stop", words: "stop text", neutral: [], isList: true, ...text("", () => true) },
  { key: "f", name: "fingerprint", words: "fingerprint", neutral: "", ...text(
    "it is not a server’s fingerprint", (value) => /^[\w.+-]{1,100}$/.test(value),
  ) },
];

/** Every field of a link at its neutral value. */
const NEUTRAL = Object.fromEntries(FIELDS.map(({ name, neutral }) => [name, neutral]));

// Also what encodeURIComponent leaves alone, but programs that look for links in a text do not take as part of one.
const encode = (value) =>
  encodeURIComponent(value).replace(/[!'()*~]/g, (sign) => `%${sign.charCodeAt().toString(16).toUpperCase()}`);

/** The fragment, without "#", of a link's fields by their API names; missing fields are neutral. */
export function writeLink(fields) {
  const pairs = [];
  for (const { key, name, neutral, isAlwaysWritten, isList, write } of FIELDS) {
    const value = fields[name] ?? neutral;
    if (isList) pairs.push(...[value].flat().map((each) => [key, write(each)]));
    else if (value !== neutral || isAlwaysWritten) pairs.push([key, write(value)]);
  }
  return pairs.map(([key, value]) => `${key}=${encode(value)}`).join("&");
}

/** The fields that a fragment gives, and what is wrong with others: {fields, problems}; null if it is no permalink. */
export function readLink(fragment) {
  const given = new Map();
  const problems = [];
  for (const pair of fragment.replace(/^#/, "").split("&").filter(Boolean)) {
    const [, key, value] = /^([^=]*)=?(.*)$/s.exec(pair);
    if (pair.includes("=")) given.set(key, [...(given.get(key) ?? []), value]);
  }
  if (!FIELDS.some(({ key }) => given.has(key))) return null;
  const fields = { ...NEUTRAL };
  for (const field of FIELDS) {
    const values = given.get(field.key);
    given.delete(field.key);
    if (!values) continue;
    try {
      fields[field.name] = readField(field, values);
    } catch (error) {
      if (!(error instanceof ValueProblem)) throw error;
      problems.push(`The ${field.words} ${quote(values.join(", "))} cannot be used: ${error.message}.`);
      // A prompt is the reader's own work: what can be read of it is kept.
      if (field.name === "prompt") fields.prompt = decodeLeniently(values[0]);
    }
  }
  for (const key of given.keys()) {
    problems.push(`This page does not know the field ${quote(key)}: the text may differ.`);
  }
  return { fields, problems };
}

const decodeLeniently = (value) =>
  value.replace(/(%[0-9a-f]{2})+/gi, (part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });

function readField({ isList, isEmptyAllowed, read }, values) {
  if (!isList && values.length > 1) throw new ValueProblem("the link has several");
  if (isList && values.length > MAX_STOPS) throw new ValueProblem(`there can be at most ${MAX_STOPS}`);
  const decoded = values.map((value) => {
    let plain;
    try {
      plain = decodeURIComponent(value);
    } catch {
      throw new ValueProblem("it is not percent-encoded UTF-8");
    }
    if (!plain && !isEmptyAllowed) throw new ValueProblem("it is empty");
    return read(plain);
  });
  return isList ? decoded : decoded[0];
}

/** Whether two fragments are of the same text. Servers with other fingerprints may write it differently. */
export function isSameText(one, other) {
  const [a, b] = [readLink(one), readLink(other)];
  return Boolean(a && b) && writeLink({ ...a.fields, fingerprint: "" }) === writeLink({ ...b.fields, fingerprint: "" });
}

/**
 * Whether a link's model can still be had, given the ids of all models: {isFound, runExists, nearest}, with the id of
 * the snapshot whose step is nearest, null if there is none.
 */
export function findModel(model, ids) {
  const [run, snapshot] = model.split("@");
  const snapshots = ids.filter((id) => id.startsWith(`${run}@step-`));
  const isFound = ids.includes(model) || (["best", "latest"].includes(snapshot) && snapshots.length > 0);
  const distance = (id) => Math.abs(stepOf(id) - stepOf(model));
  const nearest = snapshots.reduce((best, id) => (best && !(distance(id) < distance(best)) ? best : id), null);
  return { isFound, runExists: snapshots.length > 0 || ids.includes(run), nearest };
}

/**
 * How the model wrote a version (manuscript.js): {fields, isLonger}. `unit`: what the model's tokens are, as in the
 * status. `isLonger`: the text was cut off, and its number of tokens is unknown: the link writes it to its full length.
 */
export function fieldsOf({ pieces, writing }, unit) {
  const { request, start, state, model, fingerprint, length } = writing;
  const fields = { ...request, model: model || request.model || null, fingerprint: fingerprint || "" };
  if (state !== "stopped" && state !== "failed") return { fields, isLonger: false };
  const tokens = pieces.slice(start);
  const areKnown = tokens.every(({ key }) => key !== undefined);
  const count = areKnown ? tokens.length : unit === "character" ? length : 0;
  return { fields: count ? { ...fields, max_tokens: count } : fields, isLonger: !count };
}
