/** The time axis that the curve, the slider and the pinned line share: from training steps to places. */

import { el } from "./dom.js";
import { duration, loss, number, valLoss } from "./format.js";

/** A logarithmic axis is linear below this part of the run: snapshots would else lie too close together at its end. */
const LINEAR_PART = 1 / 60;

/** The least distance between the labels of two steps, in pixels. */
const TICK_GAP = 46;

export class TimeAxis {
  /** From `left` to `right` pixels: steps 0 to `last`, or `first` to `last` on a logarithmic axis. */
  constructor(first, last, isLogarithmic, left, right) {
    Object.assign(this, { first: isLogarithmic ? first : 0, last, isLogarithmic, left, right });
    if (this.last <= this.first) this.last = this.first + 1;
  }

  /** Where a step lies, 0 to 1 from the first to the last. */
  fraction(step) {
    const [at, first, last] = [step, this.first, this.last].map((value) =>
      this.isLogarithmic ? Math.log1p(value / this.last / LINEAR_PART) : value);
    return (at - first) / (last - first);
  }

  x(step) {
    return this.left + this.fraction(step) * (this.right - this.left);
  }

  /** Round steps for labels, far enough apart. */
  ticks() {
    if (!this.isLogarithmic) {
      const count = Math.max(2, Math.floor((this.right - this.left) / 100));
      return ticks(0, this.last, count).values.filter(Number.isInteger);
    }
    const found = [];
    const isFree = (step, others) => others.every((other) => Math.abs(this.x(other) - this.x(step)) >= TICK_GAP);
    for (let power = 10 ** Math.floor(Math.log10(this.last)); power >= 1; power /= 10) {
      for (const step of [5 * power, 2 * power, power]) {
        if (step >= this.first && step <= this.last && isFree(step, found)) found.push(step);
      }
    }
    if (this.first === 0 && isFree(0, found)) found.push(0);
    return found.reverse();
  }
}

/** About `count` round values from `min` to `max`, and the decimals they need. */
export function ticks(min, max, count) {
  const target = (max - min) / count || 1;
  const power = 10 ** Math.floor(Math.log10(target));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= target);
  const values = [];
  const first = Math.ceil(min / step - 1e-9) || 0; // never -0
  for (let i = first; i * step <= max + step * 1e-9; i += 1) values.push(i * step);
  return { values, digits: Math.max(0, -Math.floor(Math.log10(step))) };
}

/** The rows with a validation loss. */
export const evaluations = (rows) => rows.filter((row) => Number.isFinite(valLoss(row)));

/** The evaluations as a table, or the last 50 rows if there are none. */
export function lossTable(rows) {
  const evaluated = evaluations(rows);
  const shown = evaluated.length ? evaluated : rows.slice(-50);
  const headers = ["Step", "Time", "Training loss", "Validation loss", "Tokens per second"];
  const cells = (row) => [
    number(row.step), duration(row.elapsed_s ?? 0), loss(row.train_loss),
    loss(valLoss(row)), Number.isFinite(row.tokens_per_s) ? number(row.tokens_per_s) : "–",
  ];
  const tableRow = (tag, attributes, texts) => el("tr", {}, ...texts.map((text) => el(tag, attributes, text)));
  return el(
    "table", {},
    el("thead", {}, tableRow("th", { scope: "col" }, headers)),
    el("tbody", {}, ...shown.map((row) => tableRow("td", {}, cells(row)))),
  );
}
