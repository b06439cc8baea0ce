/** Values kept in this browser: until the tab is closed (load, save), or for good (recall, keep). */

// Two gptbox servers may share a host under different paths.
const storageKey = (key) => `gptbox:${location.pathname}:${key}`;

/** The browser may forbid even to name its storage. */
function read(open, key, fallback) {
  try {
    return JSON.parse(open().getItem(storageKey(key))) ?? fallback;
  } catch {
    return fallback;
  }
}

function write(open, key, value) {
  try {
    open().setItem(storageKey(key), JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

const session = () => sessionStorage;
const local = () => localStorage;

/** The value stored in this tab, or `fallback` if there is none or the browser blocks storage. */
export const load = (key, fallback) => read(session, key, fallback);

/** Store a value in this tab. Returns false if the browser refuses (private mode, quota exceeded). */
export const save = (key, value) => write(session, key, value);

/** The same for all tabs, and after they are closed. */
export const recall = (key, fallback) => read(local, key, fallback);
export const keep = (key, value) => write(local, key, value);
