/** Log-probabilities of any text, from `/api/scores`. */

import { postJson } from "./api.js";
import { byteLength, scoredTokens, withoutHalf } from "./text.js";

/** The server's limit for one request. */
export const MAX_BYTES = 8 * 1024;
/** Of a longer text, only the end is scored: more would keep the server busy for seconds. */
const MAX_LENGTH = 64 * 1024;
const MAX_PROMPT = 16 * 1024;

/** The reply for a text that stands after `prompt`, as tokens (text.js). Throws ApiError or AbortError. */
export async function score({ text, prompt = "", model = null, topLogprobs = 0, signal }) {
  // More is beyond any model's context.
  const before = withoutHalf(prompt.slice(-MAX_PROMPT));
  const body = { model, text, prompt: before, top_logprobs: topLogprobs };
  const reply = await postJson("api/scores", body, signal);
  return { tokens: scoredTokens(text, reply), score: reply.scores[0], validation: reply.validation };
}

/** The tokens of a text of any length that stands after `prompt`; what is too long has no log-probabilities. */
export async function scoreAll(text, model, signal, prompt = "") {
  let at = text.length - withoutHalf(text.slice(-MAX_LENGTH)).length;
  const tokens = at ? [{ text: text.slice(0, at), logprob: null }] : [];
  while (at < text.length) {
    const part = firstPart(text.slice(at, at + MAX_BYTES), at + MAX_BYTES >= text.length);
    tokens.push(...(await score({ text: part, prompt: prompt + text.slice(0, at), model, signal })).tokens);
    at += part.length;
  }
  return tokens;
}

/** As much of the text's beginning as one request may have, whole words where possible. */
function firstPart(text, isLast) {
  let part = text;
  while (byteLength(part) > MAX_BYTES) part = part.slice(0, Math.floor(part.length / 2));
  if (isLast && part === text) return part;
  const end = Math.max(part.lastIndexOf(" "), part.lastIndexOf("\n") + 1);
  part = end > 0 ? part.slice(0, end) : part;
  return part.replace(/[\ud800-\udbff]$/, "");
}
