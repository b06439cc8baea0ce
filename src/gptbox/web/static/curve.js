/** The loss curve: an SVG with axes, the training loss as a line, the loss on unseen text as points. */

import { draw, make } from "./dom.js";
import { duration, loss, number, unseen } from "./words.js";

const HEIGHT = 210;
const MARGIN = { top: 10, right: 10, bottom: 38, left: 46 };

/** About `wanted` round values from `low` to `high`. */
export function ticks(low, high, wanted) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const values = [];
  const first = Math.ceil(low / step - 1e-9) || 0; // never -0
  for (let i = first; i * step <= high + step * 1e-9; i += 1) values.push(i * step);
  return { values, digits: Math.max(0, -Math.floor(Math.log10(step))) };
}

/** The ranges of both axes. The steep first steps may run off the top, so that the rest can be read. */
export function ranges(rows) {
  const last = rows.at(-1).step;
  const counted = rows.filter((row) => row.step >= last * 0.03);
  const losses = counted.flatMap((row) => [row.train_loss, unseen(row)]).filter(Number.isFinite);
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  const air = Math.max(0.05, (high - low) * 0.06);
  return { x: [0, Math.max(1, last)], y: [low - air, high + air] };
}

export class Curve {
  /** Draws into `box` from then on, whatever its width. */
  constructor(box) {
    this.box = box;
    this.rows = [];
    this.tip = make("p", { class: "tip", "aria-hidden": "true" });
    this.tip.hidden = true;
    new ResizeObserver(() => this.draw()).observe(box);
    box.addEventListener("pointermove", (event) => this.point(event.clientX - box.getBoundingClientRect().left));
    box.addEventListener("pointerdown", (event) => this.point(event.clientX - box.getBoundingClientRect().left));
    box.addEventListener("pointerleave", () => this.leave());
  }

  /** Show these metrics rows. */
  show(rows) {
    this.rows = rows.filter((row) => Number.isFinite(row.train_loss) || Number.isFinite(unseen(row)));
    this.draw();
  }

  draw() {
    const width = Math.floor(this.box.clientWidth);
    if (!width || !this.rows.length) return;
    const { x, y } = ranges(this.rows);
    const right = width - MARGIN.right;
    const bottom = HEIGHT - MARGIN.bottom;
    this.x = (value) => MARGIN.left + ((value - x[0]) / (x[1] - x[0])) * (right - MARGIN.left);
    this.y = (value) => bottom - ((value - y[0]) / (y[1] - y[0])) * (bottom - MARGIN.top);

    const grid = draw("g", { class: "grid" });
    const down = ticks(...y, 6);
    for (const value of down.values) {
      const at = this.y(value);
      grid.append(draw("line", { x1: MARGIN.left, x2: right, y1: at, y2: at }));
      grid.append(draw("text", { x: MARGIN.left - 7, y: at + 4, "text-anchor": "end" }, value.toFixed(down.digits)));
    }
    const across = ticks(...x, Math.max(2, Math.floor(width / 110))).values.filter(Number.isInteger);
    for (const value of across) {
      const at = this.x(value);
      const anchor = at > right - 14 ? "end" : "middle";
      grid.append(draw("line", { x1: at, x2: at, y1: bottom, y2: bottom + 4, class: "axis" }));
      grid.append(draw("text", { x: at, y: bottom + 17, "text-anchor": anchor }, number(value)));
    }
    grid.append(draw("line", { x1: MARGIN.left, x2: right, y1: bottom, y2: bottom, class: "axis" }));
    const name = (x, y, text, more = {}) => grid.append(draw("text", { x, y, "text-anchor": "middle", ...more }, text));
    const middle = (MARGIN.top + bottom) / 2;
    name((MARGIN.left + right) / 2, HEIGHT - 4, "training steps");
    name(11, middle, "loss", { transform: `rotate(-90 11 ${middle})` });

    const inside = { x: MARGIN.left, y: 0, width: right - MARGIN.left + MARGIN.right, height: bottom };
    const clip = draw("clipPath", { id: "plot-inside" }, draw("rect", inside));
    const lines = draw("g", { "clip-path": "url(#plot-inside)" });
    const evaluated = this.rows.filter((row) => Number.isFinite(unseen(row)));
    lines.append(draw("path", { class: "train", d: this.path(this.rows, (row) => row.train_loss) }));
    lines.append(draw("path", { class: "val", d: this.path(evaluated, unseen) }));
    const r = evaluated.length > 20 ? 2 : 3; // the first ones lie close together
    for (const row of evaluated) {
      lines.append(draw("circle", { class: "val-point", cx: this.x(row.step), cy: this.y(unseen(row)), r }));
    }
    this.cursor = draw("line", { class: "cursor", y1: MARGIN.top, y2: bottom, visibility: "hidden" });

    const last = evaluated.at(-1);
    const summary = `Loss over ${number(this.rows.at(-1).step)} steps` +
      (last ? `; on unseen text from ${loss(unseen(evaluated[0]))} to ${loss(unseen(last))}.` : ".");
    const attributes = { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": summary };
    this.box.replaceChildren(draw("svg", attributes, clip, grid, lines, this.cursor), this.tip);
  }

  path(rows, value) {
    return rows
      .filter((row) => Number.isFinite(value(row)))
      .map((row, i) => `${i ? "L" : "M"}${this.x(row.step).toFixed(1)} ${this.y(value(row)).toFixed(1)}`)
      .join("");
  }

  /** Show the figures of the step nearest to this horizontal place. */
  point(place) {
    if (!this.cursor) return;
    const away = (row) => Math.abs(this.x(row.step) - place);
    const row = this.rows.reduce((best, other) => (away(other) < away(best) ? other : best));
    const at = this.x(row.step);
    for (const name of ["x1", "x2"]) this.cursor.setAttribute(name, at);
    this.cursor.setAttribute("visibility", "visible");
    const parts = [`step ${number(row.step)}`, duration(row.elapsed_s ?? 0)];
    if (Number.isFinite(row.train_loss)) parts.push(`training ${loss(row.train_loss)}`);
    if (Number.isFinite(unseen(row))) parts.push(`unseen ${loss(unseen(row))}`);
    this.tip.textContent = parts.join(" · ");
    this.tip.hidden = false;
    const room = this.box.clientWidth - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(room, at - this.tip.offsetWidth / 2))}px`;
  }

  leave() {
    this.tip.hidden = true;
    this.cursor?.setAttribute("visibility", "hidden");
  }
}

/** The evaluations as a table, or every row where there is none yet. */
export function lossTable(rows) {
  const evaluated = rows.filter((row) => Number.isFinite(unseen(row)));
  const shown = evaluated.length ? evaluated : rows.slice(-50);
  const head = ["Step", "Time", "Training loss", "Loss on unseen text", "Tokens a second"];
  const cells = (row) => [
    number(row.step), duration(row.elapsed_s ?? 0), loss(row.train_loss), loss(unseen(row)),
    Number.isFinite(row.tokens_per_s) ? number(row.tokens_per_s) : "–",
  ];
  return make(
    "table", {},
    make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, ...shown.map((row) => make("tr", {}, ...cells(row).map((text) => make("td", {}, text))))),
  );
}
