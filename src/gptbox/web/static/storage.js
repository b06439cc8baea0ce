/** Values kept in this browser until the tab is closed. */

// Two gptbox servers may share a host under different paths.
const storageKey = (key) => `gptbox:${location.pathname}:${key}`;

/** The stored value, or `fallback` if there is none or the browser blocks storage. */
export function load(key, fallback) {
  try {
    return JSON.parse(sessionStorage.getItem(storageKey(key))) ?? fallback;
  } catch {
    return fallback;
  }
}

/** Store a value. Returns false if the browser refuses (private mode, quota exceeded). */
export function save(key, value) {
  try {
    sessionStorage.setItem(storageKey(key), JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

/** Forget a value. */
export function remove(key) {
  try {
    sessionStorage.removeItem(storageKey(key));
  } catch {
    // The browser blocks storage: there is nothing to forget.
  }
}
