/** What other modules ask of the form until it is rewritten over the manuscript. */

import { $ } from "./dom.js";
import { fillForm } from "./form.js";
import { append, beginWriting, edit, endWriting } from "./manuscript.js";
import { store } from "./store.js";
import { isUnfinished } from "./text.js";

export const setText = (text) => { $("prompt").value = text; };
export const fill = (fields) => fillForm({ prompt: $("prompt").value, ...fields });
export const generate = () => $("form").requestSubmit();
export const stop = () => $("stop").click();

// The manuscript follows the text.
let shown = { tokens: null, count: 0 };
store.subscribe(({ text }) => text, (text) => {
  let { manuscript } = store.state;
  const now = performance.now();
  if (text.tokens !== shown.tokens) {
    manuscript = beginWriting(edit(manuscript, text.request.prompt), [text.request], text.startedAt);
    shown = { tokens: text.tokens, count: 0 };
  }
  const { current } = manuscript;
  const chunk = { ...text, tokens: text.tokens.slice(shown.count) };
  manuscript = append(manuscript, current, chunk, now);
  shown.count = text.tokens.length;
  store.update({ manuscript: isUnfinished(text) ? manuscript : endWriting(manuscript, current, text.state, now) });
});
