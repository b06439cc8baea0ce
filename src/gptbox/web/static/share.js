/** The share dialog: the text's permalink, and its playbill to keep or print. Reads the store only. */

import { lastWritten } from "./address.js";
import { ApiError, fetchHistory, fetchQrCode, fetchStatus } from "./api.js";
import { $, announce, copyOnClick, el, openDialog, saveFile, setText } from "./dom.js";
import { number, runOf, stepOf, valLoss } from "./format.js";
import { current, textOf } from "./manuscript.js";
import { LONG_LINK, fieldsOf, writeLink } from "./permalink.js";
import { playbill, playbillFile } from "./playbill.js";
import { randomSeed } from "./sampling.js";
import { register } from "./shortcuts.js";
import { store } from "./store.js";

/** A QR code of more is too fine for most cameras, on one page beside a text. */
const MAX_QR_LENGTH = 1000;
const LOCAL_HOST = /^(localhost|127\.[\d.]+|\[::1\])$/;

/** The playbill made last: what it is of, when it is ready, and then its element and a note. */
let made = { key: "", version: null, ready: null, element: null, note: "" };

/** The link to what is on the paper: {link, version, notes}, with the version whose text it writes again, if any. */
function linkOfPaper() {
  const { manuscript, settings, status } = store.state;
  const version = lastWritten(manuscript);
  const paper = current(manuscript);
  const notes = [];
  let fields = { ...settings, prompt: textOf(paper), seed: settings?.seed ?? randomSeed() };
  if (!version) {
    notes.push("The model has not written yet: the link opens with your words and settings, and it goes on.");
  } else {
    const { fields: written, isLonger } = fieldsOf(version, status?.server.token_unit);
    fields = written;
    if (version !== paper) notes.push("Your changes since the model last wrote are not in the link.");
    if (version.writing.request.prompt_ids) {
      notes.push("This text was steered within a character, which no link can say: it may open with another one.");
    }
    if (isLonger) notes.push("You stopped this text: whoever opens the link sees it at its full length.");
  }
  const link = `${location.origin}${location.pathname}#${writeLink(fields)}`;
  if (LOCAL_HOST.test(location.hostname)) {
    notes.push("This address works on this computer only. To share it, open the page by the computer’s name.");
  }
  if (status?.server.auth) notes.push("This server has an API key: whoever opens the link needs it.");
  if (status?.training?.phase === "training" && version) {
    notes.push("The model is still learning. Old snapshots are thinned out, and this one may be among them.");
  }
  if (link.length > LONG_LINK) {
    const length = number(link.length);
    notes.push(`This link has ${length} characters. It works, but some mail and chat programs cut long ones.`);
  }
  return { link, version, notes };
}

/** What is known of the model that wrote a version: {run, step, loss, seconds, parameters}; null where unknown. */
async function factsOf({ writing: { model } }) {
  const run = runOf(model);
  const { status, history: shown } = store.state;
  const newest = status?.training;
  const training = newest?.run === run ? newest : (await fetchStatus(run).catch(() => null))?.training;
  const step = stepOf(model);
  const history = shown?.run === run ? shown : await fetchHistory(run).catch(() => null);
  const upTo = (rows = []) => rows.findLast((row) => row.step <= step);
  const isAtStep = (row) => row.step === step && valLoss(row) !== null;
  const row = history?.samples.find(isAtStep) ?? history?.metrics.find(isAtStep);
  const isBest = training?.phase === "finished" && model === `${run}@${training.best_snapshot}`;
  return {
    run, step: Number.isNaN(step) ? null : step, loss: isBest ? training.best_val_loss : valLoss(row),
    seconds: upTo(history?.metrics)?.elapsed_s ?? null, parameters: training?.parameters ?? null,
  };
}

/** The QR code of a link: {qr, note}; where there can be none, `qr` is null and `note` says why. */
async function qrCodeOf(link) {
  if (link.length > MAX_QR_LENGTH) {
    return { qr: null, note: "The link is too long for a QR code: the playbill has none." };
  }
  try {
    return { qr: await fetchQrCode(link), note: "" };
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return { qr: null, note: `The playbill has no QR code: ${error.message}` };
  }
}

/** What a playbill is of: it is made anew when the paper or the link changes. */
function keyOf(link) {
  const { id, pieces } = current(store.state.manuscript);
  return [id, pieces.length, link].join(" ");
}

/** Make the playbill of the paper, whose link writes `version` again, unless it is made. Returns when it is ready. */
function makePlaybill({ link, version }) {
  const key = keyOf(link);
  if (made.key !== key) {
    made = { key, version, ready: null, element: null, note: "" };
    made.ready = make(made, link);
  }
  return made.ready;
}

async function make(bill, link) {
  const { version } = bill;
  const pieces = [...current(store.state.manuscript).pieces];
  const { request, start } = version.writing;
  const [facts, { qr, note }] = await Promise.all([factsOf(version), qrCodeOf(link)]);
  bill.note = note;
  bill.element = playbill({ pieces, start, request, facts, link, qr, date: new Date() });
}

function showNotes(notes) {
  $("share-notes").replaceChildren(...notes.map((note) => el("li", {}, note)));
  $("share-notes").hidden = !notes.length;
}

async function show() {
  const shared = linkOfPaper();
  $("share-link").value = shared.link;
  showNotes(shared.notes);
  $("share-native").hidden = !navigator.share;
  $("share-playbill").hidden = !shared.version;
  $("playbill-preview").replaceChildren();
  openDialog($("share"));
  if (!shared.version) return;
  await makePlaybill(shared);
  showNotes([...shared.notes, made.note].filter(Boolean));
  $("playbill-preview").replaceChildren(made.element ?? "");
}

async function download() {
  await made.ready;
  const { element, version } = made;
  const css = await (await fetch(new URL("playbill.css", import.meta.url))).text();
  const { model, request } = version.writing;
  const name = `playbill ${model} seed ${request.seed}`.replace(/[^\w.-]+/g, "-");
  saveFile(`${name}.html`, playbillFile(element, `A playbill of ${runOf(model)}`, css), "text/html");
  announce("The playbill is in your downloads.");
}

/** Print the playbill alone. */
async function print() {
  await makePlaybill(linkOfPaper());
  window.print();
}

/** Put the playbill where the print style looks for it. Without one of this text, the page is printed as it is. */
function preparePrint() {
  const { link, version } = linkOfPaper();
  const element = version && made.key === keyOf(link) ? made.element : null;
  document.documentElement.toggleAttribute("data-playbill", Boolean(element));
  $("playbill-print").replaceChildren(...(element ? [element.cloneNode(true)] : []));
}

$("share-open").addEventListener("click", show);
$("share-native").addEventListener("click", async () => {
  try {
    await navigator.share({ title: "gptbox", url: $("share-link").value });
  } catch (error) {
    if (error.name !== "AbortError") setText($("share-native"), "Sharing failed");
  }
});
copyOnClick($("share-copy"), () => $("share-link").value);
$("playbill-download").addEventListener("click", download);
$("playbill-print-button").addEventListener("click", print);
addEventListener("beforeprint", preparePrint);
register("s", "Share the text: a link, or a playbill", () => void show());
register("Mod+p", "Print the playbill", () => (linkOfPaper().version ? void print() : false));
