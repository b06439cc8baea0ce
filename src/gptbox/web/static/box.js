/** The box: what it is doing, the model in use, and how programs use it. */

import { ApiError, fetchFile, fetchStatus } from "./api.js";
import { $, copyOnClick, el, saveFile, setText } from "./dom.js";
import * as format from "./format.js";
import { current } from "./manuscript.js";
import { store } from "./store.js";

const SNIPPET_LENGTH = 200;
/** Assumed draw while training, in watts: of a processor for each busy thread, and of a graphics card. */
const WATTS_PER_THREAD = 5;
const WATTS_PER_GPU = 300;

/** "about 4 s", "about 2 min". */
const about = (seconds) => `about ${seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : format.duration(seconds)}`;

/**
 * Seconds until the text at `position` in the queue begins, counted from 1: one begins whenever another ends. 0 if
 * there is no queue, null if the speed is not known.
 */
export function expectedWait({ queued, tokens_per_s: speed }, position, length) {
  if (!queued) return 0;
  return speed > 0 ? (position * length) / speed : null;
}

/** What the server does, in words: "1 text is being written, 1,200 characters per second. The next begins at once." */
export function activity({ active, queued, tokens_per_s: speed, token_unit: unit }, position, length) {
  if (!active && !queued) return "Idle: a text begins at once.";
  const are = active === 1 ? "is" : "are";
  const rate = speed > 0 ? `, ${format.number(speed)} ${unit ?? "token"}s per second` : "";
  const writing = `${format.count(active, "text")} ${are} being written${rate}.`;
  const wait = expectedWait({ queued, tokens_per_s: speed }, position || queued + 1, length);
  if (wait === 0) return `${writing} The next begins at once.`;
  const waiting = `Busy: ${queued} ${queued === 1 ? "waits" : "wait"}.`;
  const begins = wait === null ? "once its turn comes" : `in ${about(wait)}`;
  return `${writing} ${waiting} ${position ? `Yours is number ${position} and begins` : "A new one begins"} ${begins}.`;
}

/** What training has used: {value, assumption}; null if unknown. `device`: as in the status, "cpu, 2 threads". */
export function energy({ elapsed_s: seconds, device }) {
  if (!(seconds > 0) || !device) return null;
  const [, processes = 1, threads] = /^cpu, (?:(\d+) processes of )?(\d+) thread/.exec(device) ?? [];
  const gpus = Number(/^(\d+) x /.exec(device)?.[1] ?? 1);
  const watts = threads ? processes * threads * WATTS_PER_THREAD : gpus * WATTS_PER_GPU;
  const hours = (watts * seconds) / 3600;
  const value = hours >= 1000 ? `${(hours / 1000).toPrecision(2)} kWh` : `${Number(hours.toPrecision(2))} Wh`;
  const draw = threads ? `${WATTS_PER_THREAD} W for each of ${format.count(processes * threads, "thread")}`
    : `${WATTS_PER_GPU} W for each graphics card`;
  return { value: `about ${value}`, assumption: `not measured: assumes ${draw}` };
}

/** The model that texts come from: the snapshot or the run that the reader chose, else the server's newest. */
const modelInUse = ({ settings, run, status }) => settings.model ?? run ?? status.server.model;

/** The status of the run of the model in use, if it is not the server's newest run: fetched once. */
let other = { run: "", training: null };

/** The status of a run; null while it is being fetched. */
function trainingOf(run) {
  const { training } = store.state.status;
  if (!run || training?.run === run) return training;
  if (other.run !== run) {
    other = { run, training: null };
    const fetched = other;
    fetchStatus(run).then((status) => {
      fetched.training = status.training;
      render();
    }, () => {}); // the card stays shorter
  }
  return other.training;
}

/** The rows of the model card: [term, value, hint]. */
function cardRows(name, training) {
  const rows = [["Model", format.modelName(name) || "none yet"]];
  if (!training) return rows;
  const { parameters, architecture, device, dataset_source: source, elapsed_s: seconds, tokens } = training;
  const used = energy(training);
  const loss = format.modelLoss(training);
  return [
    ...rows,
    ["Text", source && format.isolate(source)],
    ["Size", parameters && `${format.parameters(parameters)} parameters`, architecture],
    ["Learning", seconds > 0 && format.duration(seconds),
      tokens > 0 && `${format.number(tokens)} tokens, on ${device}`],
    ["Loss on unseen text", Number.isFinite(loss) && format.validationLabel(training)],
    ["Loss on its own text", Number.isFinite(training.train_loss) && format.loss(training.train_loss)],
    ["Energy", used?.value, used?.assumption],
  ];
}

let shownCard = "";

function showCard(name) {
  const rows = cardRows(name, trainingOf(format.runOf(name))).filter(([, value]) => value);
  const card = JSON.stringify(rows);
  if (card === shownCard) return;
  shownCard = card;
  $("card").replaceChildren(...rows.map(([term, value, hint]) => el("div", {},
    el("dt", {}, term), el("dd", {}, value, ...(hint ? [el("span", { class: "hint" }, hint)] : [])))));
}

const shellQuote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Programs that use this server as it is: {curl, python}. */
export function snippets(model, { max_tokens: limit, auth }, base) {
  const run = JSON.stringify(format.runOf(model));
  const prompt = /shakespeare|plays/i.test(model) ? "wherefore art thou" : "Once upon a time";
  const length = Math.min(SNIPPET_LENGTH, limit ?? SNIPPET_LENGTH);
  const body = `{"model": ${run}, "max_tokens": ${length},\n       "prompt": ${JSON.stringify(prompt)}}`;
  const curl = [
    `curl ${shellQuote(`${base}v1/completions`)}`,
    "-H 'Content-Type: application/json'",
    ...(auth ? ["-H 'Authorization: Bearer YOUR_API_KEY'"] : []),
    `-d ${shellQuote(body)}`,
  ].join(" \\\n  ");
  const python = `from openai import OpenAI

client = OpenAI(
    base_url=${JSON.stringify(`${base}v1`)},
    api_key=${auth ? '"YOUR_API_KEY"' : '"none"'},
)
reply = client.completions.create(
    model=${run},
    prompt=${JSON.stringify(prompt)},
    max_tokens=${length},
)
print(reply.choices[0].text)`;
  return { curl, python };
}

function showSnippets(model, server) {
  $("programs").hidden = !server.ready;
  if (!server.ready) return;
  const { curl, python } = snippets(model, server, new URL("./", document.baseURI).href);
  setText($("snippet-curl"), curl);
  setText($("snippet-python"), python);
  $("snippet-key").hidden = !server.auth;
}

function showFolder(model, server) {
  const isOffered = server.ready && server.downloads !== false;
  $("carry-home").hidden = !isOffered;
  if (isOffered) $("folder").href = `api/models/${model}.zip`;
}

/** A link cannot send a key: with one, the folder is fetched and then saved. */
async function download(event) {
  const { server } = store.state.status;
  if (!server.auth) return;
  event.preventDefault();
  setText($("folder-state"), "Fetching the folder…");
  try {
    saveFile(`${modelInUse(store.state)}.zip`, await fetchFile($("folder").href), "application/zip");
    setText($("folder-state"), "");
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    setText($("folder-state"), error.status === 401 ? "Generate a text with the API key first: this tab then has it."
      : error.message);
  }
}

function render() {
  const { status, isLost, manuscript, settings } = store.state;
  if (!status) return;
  const { server } = status;
  const position = current(manuscript).writing?.position ?? 0;
  $("box").hidden = false;
  $("activity").dataset.state = isLost ? "lost" : server.queued ? "busy" : server.active ? "writing" : "idle";
  setText($("activity"), isLost ? "The connection to the box is lost."
    : server.ready ? activity(server, position, settings.max_tokens)
    : "There is no model to write with yet.");
  const model = modelInUse(store.state);
  showCard(model);
  showSnippets(model, server);
  showFolder(model, server);
}

setText($("api-url"), new URL("v1", document.baseURI).href);
copyOnClick($("copy-curl"), () => $("snippet-curl").textContent);
copyOnClick($("copy-python"), () => $("snippet-python").textContent);
$("folder").addEventListener("click", download);
store.subscribe(({ status }) => status, render);
store.subscribe(({ isLost }) => isLost, render);
store.subscribe(({ settings }) => settings, render);
store.subscribe(({ run }) => run, render);
store.subscribe(({ manuscript }) => current(manuscript).writing?.position, render);
