/** What this tab remembers: in the browser alone, and until the tab is closed. */

// Two boxes may share a host under different paths.
const name = (key) => `gptbox:${location.pathname}:${key}`;

/** The kept value, or `otherwise` where there is none or the browser keeps nothing. */
export function recall(key, otherwise) {
  try {
    return JSON.parse(sessionStorage.getItem(name(key))) ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** Keep a value; false where the browser refuses (private mode, no room left). */
export function keep(key, value) {
  try {
    sessionStorage.setItem(name(key), JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}
