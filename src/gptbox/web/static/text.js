/**
 * Texts as lists of tokens {text, key, logprob, top}: `key` names the token, `top` has the names, log-probabilities and,
 * where they are known, ids [key, logprob, id] of the most probable tokens in descending order.
 */

/** The tokens with log-probabilities in OpenAI's lists; `offset`: code points before `text` in what the lists count. */
export function tokensOf({ text, logprobs }, offset) {
  if (!logprobs) return text ? [{ text }] : [];
  const texts = textsOf(text, logprobs.text_offset.map((start) => start - offset));
  const tokens = logprobs.tokens.map((key, i) => ({
    text: texts.tokens[i], key, logprob: logprobs.token_logprobs[i],
    // Sorted here: in JavaScript, keys that look like integers come first.
    top: Object.entries(logprobs.top_logprobs[i]).sort(([, a], [, b]) => b - a),
  }));
  // What belongs to an earlier chunk's token comes first.
  return texts.rest ? [{ text: texts.rest }, ...tokens] : tokens;
}

/** The tokens of a reply of `/api/scores` for `text`, with the first of its scores; they also have an `id`. */
export function scoredTokens(text, { tokens, token_ids: ids, text_offset: starts, scores: [score] }) {
  const { logprobs, top_logprobs: top } = score;
  const texts = textsOf(text, starts);
  return tokens.map((key, i) => ({
    text: texts.tokens[i], key, id: ids?.[i], logprob: logprobs[i],
    top: top?.[i]?.map(({ token, logprob, id }) => [token, logprob, id]) ?? [],
  }));
}

/**
 * The text of each token, from the code points at which they start. Each gets the text up to the next one's start, so
 * that they add up to the text: if a character has several tokens, the last one gets it.
 */
function textsOf(text, starts) {
  const characters = [...text];
  return {
    rest: characters.slice(0, starts[0]).join(""),
    tokens: starts.map((start, i) => characters.slice(start, starts[i + 1]).join("")),
  };
}

/** Undefined in older browsers. */
const segmenter = Intl.Segmenter && new Intl.Segmenter();

/** Whether `after` continues the last character that people see in `before`: with a combining mark, for example. */
export const isWithinCharacter = (before, after) =>
  segmenter?.segment(before + after).containing(before.length)?.index < before.length;

/** The bounds [start, end] of the characters that people see at the code units `start` to `end`. */
export function wholeCharacters(text, start, end) {
  // Enough for any character; the segmenter would read a long text from its beginning.
  const from = Math.max(0, start - 100);
  const segments = segmenter?.segment(text.slice(from, end + 100));
  if (!segments) return [start, end];
  const first = segments.containing(start - from)?.index ?? start - from;
  const last = segments.containing(Math.max(start, end - 1) - from);
  return [from + first, last ? from + last.index + last.segment.length : end];
}

export const codePoints = (text) => {
  let count = 0;
  for (const _ of text) count++;
  return count;
};

/** A text without the half of a character that it begins with, if it does. */
export const withoutHalf = (text) => text.replace(/^[\udc00-\udfff]/, "");

const encoder = new TextEncoder();

/** Bytes of UTF-8. */
export const byteLength = (text) => encoder.encode(text).length;
