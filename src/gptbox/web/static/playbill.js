/** The playbill: a text and where it comes from, typeset as one page that can be printed or kept as a file. */

import { el, svg } from "./dom.js";
import { count, duration, loss, number, parameters } from "./format.js";
import { codePoints, isWithinCharacter } from "./text.js";

/** Sizes of type, largest first, and what fits a page: lines of so many columns. The smallest has two lines abreast. */
const LAYOUTS = [
  { size: "large", columns: 50, lines: 13 },
  { size: "medium", columns: 66, lines: 22 },
  { size: "small", columns: 42, lines: 52 },
];
const SMALLEST = LAYOUTS.at(-1);
/** Of what stands before the model's last words, so many lines stay. */
const MIN_LINES_BEFORE = 14;
const CUT = "[…]";
/** Height of a page over its width: that of US Letter within its margins, which is the lowest. */
const MAX_HEIGHT = 1.31;

const WIDE = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\u3000-\u303f\uff00-\uff60]/gu;
const width = (line) => codePoints(line) + (line.match(WIDE)?.length ?? 0);
const lineCount = (text, columns = SMALLEST.columns) =>
  text.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(width(line) / columns)), 0);

/** The last index in [low, high] for which `fits` holds: it holds up to some index, and not from there on. */
function lastFitting(low, high, fits) {
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (fits(middle)) low = middle;
    else high = middle - 1;
  }
  return low;
}

const isInCharacter = (text, index) =>
  /[\udc00-\udfff]/.test(text[index] ?? "") ||
  isWithinCharacter(text.slice(0, index), text.slice(index));

/** `index`, or a place up to 60 before or after it (`direction` -1 or 1) where a line, a word or a character ends. */
function cleanCut(text, index, direction) {
  for (const gap of [/\n/, /\s/]) {
    for (let i = index; Math.abs(i - index) < 60 && i > 0 && i < text.length; i += direction) {
      if (gap.test(text[i])) return i;
    }
  }
  while (index > 0 && index < text.length && isInCharacter(text, index)) index += direction;
  return index;
}

/**
 * The part [begin, end) of a text that one page shows: all, if it fits; else the end of what stands before `start`,
 * where the model's last words begin, and as much of them as fits.
 */
export function excerpt(text, start, layouts = LAYOUTS) {
  let [begin, end] = [0, text.length];
  if (layouts.some(({ columns, lines }) => lineCount(text, columns) <= lines)) return [begin, end];
  const most = layouts.at(-1).lines;
  const linesBefore = Math.max(MIN_LINES_BEFORE, most - lineCount(text.slice(start)));
  begin = start - lastFitting(0, start, (count) => lineCount(text.slice(start - count, start)) <= linesBefore);
  if (begin > 0) begin = cleanCut(text, begin, 1);
  while (begin > 0 && /\s/.test(text[begin])) begin++;
  end = lastFitting(begin, end, (index) => lineCount(text.slice(begin, index)) < most);
  if (end < text.length) end = cleanCut(text, end, -1);
  while (end > begin && end < text.length && /\s/.test(text[end - 1])) end--;
  return [begin, end];
}

/** The part [begin, end) of pieces (manuscript.js): the reader's words heavier, a sign where something is left out. */
function words(pieces, begin, end) {
  const runs = [];
  let offset = 0;
  for (const { text, by } of pieces) {
    const part = text.slice(Math.max(0, begin - offset), Math.max(0, end - offset));
    offset += text.length;
    if (part && runs.at(-1)?.by === by) runs.at(-1).text += part;
    else if (part) runs.push({ text: part, by });
  }
  const nodes = runs.map(({ text, by }) => (by === "reader" ? el("strong", {}, text) : text));
  return [...(begin > 0 ? [`${CUT} `] : []), ...nodes, ...(end < offset ? [` ${CUT}`] : [])];
}

const PLAYBILL_DATE = new Intl.DateTimeFormat("en-GB", { dateStyle: "long" });

/** An SVG image's paths on white, drawn anew: nothing else of it enters the page. */
function qrCode(source, label) {
  const image = new DOMParser().parseFromString(source, "image/svg+xml").documentElement;
  const size = (name) => Number.parseFloat(image.getAttribute(name));
  const box = image.getAttribute("viewBox") ?? `0 0 ${size("width")} ${size("height")}`;
  const paths = [...image.querySelectorAll("path")].map((path) => {
    const names = ["d", "transform", "stroke", "stroke-width", "fill"].filter((name) => path.hasAttribute(name));
    return svg("path", Object.fromEntries(names.map((name) => [name, path.getAttribute(name)])));
  });
  return svg("svg", { viewBox: box, role: "img", "aria-label": label, class: "playbill-qr" }, ...paths);
}

/** A term and its value; nothing if there is no value. */
const fact = (term, value) => (value ? [el("div", {}, el("dt", {}, term), el("dd", {}, value))] : []);

/**
 * The playbill's element. `pieces`: the whole text; `start`: the number of pieces before the model's last words;
 * `request`: what they were written with; `facts`: {run, step, loss, seconds, parameters} of the model, null where
 * unknown; `qr`: the source of an SVG of `link`, or null.
 */
export function playbill(content) {
  let element;
  // How many lines fit depends on the fonts: fewer and fewer, until they do.
  for (const share of [1, 0.9, 0.8, 0.7, 0.6]) {
    element = build(content, LAYOUTS.map((layout) => ({ ...layout, lines: Math.floor(share * layout.lines) })));
    if (fitsPage(element)) break;
  }
  return element;
}

/** Whether a playbill is no higher than a page of any usual paper. */
function fitsPage(article) {
  const measure = el("div", { class: "playbill-measure" }, article);
  document.body.append(measure);
  const { height, width: whole } = article.getBoundingClientRect();
  measure.remove();
  return height <= MAX_HEIGHT * whole;
}

function build({ pieces, start, request, facts, link, qr, date }, layouts) {
  const textOf = (some) => some.map(({ text }) => text).join("");
  const text = textOf(pieces);
  const [begin, end] = excerpt(text, textOf(pieces.slice(0, start)).length, layouts);
  const shown = text.slice(begin, end);
  const { size } = layouts.find(({ columns, lines }) => lineCount(shown, columns) <= lines) ?? SMALLEST;
  const byline = [
    facts.parameters ? `a model of ${parameters(facts.parameters)} parameters` : "a language model",
    facts.seconds ? `after ${duration(facts.seconds)} of learning` : "",
  ].filter(Boolean).join(", ");
  const settings = [`temperature ${request.temperature}`, `top-k ${request.top_k || "off"}`, `seed ${request.seed}`];
  const isCut = begin > 0 || end < text.length;
  const hasReader = pieces.some(({ text: part, by }) => by === "reader" && part.trim());
  const legend = [
    hasReader ? "The heavier words are a reader’s; the model wrote the rest." : "The model wrote every word.",
    isCut ? `${CUT} stands for what does not fit this page.` : "",
  ].filter(Boolean).join(" ");
  return el(
    "article", { class: "playbill", "data-size": size, "data-title": facts.run.length > 16 ? "long" : "short" },
    el("div", { class: "playbill-frame" },
      el("header", {},
        el("p", { class: "playbill-press" }, "Written by a machine"),
        el("p", { class: "playbill-title" }, facts.run),
        el("p", { class: "playbill-byline" }, byline)),
      el("p", { class: "playbill-text", dir: "auto", translate: "no" }, ...words(pieces, begin, end)),
      el("footer", {},
        el("div", {},
          el("dl", {},
            ...fact("Loss", facts.loss === null ? "" : loss(facts.loss)),
            ...fact("Learning", facts.seconds ? duration(facts.seconds) : ""),
            ...fact("Step", facts.step === null ? "" : number(facts.step)),
            ...fact("Text", count(codePoints(text), "character"))),
          el("p", {}, legend),
          el("p", {}, ["Printed with gptbox", PLAYBILL_DATE.format(date), ...settings].join(" · "))),
        ...(qr ? [el("a", { href: link }, qrCode(qr, "QR code of the link to this text"), "Read it live")] : []))),
  );
}

const escape = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt()};`);

/** A playbill as a file: one HTML page that loads nothing and runs no script. `css`: its style sheet. */
export function playbillFile(article, title, css) {
  const body = new XMLSerializer().serializeToString(article);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)}</title>
<style>
${css}
</style>
</head>
<body class="playbill-page">
${body}
</body>
</html>
`;
}
