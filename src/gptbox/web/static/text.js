/**
 * A generated text as a list of tokens {text}, with log-probabilities {text, key, logprob, top}: `key` names the token,
 * `top` has the names and log-probabilities [key, logprob] of the most probable tokens, in descending order.
 */

/** A text that is yet to come. `state`: "waiting", "writing", then "finished", "stopped" or "failed". */
export function newText(request, hasProbabilities) {
  return {
    request, hasProbabilities, state: "waiting", tokens: [], length: 0, model: "", warnings: [], position: 0,
    startedAt: performance.now(), seconds: 0,
  };
}

export const isUnfinished = (text) => text?.state === "waiting" || text?.state === "writing";

/** The text continued by a chunk of the stream. `tokens` is extended in place: copying it each time would be slow. */
export function appendChunk(text, { tokens, model, fingerprint, warnings, position, isEnded }) {
  let { length } = text;
  for (const token of tokens) {
    text.tokens.push(token);
    length += codePoints(token.text);
  }
  return {
    ...text, length, state: length ? "writing" : "waiting", model: model ?? text.model,
    fingerprint: fingerprint ?? text.fingerprint, position: position ?? 0,
    warnings: warnings.length ? warnings : text.warnings, isEnded, seconds: secondsSince(text.startedAt),
  };
}

/** The text at its end. */
export const endText = (text, state) => ({ ...text, state, seconds: secondsSince(text.startedAt) });

/** The text as a string, without the prompt. */
export const plainText = ({ tokens }) => tokens.map((token) => token.text).join("");

/**
 * The tokens of a stream's choice. `offset`: code points before it. Each token gets the text up to the next one's
 * `text_offset`, so that the tokens add up to the text: if a character has several tokens, the last one gets it.
 */
export function tokensOf({ text, logprobs }, offset) {
  if (!logprobs) return text ? [{ text }] : [];
  const characters = [...text];
  const starts = logprobs.text_offset.map((start) => start - offset);
  const tokens = logprobs.tokens.map((key, i) => ({
    text: characters.slice(starts[i], starts[i + 1]).join(""),
    key,
    logprob: logprobs.token_logprobs[i],
    // Sorted here: in JavaScript, keys that look like integers come first.
    top: Object.entries(logprobs.top_logprobs[i]).sort(([, a], [, b]) => b - a),
  }));
  const rest = characters.slice(0, starts[0]).join(""); // belongs to an earlier chunk's token
  return rest ? [{ text: rest }, ...tokens] : tokens;
}

/** Undefined in older browsers. */
const segmenter = Intl.Segmenter && new Intl.Segmenter();

/** Whether `after` continues the last character that people see in `before`: with a combining mark, for example. */
export const isWithinCharacter = (before, after) =>
  segmenter?.segment(before + after).containing(before.length)?.index < before.length;

export const codePoints = (text) => [...text].length;

const secondsSince = (start) => Math.max(0.001, (performance.now() - start) / 1000);
