/**
 * The manuscript in this tab's storage, so that a reload loses no text: an index and an entry a version, of which only
 * those that changed are written. Log-probabilities are not stored; they can be requested again.
 */

import { isWriting, prune, textOf } from "./manuscript.js";
import { load, remove, save } from "./storage.js";

/** The versions as they were stored last, by id. */
const stored = new Map();

/** A version as it is stored: adjacent pieces of one writer are joined, and the prompt is left to the text. */
function packed(version) {
  const { pieces, writing } = version;
  const runs = [];
  let start = 0;
  pieces.forEach(({ text, by }, i) => {
    if (i === writing?.start) start = runs.length;
    if (i !== writing?.start && runs.at(-1)?.by === by) runs.at(-1).text += text;
    else runs.push({ text, by });
  });
  if (!writing) return { ...version, pieces: runs };
  if (writing.start >= pieces.length) start = runs.length;
  const { prompt, ...rest } = writing.request;
  const request = prompt === textOf(version, 0, writing.start) ? rest : writing.request;
  return { ...version, pieces: runs, writing: { ...writing, request, start } };
}

function unpacked(version) {
  const { writing } = version;
  if (!writing) return version;
  const request = { prompt: textOf(version, 0, writing.start), ...writing.request };
  // What was being written when the page was left ends there.
  const state = isWriting(version) ? "failed" : writing.state;
  return { ...version, writing: { ...writing, request, state } };
}

/** The stored manuscript; null if there is none. */
export function loadManuscript() {
  const index = load("manuscript", null);
  const versions = {};
  for (const id of index?.ids ?? []) {
    const version = load(`version-${id}`, null);
    if (version) versions[id] = unpacked(version);
  }
  if (!versions[index?.current]) return null;
  for (const version of Object.values(versions)) {
    if (!versions[version.parent]) version.parent = null;
    if (!versions[version.next]) version.next = null;
    stored.set(version.id, version);
  }
  return { versions, current: index.current, lastId: index.lastId };
}

/** Store what changed. When the storage is full, the oldest versions are left out. */
export function saveManuscript(manuscript) {
  let kept = manuscript;
  while (!trySave(kept)) {
    const count = Object.keys(kept.versions).length;
    const fewer = prune(kept, count - Math.ceil(count / 4));
    if (Object.keys(fewer.versions).length === count) return;
    kept = fewer;
  }
}

function trySave({ versions, current, lastId }) {
  for (const id of stored.keys()) {
    if (versions[id]) continue;
    remove(`version-${id}`);
    stored.delete(id);
  }
  for (const version of Object.values(versions)) {
    if (stored.get(version.id) === version) continue;
    if (!save(`version-${version.id}`, packed(version))) return false;
    stored.set(version.id, version);
  }
  return save("manuscript", { ids: Object.keys(versions), current, lastId });
}
