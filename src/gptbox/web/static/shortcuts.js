/** The page's keyboard shortcuts, which its modules register here, and the dialog that lists them. */

import { $, announce, el, openDialog } from "./dom.js";
import { keep, recall } from "./storage.js";

const IS_APPLE = /Mac|iP(hone|ad)/.test(navigator.platform);
const KEY_WORDS = {
  Mod: IS_APPLE ? "⌘" : "Ctrl", Escape: "Esc", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓",
  " ": "Space",
};
const TYPING = "textarea, select, [contenteditable], input:not([type=range], [type=checkbox], [type=radio])";

/** In the order of the list; each {keys, words, action}. */
const shortcuts = [];

/**
 * Register a shortcut. `keys`: one or several names of KeyboardEvent.key, each behind "Mod+" for Ctrl or ⌘ and "Shift+"
 * where a letter needs it. `words`: what it does, for the list. `action(event)` returns false where it does not apply:
 * then the next shortcut of that key, or the browser, gets its turn. Without an action, the shortcut is only listed.
 *
 * A key that types a character does nothing in a field, in a dialog, or where the reader has turned such keys off.
 */
export function register(keys, words, action = null) {
  shortcuts.push({ keys: [keys].flat(), words, action });
}

/** The parts of a key's name: {mod, shift, name}. */
function parse(key) {
  const [, mod, shift, name] = /^(Mod\+)?(Shift\+)?(.+)$/s.exec(key);
  return { mod: Boolean(mod), shift: Boolean(shift), name };
}

const isLetter = (name) => /^\p{L}$/u.test(name);

function matches(event, key) {
  const { mod, shift, name } = parse(key);
  if (event.altKey || mod !== (event.ctrlKey || event.metaKey)) return false;
  // Of other signs, shift is a part: "?" has it on some keyboards only.
  if (isLetter(name) && shift !== event.shiftKey) return false;
  return event.key === name || (isLetter(name) && event.key.toLowerCase() === name.toLowerCase());
}

/** Whether a shortcut's key would type something. */
const types = (key) => !parse(key).mod && [...parse(key).name].length === 1;

function onKey(event) {
  if (event.defaultPrevented || event.isComposing) return;
  const isTyping = event.target.matches?.(TYPING);
  const isInDialog = document.querySelector("dialog:modal");
  for (const { keys, action } of shortcuts) {
    const key = action && keys.find((each) => matches(event, each));
    if (!key) continue;
    if (types(key) ? isTyping || isInDialog || !$("single-keys").checked : isInDialog) continue;
    if (action(event) === false) continue;
    event.preventDefault();
    return;
  }
}

/** The elements for a key: "Mod+Shift+z" as Ctrl + Shift + Z. */
function keyElements(key) {
  const { mod, shift, name } = parse(key);
  const parts = [mod && "Mod", shift && "Shift", isLetter(name) ? name.toUpperCase() : name].filter(Boolean);
  return parts.flatMap((part, i) => [...(i ? [" + "] : []), el("kbd", {}, KEY_WORDS[part] ?? part)]);
}

function show() {
  const rows = shortcuts.map(({ keys, words }) => {
    const elements = keys.flatMap((key, i) => [...(i ? [" "] : []), el("span", {}, ...keyElements(key))]);
    return el("tr", {}, el("td", {}, ...elements), el("td", {}, words));
  });
  $("shortcuts-list").replaceChildren(...rows);
  openDialog($("shortcuts"));
}

$("single-keys").checked = recall("single-keys", true);
$("single-keys").addEventListener("change", ({ target: { checked } }) => {
  keep("single-keys", checked);
  announce(checked ? "Shortcuts of a single key are on." : "Shortcuts of a single key are off.");
});
$("help").addEventListener("click", show);
document.addEventListener("keydown", onKey);
register("?", "Show these shortcuts", show);
// Keys of parts of the page, which see to them themselves.
register("Mod+Enter", "Generate, or continue");
register("Escape", "Stop writing, or close a panel");
register(["ArrowLeft", "ArrowRight"], "In the text: from token to token; on the timeline: from snapshot to snapshot");
register("Enter", "At a token: what else might have come; elsewhere in the text: edit it");
register(["1", "…", "8"], "In that panel: take one, and have the rest written anew");
register("n", "With surprise ink: to the next surprise");
register("Mod+z", "In the text: undo");
register("Mod+Shift+z", "In the text: redo");
