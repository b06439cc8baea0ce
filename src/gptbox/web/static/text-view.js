/**
 * A text on the page: the reader's pieces in one ink and the model's in another, each token an element if surprise is
 * shown. Pieces are appended as they come and never drawn again. The text stands in blocks of whole lines: a browser
 * lays out a paragraph anew whenever it grows, so that one of 10,000 tokens would be slow.
 */

import { el } from "./dom.js";
import { surprise } from "./surprise.js";
import { isWithinCharacter } from "./text.js";

const BLOCK_LENGTH = 800;
/** Most tokens in one element: marks without end would be one character. */
const MAX_TOKENS = 50;

export class TextView {
  /** Draws into `container`, which nothing else writes to. */
  constructor(container) {
    this.container = container;
    this.clear();
  }

  clear() {
    this.container.replaceChildren();
    Object.assign(this, { pieces: [], isInked: false, block: null, run: null, last: null, waiting: [] });
  }

  /** Show pieces; those that are shown already stay as they are. */
  show(pieces, isInked) {
    const shown = this.pieces;
    const isMore = isInked === this.isInked && pieces.length >= shown.length
      && shown.every((piece, i) => piece === pieces[i]);
    if (!isMore) {
      this.clear();
      this.isInked = isInked;
    }
    for (let i = this.pieces.length; i < pieces.length; i++) this.add(pieces[i]);
    this.pieces = pieces.slice();
  }

  add(piece) {
    if (!this.isInked || piece.logprob === undefined) return this.addText(piece.text, piece.by);
    this.waiting.push(piece);
    if (!piece.text) return undefined; // a part of a character, of which the last token has the text
    const { last } = this;
    const isMore = last && last.tokens.length < MAX_TOKENS && isWithinCharacter(last.element.textContent, piece.text);
    const tokens = isMore ? [...last.tokens, ...this.waiting] : this.waiting;
    if (isMore) last.element.remove();
    this.waiting = [];
    const element = tokenElement(tokens);
    this.runOf(isMore ? tokens.find(({ text }) => text).by : piece.by).append(element);
    this.last = { element, tokens };
    return this.endBlock(element.textContent);
  }

  /** Add text to the last text node, and begin another block after a line that ends a long one. */
  addText(text, by) {
    this.last = null;
    const isLong = this.length + text.length > BLOCK_LENGTH;
    const end = isLong ? text.lastIndexOf("\n") + 1 || text.length : text.length;
    const run = this.runOf(by);
    if (run.lastChild?.nodeType === Node.TEXT_NODE) run.lastChild.appendData(text.slice(0, end));
    else run.append(text.slice(0, end));
    this.endBlock(text.slice(0, end));
    if (end < text.length) this.addText(text.slice(end), by);
  }

  /** The element in which the text of this writer goes on. */
  runOf(by) {
    if (!this.block) {
      this.block = el("div");
      this.container.append(this.block);
      this.length = 0;
      this.run = null;
    }
    if (this.run?.className !== by) {
      this.run = el(by === "model" ? "ins" : "span", { class: by });
      this.block.append(this.run);
    }
    return this.run;
  }

  endBlock(added) {
    this.length += added.length;
    if (this.length < BLOCK_LENGTH || !added.endsWith("\n")) return;
    this.block = this.last = null;
  }
}

/** The tokens of each token element. */
const tokensOf = new WeakMap();

/** What the token element says when it is pointed at; undefined for another element. */
export const tokensIn = (element) => tokensOf.get(element);

/** The element of a token, or of the several tokens of one character: its probability is their product. */
export function tokenElement(tokens) {
  const logprob = tokens.reduce((sum, token) => sum + (token.logprob ?? 0), 0);
  const text = tokens.map((token) => token.text).join("");
  const element = el("span", { "data-surprise": surprise(logprob) }, text);
  tokensOf.set(element, tokens);
  return element;
}
