/** Versions that are written at once, side by side, to go on with one of them. */

import { $, el, setText } from "./dom.js";
import { count, textFacts } from "./format.js";
import * as manuscripts from "./manuscript.js";
import { choose } from "./paper.js";
import { store } from "./store.js";
import { TextView } from "./text-view.js";

/** Of each version: {id, view, box, facts, button}. */
let columns = [];
let frame = 0;

function column({ id }, i) {
  const box = el("div", { class: "text", tabindex: "0", role: "region", "aria-label": `Version ${i + 1}` });
  const facts = el("p", { class: "hint" });
  const button = el("button", { type: "button" }, "Go on with this");
  button.setAttribute("aria-label", `Go on with version ${i + 1}`);
  button.addEventListener("click", () => choose(id));
  return { id, view: new TextView(box), box, facts, button };
}

function render() {
  frame = 0;
  const { manuscript } = store.state;
  const versions = $("choices").hidden ? [] : manuscripts.together(manuscript);
  if (versions.map(({ id }) => id).join() !== columns.map(({ id }) => id).join()) {
    columns = versions.map(column);
    $("choices").replaceChildren(...columns.map(({ box, facts, button }) => el("section", {}, box, facts, button)));
  }
  versions.forEach((version, i) => {
    const { view, box, facts, button } = columns[i];
    const { pieces, writing } = version;
    const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
    view.show(pieces.slice(writing.start), false);
    if (isAtEnd && manuscripts.isWriting(version)) box.scrollTop = box.scrollHeight;
    setText(facts, writing.length ? count(writing.length, "character") : textFacts(writing));
    button.disabled = manuscripts.isBusy(manuscript);
  });
}

const schedule = () => (frame ||= requestAnimationFrame(render));

store.subscribe(({ manuscript }) => manuscript, schedule);
new MutationObserver(schedule).observe($("choices"), { attributeFilter: ["hidden"] });
