/**
 * The page's address is its state: it has the permalink of the text shown, and a permalink that is opened is written
 * again. Back and forward go between texts.
 */

import { fetchModels } from "./api.js";
import { $, announce, el } from "./dom.js";
import { modelName, runOf } from "./format.js";
import { generate, stop } from "./generation.js";
import { current, isBusy, isWriting, show, textOf } from "./manuscript.js";
import { setText } from "./paper.js";
import { fieldsOf, findModel, isSameText, readLink, writeLink } from "./permalink.js";
import { fill } from "./settings.js";
import { load } from "./storage.js";
import { store } from "./store.js";

/** The link that is being opened (permalink.js), and what has been done about it; null if there is none. */
let opened = null;
/** The version that the address stands for, and the newest that it stood for. */
let shownId = 0;
let newestId = 0;

/** Length of the model's words in a version. */
const modelLength = ({ pieces }) => pieces.reduce((sum, { text, by }) => sum + (by === "model" ? text.length : 0), 0);

/**
 * The version that the text on the paper was last written in: itself, or the one before the reader's edits. Undefined
 * if these have left less than half of the model's words: that is another text.
 */
export function lastWritten({ versions, current: id }) {
  let version = versions[id];
  while (version && !version.writing?.length) version = versions[version.parent];
  const isLeft = version && (version.id === id || 2 * modelLength(versions[id]) >= modelLength(version));
  return isLeft ? version : undefined;
}

/** The fragment of a version's permalink, without "#". */
const linkOf = (version, unit = store.state.status?.server.token_unit) => writeLink(fieldsOf(version, unit).fields);

/** Whether a fragment is a version's permalink. A stopped text's length depends on whether tokens' unit is known. */
const isLinkOf = (fragment, version) =>
  version?.writing?.length > 0 &&
  [undefined, "character"].some((unit) => isSameText(linkOf(version, unit), fragment));

const ADVICE = "The prompt and the settings are in place: press Generate to write with them.";

/** Say something about the link, with buttons {words: action} that close the notice; without sentences, close it. */
function notify(sentences, buttons = {}) {
  $("notice-list").replaceChildren(...sentences.map((sentence) => el("li", {}, sentence)));
  const elements = Object.entries({ ...buttons, Dismiss: () => {} }).map(([words, action]) => {
    const button = el("button", { type: "button", class: words === "Dismiss" ? "link" : "" }, words);
    button.addEventListener("click", () => {
      $("notice").hidden = true;
      action();
    });
    return button;
  });
  $("notice-buttons").replaceChildren(...elements);
  $("notice").hidden = !sentences.length;
  if (sentences.length) announce(sentences.join(" "));
}

/** Open a fragment: show the version that it is the link of, or have the model write it again. */
function open(fragment) {
  const link = readLink(fragment);
  notify([]);
  opened = null;
  if (!link) return;
  const { manuscript } = store.state;
  // After a reload the paper may have the reader's edits of that text: they stay.
  if (isLinkOf(fragment, lastWritten(manuscript))) return;
  const version = Object.values(manuscript.versions).findLast((each) => isLinkOf(fragment, each));
  if (version) return showVersion(version.id);
  stop();
  setText(link.fields.prompt);
  // The model follows once it is known to be there.
  fill({ ...link.fields, model: null, n: 1 });
  if (link.problems.length) notify([...link.problems, ADVICE]);
  opened = link;
  begin();
}

function showVersion(id) {
  store.update({ manuscript: show(store.state.manuscript, id) });
}

/** Write the opened link's text as soon as the server can. */
async function begin() {
  const link = opened;
  const server = store.state.status?.server;
  if (!link || link.isBegun || !server?.ready || isBusy(store.state.manuscript)) return;
  link.isBegun = true;
  const needsKey = server.auth && !load("key", "");
  if (!needsKey && !(await isAvailable(link))) return;
  if (link !== opened) return;
  fill({ model: link.fields.model });
  if (link.problems.length) return;
  if (needsKey) {
    return notify(["The link’s text is written once you have entered the server’s API key and pressed Generate."]);
  }
  // The reader may have begun another text meanwhile.
  if (textOf(current(store.state.manuscript)) !== link.fields.prompt) return;
  announce("Writing the text of this link.");
  const limit = server.max_tokens ?? Infinity;
  if (link.fields.max_tokens > limit) {
    notify([`The length ${link.fields.max_tokens} is above this server’s limit of ${limit}: the text ends earlier.`]);
    fill({ max_tokens: limit });
  }
  generate();
}

const OTHER_SERVER = "The text may differ from the one that was shared: this link was made with another version of " +
  "gptbox, or on a computer of another kind.";

/** Whether the server still has a link's model; if not, say so and offer another. */
async function isAvailable({ fields: { model }, problems }) {
  if (!model) return true;
  let ids;
  try {
    ids = (await fetchModels()).map(({ id }) => id);
  } catch {
    return true; // generating will say what is wrong
  }
  const { isFound, runExists, nearest } = findModel(model, ids);
  if (isFound) return true;
  const writeWith = (other) => () => {
    fill({ model: other });
    generate();
  };
  if (!runExists) {
    notify(
      [...problems, `The run ${runOf(model)} is not on this server: it was deleted, or the link is another server’s.`],
      { "Write with the model in use": writeWith(null) },
    );
  } else if (nearest) {
    notify(
      [...problems, `This link’s snapshot, ${modelName(model)}, was thinned out, as old ones are while a run trains. ` +
        `The nearest one kept is ${modelName(nearest)}: its text will differ.`],
      { [`Write with ${modelName(nearest).split(", ").at(-1)}`]: writeWith(nearest) },
    );
  } else {
    notify([...problems, `The run ${runOf(model)} has no snapshot yet.`]);
  }
  return false;
}

/**
 * Put the link of the shown text into the address: as a new entry of the browser's history for a new text of the
 * model's, and for a new paper.
 */
function follow(manuscript) {
  const shown = current(manuscript);
  const isOpened = opened && shown.writing && isOfOpened(shown.writing.request);
  if (isOpened) compare(shown.writing);
  if (isWriting(shown)) return;
  if (opened?.isSeen && !isOpened && !isBusy(manuscript)) checkOpened();
  begin();
  if (isOpened) opened = null;
  if (shown.id === shownId) return;
  shownId = shown.id;
  const version = lastWritten(manuscript);
  const fragment = version ? linkOf(version) : "";
  if (!version && !history.state) return; // a link that was opened, but not written yet
  const isNew = (version ?? shown).id > newestId && !isOpened && !isSameText(location.hash, fragment)
    && Boolean(version || readLink(location.hash));
  newestId = Math.max(newestId, shown.id);
  try {
    if (isNew && !history.state) history.replaceState({ version: version.parent }, "");
    const address = fragment ? `#${fragment}` : location.pathname + location.search;
    history[isNew ? "pushState" : "replaceState"]({ version: shown.id }, "", address);
  } catch {
    // A browser that finds the address too long keeps the old one; the text can be shared all the same.
  }
}

const isOfOpened = ({ prompt, seed }) => prompt === opened.fields.prompt && seed === opened.fields.seed;

/** Tell the reader that the opened link's text may differ, as soon as it has a fingerprint. */
function compare({ fingerprint }) {
  opened.isSeen = true;
  if (!fingerprint || opened.isCompared) return;
  opened.isCompared = true;
  const isOther = opened.fields.fingerprint && opened.fields.fingerprint !== fingerprint;
  const said = $("notice").hidden ? [] : [...$("notice-list").children].map(({ textContent }) => textContent);
  if (isOther) notify([...said, OTHER_SERVER]);
}

/** Writing the opened link's text has failed, and left no version: its model may be gone. */
function checkOpened() {
  const link = opened;
  opened = null;
  isAvailable(link);
}

addEventListener("popstate", ({ state }) => {
  const { manuscript } = store.state;
  const version = manuscript.versions[state?.version];
  if (version && (!location.hash || isLinkOf(location.hash, version))) {
    notify([]);
    return showVersion(version.id);
  }
  open(location.hash);
});
store.subscribe(({ manuscript }) => manuscript, follow);
store.subscribe(({ status }) => status, begin);
open(location.hash);
