/** "Show probabilities": each token coloured by its probability, with the alternatives as its tooltip. */

import { $, announce, el, setText } from "./dom.js";
import { percent, printable } from "./format.js";
import { save } from "./storage.js";
import { store } from "./store.js";

/** The probabilities at which the colour changes: five colours, from 0 for the most probable tokens to 4. */
const THRESHOLDS = [0.8, 0.5, 0.2, 0.05];

/** "e 45 %. Alternatives: a 20 %, (space) 10 %". */
function describe({ key, logprob, top }) {
  const probability = ([name, value]) => `${printable(name)} ${percent(Math.exp(value))}`;
  const others = top.filter(([name]) => name !== key).map(probability);
  return `${probability([key, logprob])}.${others.length ? ` Alternatives: ${others.join(", ")}` : ""}`;
}

/** The element of a token, or of the several tokens of one character: its probability is their product. */
export function tokenElement(tokens) {
  const probability = Math.exp(tokens.reduce((sum, token) => sum + token.logprob, 0));
  const level = THRESHOLDS.filter((threshold) => probability < threshold).length;
  const text = tokens.map((token) => token.text).join("");
  return el("span", { "data-level": level, title: tokens.map(describe).join("\n") }, text);
}

function render() {
  const { text, showProbabilities } = store.state;
  $("probabilities").setAttribute("aria-pressed", showProbabilities);
  $("legend").hidden = !(showProbabilities && text?.hasProbabilities);
  $("legend-hint").hidden = !showProbabilities;
  setText($("legend-hint"), text && !text.hasProbabilities
    ? "The next text will have probabilities."
    : "The model’s own probabilities, before temperature. Point at a token or tap it to see its alternatives.");
}

store.subscribe(({ showProbabilities }) => showProbabilities, render);
store.subscribe(({ text }) => text?.tokens, render);
$("probabilities").addEventListener("click", () => {
  const showProbabilities = !store.state.showProbabilities;
  save("show-probabilities", showProbabilities);
  store.update({ showProbabilities });
});
// Touch screens show no tooltips.
$("text-completion").addEventListener("click", ({ target }) => {
  if (!target.title) return;
  setText($("legend-hint"), target.title);
  announce(target.title);
});
render();
