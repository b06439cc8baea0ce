/**
 * The text on the paper and its history: a tree of versions, of which nothing is ever lost.
 *
 * A version is {id, parent, next, pieces, writing}. `pieces`, joined, are its whole text: {text, by} with `by` either
 * "reader" or "model"; a piece of the model's is a token {text, by, key, logprob, top} (text.js) while it is known, and
 * any text of the model's otherwise. `next` is the child that Redo returns to. `writing` is what the model wrote or is
 * writing in this version, null for an edit: {request, start, state, model, fingerprint, warnings, position, startedAt,
 * seconds, length, isEnded}, with `start` the number of pieces before it and `length` its code points.
 *
 * Functions return a new manuscript and leave the old one alone, except that `append` extends `pieces` in place: copying
 * them for each chunk of a stream would be slow.
 */

import { codePoints } from "./text.js";

/** How many versions are kept; the oldest that nothing depends on go first. */
const MAX_VERSIONS = 200;

/** An empty paper. */
export const newManuscript = () => ({
  versions: { 1: { id: 1, parent: null, next: null, pieces: [], writing: null } }, current: 1, lastId: 1,
});

export const current = ({ versions, current: id }) => versions[id];

/** The whole text of a version, or its text from piece `start` to `end`. */
export const textOf = ({ pieces }, start = 0, end = pieces.length) =>
  pieces.slice(start, end).map(({ text }) => text).join("");

export const isWriting = ({ writing }) => writing?.state === "waiting" || writing?.state === "writing";

/** The manuscript with another version in place of the one with its id. */
const replace = (manuscript, version) => ({
  ...manuscript, versions: { ...manuscript.versions, [version.id]: version },
});

/** The manuscript with a new version, a child of `parent`; it becomes the current one if `isCurrent`. */
function add(manuscript, parent, pieces, writing, isCurrent = true) {
  const id = manuscript.lastId + 1;
  const versions = { ...manuscript.versions, [id]: { id, parent: parent.id, next: null, pieces, writing } };
  versions[parent.id] = { ...parent, next: isCurrent || !parent.next ? id : parent.next };
  return prune({ versions, current: isCurrent ? id : manuscript.current, lastId: id });
}

/** Drop the oldest versions without children while there are too many, but not the current one. */
function prune(manuscript) {
  const versions = { ...manuscript.versions };
  const parents = new Set(Object.values(versions).map(({ parent }) => parent));
  for (const version of Object.values(versions)) {
    if (Object.keys(versions).length <= MAX_VERSIONS) break;
    if (version.id === manuscript.current || parents.has(version.id) || isWriting(version)) continue;
    delete versions[version.id];
    const parent = versions[version.parent];
    if (parent?.next === version.id) versions[parent.id] = { ...parent, next: null };
  }
  return { ...manuscript, versions };
}

/** Pieces up to the code unit `end` of their text; a token that it cuts is no token any more. */
function head(pieces, end) {
  const kept = [];
  for (const piece of pieces) {
    if (end >= piece.text.length) kept.push(piece);
    else if (end > 0) kept.push({ text: piece.text.slice(0, end), by: piece.by });
    end -= piece.text.length;
    if (end <= 0) break;
  }
  return kept;
}

/** Pieces from the code unit `start` of their text on. */
function tail(pieces, start) {
  const kept = [];
  for (const piece of pieces) {
    if (start <= 0) kept.push(piece);
    else if (start < piece.text.length) kept.push({ text: piece.text.slice(start), by: piece.by });
    start -= piece.text.length;
  }
  return kept;
}

const isSurrogateHalf = (text, index) => /[\udc00-\udfff]/.test(text[index] ?? "");

/** The manuscript after the reader has made the text `text`: what is between its unchanged ends is the reader's. */
export function edit(manuscript, text) {
  const version = current(manuscript);
  const before = textOf(version);
  if (text === before) return manuscript;
  let start = 0;
  while (start < Math.min(before.length, text.length) && before[start] === text[start]) start++;
  while (isSurrogateHalf(before, start) || isSurrogateHalf(text, start)) start--;
  let end = 0;
  const longest = Math.min(before.length, text.length) - start;
  while (end < longest && before.at(-1 - end) === text.at(-1 - end)) end++;
  while (end && (isSurrogateHalf(before, before.length - end) || isSurrogateHalf(text, text.length - end))) end--;
  const written = text.slice(start, text.length - end);
  const pieces = [
    ...head(version.pieces, start), ...(written ? [{ text: written, by: "reader" }] : []),
    // Log-probabilities depend on what stands before.
    ...tail(version.pieces, before.length - end).map(({ text: rest, by }) => ({ text: rest, by })),
  ];
  return add(manuscript, version, pieces, null);
}

/** The manuscript after the reader has put `token` in the place of piece `index`, and cut off what follows. */
export function steer(manuscript, index, token) {
  const version = current(manuscript);
  return add(manuscript, version, [...version.pieces.slice(0, index), { text: token, by: "reader" }], null);
}

/** The manuscript with `count` new versions in which the model is to go on from the current one; the first is shown. */
export function beginWriting(manuscript, requests, startedAt) {
  const version = current(manuscript);
  return requests.reduce((result, request, i) => {
    const writing = {
      request, start: version.pieces.length, state: "waiting", model: "", fingerprint: "", warnings: [], position: 0,
      startedAt, seconds: 0, length: 0, isEnded: false,
    };
    return add(result, result.versions[version.id], [...version.pieces], writing, i === 0);
  }, manuscript);
}

/** The manuscript with a chunk of a stream added to version `id`; `now` is the time, as `startedAt`. */
export function append(manuscript, id, chunk, now) {
  const version = manuscript.versions[id];
  const { writing } = version;
  let { length } = writing;
  for (const token of chunk.tokens) {
    version.pieces.push({ ...token, by: "model" });
    length += codePoints(token.text);
  }
  return replace(manuscript, {
    ...version,
    writing: {
      ...writing, length, state: length ? "writing" : "waiting", model: chunk.model ?? writing.model,
      fingerprint: chunk.fingerprint ?? writing.fingerprint, position: chunk.position ?? 0,
      warnings: chunk.warnings.length ? chunk.warnings : writing.warnings, isEnded: chunk.isEnded,
      seconds: Math.max(0.001, (now - writing.startedAt) / 1000),
    },
  });
}

/** The manuscript with the writing of version `id` at its end: "finished", "stopped" or "failed". */
export function endWriting(manuscript, id, state, now) {
  const version = manuscript.versions[id];
  const seconds = Math.max(0.001, (now - version.writing.startedAt) / 1000);
  return replace(manuscript, { ...version, writing: { ...version.writing, state, seconds } });
}

/** The manuscript with version `id` shown. */
export function show(manuscript, id) {
  const version = manuscript.versions[id];
  const parent = manuscript.versions[version.parent];
  const shown = parent ? replace(manuscript, { ...parent, next: id }) : manuscript;
  return { ...shown, current: id };
}

/** The version that Undo or Redo shows; undefined if there is none. */
export const previous = (manuscript) => manuscript.versions[current(manuscript).parent];
export const next = (manuscript) => manuscript.versions[current(manuscript).next];

/** The versions that began where the current one did, itself included, oldest first. */
export function alternatives(manuscript) {
  const { id, parent } = current(manuscript);
  if (parent === null) return [manuscript.versions[id]];
  return Object.values(manuscript.versions).filter((version) => version.parent === parent);
}
