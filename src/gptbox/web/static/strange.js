/** "How strange is my text?": any text in surprise ink and in bits per character, beside the validation text's own. */

import { ApiError } from "./api.js";
import { $, announce, setText } from "./dom.js";
import { MAX_BYTES, score } from "./scoring.js";
import { store } from "./store.js";
import { byteLength } from "./text.js";
import { TextView } from "./text-view.js";

const view = new TextView($("strange-text"));
let controller = null;

/** How the text reads to the model, from the ratio of its bits to those of the validation text. */
const meaning = (ratio) =>
  ratio < 0.7 ? "The model knows this text all but by heart: perhaps it stands in what it was trained on."
  : ratio < 0.95 ? "This text is easier for the model than the pages it was tested on."
  : ratio < 1.15 ? "To the model, this text reads like the one it learned from."
  : ratio < 1.7 ? "To the model, this text is somewhat strange."
  : ratio < 2.5 ? "To the model, this text is strange: another style, another language, or other characters."
  : "To the model, this is hardly text at all.";

async function measure() {
  const text = $("strange-input").value;
  const { settings, run, status } = store.state;
  controller?.abort();
  setText($("strange-error"), "");
  if (!text) return showError("Paste or write a text first.");
  if (byteLength(text) > MAX_BYTES) {
    return showError(`This text is too long: ${Math.ceil(byteLength(text) / 1024)} KiB. The limit is 8 KiB.`);
  }
  if (!status?.server.ready) return showError("There is no model yet.");
  controller = new AbortController();
  setText($("strange-verdict"), "Reading…");
  try {
    const { tokens, score: found, validation } = await score({
      text, model: settings.model ?? run, signal: controller.signal,
    });
    show(tokens, found.bits_per_character, validation?.bits_per_character);
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    setText($("strange-verdict"), "");
    if (!(error instanceof ApiError)) throw error;
    return showError(error.message);
  }
  return undefined;
}

function show(tokens, bits, ofValidation) {
  view.show(tokens.map((token) => ({ ...token, by: "text" })), true);
  $("strange-result").hidden = false;
  const own = `${bits.toFixed(2)} bits per character`;
  const beside = ofValidation ? `; the text that it was tested on has ${ofValidation.toFixed(2)}` : "";
  setText($("strange-verdict"), `${own}${beside}. ${ofValidation ? meaning(bits / ofValidation) : ""}`.trim());
  // Eight bits are a guess among 256 characters.
  const most = Math.max(8, bits);
  $("strange-own").style.width = `${(100 * bits) / most}%`;
  $("strange-validation").style.width = `${(100 * (ofValidation ?? 0)) / most}%`;
  for (const part of document.querySelectorAll("#strange-bars .of-validation")) part.hidden = !ofValidation;
  announce($("strange-verdict").textContent);
}

function showError(message) {
  setText($("strange-error"), message);
  announce(message);
  $("strange-input").focus();
}

$("strange-form").addEventListener("submit", (event) => {
  event.preventDefault();
  measure();
});
$("strange-input").addEventListener("input", () => setText($("strange-error"), ""));
store.subscribe(({ status }) => Boolean(status?.server.ready), (isReady) => ($("inside").hidden = !isReady));
