/** The history of the run shown: fetched into the store as it grows, and the status of that run. */

import { fetchHistory, fetchStatus } from "./api.js";
import { runOf } from "./format.js";
import { store } from "./store.js";

const REFETCH_MS = 2000;
const MAX_REFETCH_MS = 30_000;
/** A curve is about as many pixels wide: waiting for this part of the run so far moves its end by one or two. */
const CURVE_PARTS = 200;
/** How often another run than the server's newest is asked for news, while its training goes on. */
const OTHER_RUN_MS = 10_000;

/** What the history shown was fetched for, when, and the timer of the next fetch (0 if none). */
let shown = { news: "", state: "" };
let fetchedAt = -Infinity;
let timer = 0;
let isFetching = false;

/** The run that the reader picked, null if it is the server's newest or none. */
const pickedRun = ({ run, status }) => (run && run !== status?.training?.run ? run : null);

const isUnderWay = (training) => ["preparing", "training"].includes(training?.phase);

/** The status of the run shown: of the picked one once it is known, else of the newest; null if there is none. */
export function shownTraining(state) {
  const picked = pickedRun(state);
  if (!picked) return state.status?.training ?? null;
  return state.history?.run === picked ? state.history.training : { run: picked, phase: "" };
}

/** The status of the run whose history is shown: that may be an older one than the newest, which learned nothing. */
export const historyTraining = ({ history, status }) =>
  (history?.run === status?.training?.run ? status?.training : history?.training) ?? status?.training ?? null;

/** The run's history; if it ended before it learned anything, that of the run whose model is in use. */
async function findHistory({ training, server }) {
  const own = await fetchHistory(training.run);
  const ended = ["stopped", "failed"].includes(training.phase);
  if (own.metrics.length || own.samples.length || !ended || !server.ready) return own;
  return fetchHistory(runOf(server.model));
}

async function find(state) {
  const picked = pickedRun(state);
  const newest = state.status.training?.run;
  const history = await (picked ? fetchHistory(picked) : findHistory(state.status));
  // How its losses read depends on the run's tokens.
  const training = history.run === newest ? null : (await fetchStatus(history.run)).training;
  return { ...history, training, isOther: history.run !== newest };
}

/** What decides whether there is something to fetch: `news` are worth asking for at once, `state` after a while. */
function wanted(state) {
  const { training, server } = state.status;
  const picked = pickedRun(state);
  if (picked) return { news: picked, state: picked };
  const { run, step, phase, latest_snapshot: newest } = training;
  const news = [run, phase, newest, runOf(server.model)].join(" ");
  return { news, state: `${news} ${step}` };
}

function schedule() {
  const { state } = store;
  if (!state.status || !(pickedRun(state) || state.status.training) || isFetching) return;
  const next = wanted(state);
  if (next.state === shown.state) return;
  const growing = ((shownTraining(state)?.elapsed_s ?? 0) * 1000) / CURVE_PARTS;
  const pause = next.news === shown.news ? Math.min(MAX_REFETCH_MS, Math.max(REFETCH_MS, growing)) : REFETCH_MS;
  const isOtherRun = next.news.split(" ")[0] !== shown.news.split(" ")[0];
  const due = isOtherRun && pickedRun(state) ? 0 : fetchedAt + pause - performance.now();
  clearTimeout(timer);
  timer = setTimeout(() => refetch(next), Math.max(0, due));
}

async function refetch(next) {
  isFetching = true;
  fetchedAt = performance.now();
  const { run } = store.state;
  let isGone = false;
  try {
    const history = await find(store.state);
    shown = next;
    // The reader may have picked another run meanwhile.
    if (store.state.run === run) store.update({ history });
    if (history.isOther && isUnderWay(history.training)) setTimeout(forget, OTHER_RUN_MS);
  } catch (error) {
    // A run that was deleted. Otherwise the connection notice tells the reader, and the next status tries again.
    isGone = error.status === 404 && run !== null;
    if (!isGone) return;
  } finally {
    isFetching = false;
  }
  if (isGone) store.update({ run: null });
  schedule();
}

/** Ask for the history again, whatever was fetched before. */
function forget() {
  shown = { news: shown.news, state: "" };
  if (!document.hidden) schedule();
}

store.subscribe(({ status }) => status, schedule);
store.subscribe(({ run }) => run, schedule);
document.addEventListener("visibilitychange", () => document.hidden || (store.state.status && schedule()));
