/** Values kept in this browser: until the tab is closed (load, save, remove), or for good (recall, keep). */

// Two gptbox servers may share a host under different paths.
const storageKey = (key) => `gptbox:${location.pathname}:${key}`;

// Functions, as a browser may forbid even to name its storage.
const session = () => sessionStorage;
const local = () => localStorage;

function read(storage, key, fallback) {
  try {
    return JSON.parse(storage().getItem(storageKey(key))) ?? fallback;
  } catch {
    return fallback;
  }
}

function write(storage, key, value) {
  try {
    storage().setItem(storageKey(key), JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

/** The value stored in this tab, or `fallback` if there is none or the browser blocks storage. */
export const load = (key, fallback) => read(session, key, fallback);

/** Store a value in this tab. Returns false if the browser refuses (private mode, quota exceeded). */
export const save = (key, value) => write(session, key, value);

/** Forget a value of this tab. */
export function remove(key) {
  try {
    sessionStorage.removeItem(storageKey(key));
  } catch {
    // The browser blocks storage: there is nothing to forget.
  }
}

/** The same as `load` and `save` for all tabs, and after they are closed. */
export const recall = (key, fallback) => read(local, key, fallback);
export const keep = (key, value) => write(local, key, value);
