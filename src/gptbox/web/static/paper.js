/**
 * The paper: one text with three faces. A textarea to edit it, a view to read it, and columns to choose among versions
 * that were written at once (choices.js). Leaving the textarea makes what was typed a version.
 */

import { $, copyOnClick, el, setText as setLabel } from "./dom.js";
import { count, isolate, textFacts } from "./format.js";
import * as manuscripts from "./manuscript.js";
import { saveManuscript } from "./saved-manuscript.js";
import { load, remove, save } from "./storage.js";
import { store } from "./store.js";
import { codePoints } from "./text.js";
import { TextView } from "./text-view.js";

const SAVE_INTERVAL_MS = 1000;

const view = new TextView($("text"));
const FACES = { edit: $("prompt"), read: $("output"), choices: $("choices") };

let face = "edit";
/** When the versions were asked for among which the reader has chosen already. */
let chosen = null;
let frame = 0;
let saveTimer = 0;
/** Whether the version was being written when it was drawn last. */
let wasWriting = false;

/** Called when the text has been drawn and is complete. */
const decorators = [];
export const onRendered = (decorate) => decorators.push(decorate);

const version = () => manuscripts.current(store.state.manuscript);
const text = () => manuscripts.textOf(version());
const update = (manuscript) => store.update({ manuscript });

/** Make what was typed a version. */
export function commit() {
  remove("draft");
  if (face === "edit") update(manuscripts.edit(store.state.manuscript, $("prompt").value));
}

/** Make `text` the text on the paper; the reader can undo it. */
export function setText(value) {
  commit();
  update(manuscripts.edit(store.state.manuscript, value));
  showVersion();
}

/** Show the face that suits the version: the textarea as long as everything is the reader's. */
function showVersion() {
  const { pieces, writing } = version();
  const { isOn, isCopiedOn } = store.state.ink;
  const isReading = pieces.some(({ by }) => by === "model") || writing || (pieces.length && (isOn || isCopiedOn));
  const isChoosing = writing && writing.startedAt !== chosen && manuscripts.together(store.state.manuscript).length > 1;
  showFace(isChoosing ? "choices" : isReading ? "read" : "edit");
  $("prompt").value = text();
  render();
}

function showFace(name) {
  const hadFocus = FACES[face].contains(document.activeElement);
  face = name;
  for (const [each, element] of Object.entries(FACES)) element.hidden = each !== name;
  if (hadFocus) FACES[name].focus({ preventScroll: true });
  setLabel($("edit"), name === "edit" ? "Read" : "Edit");
}

/** Go over to the textarea, with the caret at the end and `typed` put there. */
function editAtEnd(typed = "") {
  if (manuscripts.isBusy(store.state.manuscript)) return;
  const field = $("prompt");
  field.value = text() + typed;
  showFace("edit");
  field.focus();
  field.setSelectionRange(field.value.length, field.value.length);
  field.scrollTop = field.scrollHeight;
}

/** Go back from the textarea to the text, and keep what was typed. */
function read() {
  commit();
  showFace("read");
  render();
  $("output").focus();
}

/** Go on with one of the versions that were written at once. */
export function choose(id) {
  chosen = version().writing?.startedAt;
  update(manuscripts.show(store.state.manuscript, id));
  showVersion();
  renderBar();
  $("generate").focus();
}

function showOther(find) {
  commit();
  const other = find(store.state.manuscript);
  if (!other || manuscripts.isBusy(store.state.manuscript)) return;
  update(manuscripts.show(store.state.manuscript, other.id));
}

export const undo = () => showOther(manuscripts.previous);
export const redo = () => showOther(manuscripts.next);

const neighbour = (distance) => (manuscript) => {
  const all = manuscripts.alternatives(manuscript);
  return all[all.findIndex(({ id }) => id === manuscript.current) + distance];
};

function render() {
  cancelAnimationFrame(frame);
  frame = 0;
  const { pieces, writing } = version();
  const isWriting = manuscripts.isWriting(version());
  if (face === "read") {
    const output = $("output");
    const isAtEnd = output.scrollHeight - output.scrollTop - output.clientHeight < 24;
    const { scrollTop } = output;
    view.show(pieces, store.state.ink.isOn);
    output.scrollTop = (isWriting || wasWriting) && isAtEnd ? output.scrollHeight : scrollTop;
    wasWriting = isWriting;
    output.toggleAttribute("data-writing", isWriting);
    output.setAttribute("aria-busy", isWriting);
    if (!isWriting) for (const decorate of decorators) decorate();
  }
  const length = writing ? 0 : codePoints(text());
  const facts = writing ? textFacts(writing) : length ? count(length, "character") : "";
  setLabel($("facts"), face === "choices" ? "Choose the version to go on with." : facts);
}

function renderBar() {
  const { manuscript } = store.state;
  const isBusy = manuscripts.isBusy(manuscript);
  const all = manuscripts.alternatives(manuscript);
  const at = all.findIndex(({ id }) => id === manuscript.current);
  $("versions").hidden = all.length < 2 || face === "choices";
  setLabel($("version"), `Version ${at + 1} of ${all.length}`);
  $("undo").disabled = isBusy || !(manuscripts.previous(manuscript) || (face === "edit" && $("prompt").value !== text()));
  $("redo").disabled = isBusy || !manuscripts.next(manuscript);
  $("previous-version").disabled = isBusy || at < 1;
  $("next-version").disabled = isBusy || at > all.length - 2;
  $("edit").disabled = isBusy;
  const isEmpty = !version().pieces.length && !$("prompt").value;
  for (const id of ["clear", "edit"]) $(id).hidden = isEmpty;
  for (const id of ["copy", "download"]) $(id).hidden = isEmpty || isBusy;
  $("clear").disabled = isBusy;
  renderWarnings();
}

/** A text that goes on is longer than what the model sees at once; only of a prompt this is said. */
function renderWarnings() {
  const { pieces, writing } = version();
  const goesOn = pieces.slice(0, writing?.start ?? 0).some(({ by }) => by === "model");
  const warnings = (writing?.warnings ?? []).filter((warning) => !goesOn || !warning.startsWith("A prompt has "));
  $("warnings").replaceChildren(...warnings.map((warning) => el("li", {}, isolate(warning))));
  $("warnings").hidden = !warnings.length;
}

function scheduleSave() {
  saveTimer ||= setTimeout(saveNow, SAVE_INTERVAL_MS);
}

function saveNow() {
  clearTimeout(saveTimer);
  saveTimer = 0;
  saveManuscript(store.state.manuscript);
}

/** The text that is selected within the paper: a browser's own copy would have line breaks between the blocks. */
function selectedText() {
  const selection = getSelection();
  if (selection.isCollapsed || !selection.rangeCount) return "";
  const range = selection.getRangeAt(0);
  return $("text").contains(range.commonAncestorContainer) ? range.toString() : "";
}

function download() {
  const url = URL.createObjectURL(new Blob([text()], { type: "text/plain" }));
  el("a", { href: url, download: "gptbox.txt" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function onKeyInText(event) {
  const { key, ctrlKey, metaKey, altKey, isComposing } = event;
  if (event.defaultPrevented || isComposing) return;
  const isCommand = ctrlKey || metaKey;
  if (isCommand && key.toLowerCase() === "z") (event.shiftKey ? redo : undo)();
  else if (isCommand && key.toLowerCase() === "y") redo();
  else if (isCommand || altKey) return;
  else if (key === "Enter" || key === "Backspace") editAtEnd();
  else if ([...key].length === 1 && key !== " ") editAtEnd(key);
  else return;
  event.preventDefault();
}

store.subscribe(({ manuscript }) => manuscript, () => {
  if (manuscripts.isWriting(version())) frame ||= requestAnimationFrame(render);
  else render();
  scheduleSave();
});
store.subscribe(({ manuscript }) => manuscript.current, showVersion);
store.subscribe(({ ink }) => ink.isOn || ink.isCopiedOn, () => face !== "choices" && (commit(), showVersion()));
store.subscribe(({ ink }) => ink.isOn, render);
store.subscribe(({ manuscript }) => [version().id, version().writing?.state, version().writing?.warnings.length,
  manuscripts.isBusy(manuscript), manuscript.current].join(), renderBar);

$("prompt").addEventListener("input", () => {
  save("draft", $("prompt").value);
  renderBar();
});
/** After the field has been left: what was typed becomes a version, and both inks are shown. */
function leave() {
  if (face !== "edit" || document.activeElement === $("prompt")) return;
  commit();
  showVersion();
  renderBar();
}

// A press that takes the focus from the field must reach its target before anything moves.
let isPressed = false;
addEventListener("pointerdown", () => (isPressed = true), true);
for (const type of ["pointerup", "pointercancel"]) {
  addEventListener(type, () => {
    isPressed = false;
    setTimeout(leave);
  }, true);
}
// When the window loses the focus, the field keeps it.
$("prompt").addEventListener("blur", () => isPressed || leave());
$("output").addEventListener("keydown", onKeyInText);
$("output").addEventListener("dblclick", () => editAtEnd());
$("output").addEventListener("paste", (event) => editAtEnd(event.clipboardData.getData("text/plain").replaceAll("\r\n", "\n")));
$("text").addEventListener("copy", (event) => {
  const selected = selectedText();
  if (!selected) return;
  event.clipboardData.setData("text/plain", selected);
  event.preventDefault();
});
$("edit").addEventListener("click", () => (face === "edit" ? read() : editAtEnd()));
$("undo").addEventListener("click", undo);
$("redo").addEventListener("click", redo);
$("previous-version").addEventListener("click", () => showOther(neighbour(-1)));
$("next-version").addEventListener("click", () => showOther(neighbour(1)));
$("download").addEventListener("click", download);
$("clear").addEventListener("click", () => {
  setText("");
  $("prompt").focus();
});
copyOnClick($("copy"), () => (face === "edit" ? $("prompt").value : text()));
for (const type of ["pagehide", "visibilitychange"]) {
  addEventListener(type, () => {
    if (type !== "pagehide" && !document.hidden) return;
    if (type === "pagehide") commit();
    saveNow();
  }, true);
}

const draft = load("draft", null);
if (draft !== null) update(manuscripts.edit(store.state.manuscript, draft));
chosen = version().writing?.startedAt ?? null;
showVersion();
renderBar();
