/** The page's shared state. Modules change it with `update`, and subscribe to the parts that they show. */

import { newManuscript } from "./manuscript.js";
import { DEFAULTS } from "./sampling.js";
import { loadManuscript } from "./saved-manuscript.js";
import { load } from "./storage.js";

export function createStore(initial) {
  let state = initial;
  const checks = [];
  return {
    get state() {
      return state;
    },

    /** Replace parts of the state, then call the listeners of the parts that changed. */
    update(patch) {
      state = { ...state, ...patch };
      for (const check of checks) check();
    },

    /** Call `listener(value, before)` whenever `selector(state)` becomes another value or another object. */
    subscribe(selector, listener) {
      let value = selector(state);
      checks.push(() => {
        const before = value;
        value = selector(state);
        if (!Object.is(value, before)) listener(value, before);
      });
    },
  };
}

export const store = createStore({
  /** The latest {training, server} of `/api/status`; null before the first. `server.model` is the model in use. */
  status: null,
  /** Whether the connection to the server is broken: `status` is then an old one. */
  isLost: false,
  /** The {run, metrics, samples} of the run shown; null at first. `isOther`: not the status's, with its `training`. */
  history: null,
  /** The paper's text and its versions (manuscript.js). */
  manuscript: loadManuscript() ?? newManuscript(),
  /** The sampling settings by their API names (sampling.js). */
  settings: { ...DEFAULTS, ...load("settings", {}) },
  /** What is marked on the paper: how surprising each token is, and which words stand in the training text. */
  ink: { isOn: load("ink", false), isCopiedOn: load("copied", false), copied: null },
  /** The run that the reader picked; null follows the status's own. */
  run: null,
  /** The step of the snapshot that the reader chose on the timeline; null follows the newest. */
  snapshot: null,
  /** The snapshots that can still write, {best, steps} by run (runs.js); null while they are not known. */
  kept: null,
});
