/**
 * The text on the paper and its history: a tree of versions.
 *
 * A version is {id, parent, next, branch, pieces, writing}. `pieces`, joined, are its whole text: {text, by} with `by`
 * either "reader" or "model"; a token also has {key, logprob, top} (text.js) while they are known. `parent` is the
 * version that Undo shows, `next` the child that Redo returns to. Versions that the model wrote from the same place have
 * the same `branch`. `writing` is what the model wrote or is writing in this version, null for an edit: {request, start,
 * state, model, fingerprint, warnings, position, startedAt, seconds, length, isEnded}, with `start` the number of pieces
 * before it and `length` its code points; `state` is "waiting", "writing", then "finished", "stopped" or "failed".
 *
 * Functions return a new manuscript and leave the old one alone, except that `append` extends `pieces` in place: copying
 * them for each chunk of a stream would be slow.
 */

import { codePoints } from "./text.js";

/** How many versions are kept; the oldest go first. */
const MAX_VERSIONS = 100;

/** An empty paper. */
export const newManuscript = () => ({
  versions: { 1: { id: 1, parent: null, next: null, branch: 1, pieces: [], writing: null } }, current: 1, lastId: 1,
});

export const current = ({ versions, current: id }) => versions[id];

/** The whole text of a version, or its text from piece `start` to `end`. */
export const textOf = ({ pieces }, start = 0, end = pieces.length) =>
  pieces.slice(start, end).map(({ text }) => text).join("");

export const isWriting = ({ writing }) => writing?.state === "waiting" || writing?.state === "writing";

/** Whether the model is writing any version. */
export const isBusy = ({ versions }) => Object.values(versions).some(isWriting);

/** The manuscript with another version in place of the one with its id. */
const replace = (manuscript, version) => ({
  ...manuscript, versions: { ...manuscript.versions, [version.id]: version },
});

/** The manuscript with a new version, a child of `parent`; it becomes the current one if `isCurrent`. */
function add(manuscript, parent, { branch, pieces, writing }, isCurrent = true) {
  const id = manuscript.lastId + 1;
  const version = { id, parent: parent.id, next: null, branch: branch ?? id, pieces, writing };
  const versions = { ...manuscript.versions, [id]: version };
  versions[parent.id] = { ...versions[parent.id], next: isCurrent || !parent.next ? id : parent.next };
  return prune({ versions, current: isCurrent ? id : manuscript.current, lastId: id });
}

/** The manuscript without its oldest versions while there are too many. The current one and its ancestors go last. */
export function prune(manuscript, limit = MAX_VERSIONS) {
  const versions = { ...manuscript.versions };
  for (let excess = Object.keys(versions).length - limit; excess > 0; excess--) {
    const all = Object.values(versions);
    const parents = new Set(all.map(({ parent }) => parent));
    const isKept = (version) => version.id === manuscript.current || isWriting(version);
    const oldest = all.find((version) => !parents.has(version.id) && !isKept(version))
      ?? all.find((version) => version.parent === null && !isKept(version));
    if (!oldest) break;
    delete versions[oldest.id];
    for (const version of Object.values(versions)) {
      if (version.next === oldest.id) versions[version.id] = { ...version, next: null };
      if (version.parent === oldest.id) versions[version.id] = { ...versions[version.id], parent: null };
    }
  }
  return { ...manuscript, versions };
}

/** Pieces up to the code unit `end` of their text; a token that it cuts is no token any more. */
export function head(pieces, end) {
  const kept = [];
  for (const piece of pieces) {
    if (end <= 0) break;
    if (end >= piece.text.length) kept.push(piece);
    else kept.push({ text: piece.text.slice(0, end), by: piece.by });
    end -= piece.text.length;
  }
  return kept;
}

/** Pieces from the code unit `start` of their text on, without log-probabilities: they depend on what stands before. */
function tail(pieces, start) {
  const kept = [];
  for (const { text, by } of pieces) {
    if (start <= 0) kept.push({ text, by });
    else if (start < text.length) kept.push({ text: text.slice(start), by });
    start -= text.length;
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
    ...tail(version.pieces, before.length - end),
  ];
  return add(manuscript, version, { pieces, writing: null });
}

/** Where the model goes on at the end of the current version: {pieces, branch}. */
export function continuation(manuscript) {
  const { id, pieces } = current(manuscript);
  const sibling = Object.values(manuscript.versions).find(
    ({ parent, writing, branch }) => parent === id && writing && branch !== current(manuscript).branch,
  );
  return { pieces, branch: sibling?.branch };
}

/** Where the model began to write the current version, to write it again. */
export const sameBeginning = (manuscript) => {
  const { pieces, branch, writing } = current(manuscript);
  return { pieces: pieces.slice(0, writing.start), branch };
};

/** Where `chosen` stands in the place of what follows the code unit `end` of the current text. */
export const steered = (manuscript, end, chosen) => {
  const { pieces, branch } = current(manuscript);
  return { pieces: [...head(pieces, end), ...(chosen ? [{ text: chosen, by: "reader" }] : [])], branch };
};

/** The manuscript with a new version for each request, in which the model is to go on from `place`; the first is shown. */
export function beginWriting(manuscript, requests, { pieces, branch }, startedAt) {
  const parent = current(manuscript);
  branch ??= manuscript.lastId + 1;
  return requests.reduce((result, request, i) => {
    const writing = {
      request, start: pieces.length, state: "waiting", model: "", fingerprint: "", warnings: [], position: 0,
      startedAt, seconds: 0, length: 0, isEnded: false,
    };
    return add(result, parent, { branch, pieces: [...pieces], writing }, i === 0);
  }, manuscript);
}

/** The manuscript with a chunk of a stream (api.js) added to version `id`; `now` is the time, as `startedAt`. */
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
      seconds: secondsBetween(writing.startedAt, now),
    },
  });
}

/** The manuscript with the writing of version `id` at its end: "finished", "stopped" or "failed". */
export function endWriting(manuscript, id, state, now) {
  const version = manuscript.versions[id];
  const { writing } = version;
  const seconds = secondsBetween(writing.startedAt, now);
  return replace(manuscript, { ...version, writing: { ...writing, state, seconds } });
}

const secondsBetween = (start, now) => Math.max(0.001, (now - start) / 1000);

/** The manuscript without version `id`, which has no children: its parent is shown. */
export function remove(manuscript, id) {
  const { [id]: removed, ...versions } = manuscript.versions;
  const parent = versions[removed.parent];
  if (parent.next === id) versions[parent.id] = { ...parent, next: null };
  return { ...manuscript, versions, current: manuscript.current === id ? parent.id : manuscript.current };
}

/** The manuscript with the log-probabilities of version `id`: tokens without `by`, whose texts add up to its text. */
export function withTokens(manuscript, id, tokens) {
  const version = manuscript.versions[id];
  const pieces = [];
  let [i, left] = [0, version.pieces[0]?.text.length];
  let start = 0;
  for (const token of tokens) {
    while (left === 0 && i < version.pieces.length - 1) left = version.pieces[++i].text.length;
    if (i < (version.writing?.start ?? 0)) start = pieces.length + 1;
    pieces.push({ ...token, by: version.pieces[i].by });
    // A token may reach over the border between reader and model.
    for (let rest = token.text.length; rest > 0; ) {
      const taken = Math.min(rest, left);
      [rest, left] = [rest - taken, left - taken];
      if (rest > 0) left = version.pieces[++i].text.length;
    }
  }
  const writing = version.writing && { ...version.writing, start };
  return replace(manuscript, { ...version, pieces, writing });
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

/** The versions that the model wrote from the same place as the current one, which is among them; oldest first. */
export function alternatives(manuscript) {
  const { branch } = current(manuscript);
  return Object.values(manuscript.versions).filter((version) => version.branch === branch);
}

/** The versions that were asked for at once with the current one, itself included. */
export function together(manuscript) {
  const { branch, writing } = current(manuscript);
  if (!writing) return [];
  return alternatives(manuscript).filter((other) => other.branch === branch && other.writing?.startedAt === writing.startedAt);
}
