/** The loss chart: an SVG with axes, a line of the training loss and points of the validation loss. */

import { el, svg } from "./dom.js";
import { duration, loss, number, valLoss } from "./format.js";

const HEIGHT = 210;
const MARGIN = { top: 10, right: 10, bottom: 38, left: 46 };

/** About `count` round values from `min` to `max`, and the decimals they need. */
function ticks(min, max, count) {
  const target = (max - min) / count || 1;
  const power = 10 ** Math.floor(Math.log10(target));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= target);
  const values = [];
  const first = Math.ceil(min / step - 1e-9) || 0; // never -0
  for (let i = first; i * step <= max + step * 1e-9; i += 1) values.push(i * step);
  return { values, digits: Math.max(0, -Math.floor(Math.log10(step))) };
}

/** The domains of both axes. The steep first steps may be clipped, so that the rest is readable. */
function axisDomains(rows) {
  const last = rows.at(-1).step;
  const later = rows.filter((row) => row.step >= last * 0.03);
  const losses = later.flatMap((row) => [row.train_loss, valLoss(row)]).filter(Number.isFinite);
  const [min, max] = [Math.min(...losses), Math.max(...losses)];
  const padding = Math.max(0.05, (max - min) * 0.06);
  return { x: [0, Math.max(1, last)], y: [min - padding, max + padding] };
}

const linearScale = ([d0, d1], [r0, r1]) => (value) => r0 + ((value - d0) / (d1 - d0)) * (r1 - r0);

const evaluations = (rows) => rows.filter((row) => Number.isFinite(valLoss(row)));

export class LossChart {
  /** Draws into `container`, and again whenever its size changes. */
  constructor(container) {
    this.container = container;
    this.rows = [];
    this.tooltip = el("p", { class: "tooltip", "aria-hidden": "true", hidden: "" });
    new ResizeObserver(() => this.draw()).observe(container);
    const onPointer = (event) => this.showTooltip(event.clientX - container.getBoundingClientRect().left);
    container.addEventListener("pointermove", onPointer);
    container.addEventListener("pointerdown", onPointer);
    container.addEventListener("pointerleave", () => this.hideTooltip());
  }

  /** Show these metrics rows. */
  show(rows) {
    this.rows = rows.filter((row) => Number.isFinite(row.train_loss) || Number.isFinite(valLoss(row)));
    this.draw();
  }

  draw() {
    const width = Math.floor(this.container.clientWidth);
    if (!width || !this.rows.length) return;
    const domains = axisDomains(this.rows);
    const { top, left } = MARGIN;
    const right = width - MARGIN.right;
    const bottom = HEIGHT - MARGIN.bottom;
    this.xScale = linearScale(domains.x, [left, right]);
    this.yScale = linearScale(domains.y, [bottom, top]);

    const grid = svg("g", { class: "grid" });
    const yTicks = ticks(...domains.y, 6);
    for (const value of yTicks.values) {
      const y = this.yScale(value);
      grid.append(svg("line", { x1: left, x2: right, y1: y, y2: y }));
      grid.append(svg("text", { x: left - 7, y: y + 4, "text-anchor": "end" }, value.toFixed(yTicks.digits)));
    }
    const xTicks = ticks(...domains.x, Math.max(2, Math.floor(width / 110))).values.filter(Number.isInteger);
    for (const value of xTicks) {
      const x = this.xScale(value);
      const anchor = x > right - 14 ? "end" : "middle";
      grid.append(svg("line", { x1: x, x2: x, y1: bottom, y2: bottom + 4, class: "axis" }));
      grid.append(svg("text", { x, y: bottom + 17, "text-anchor": anchor }, number(value)));
    }
    grid.append(svg("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }));
    const addTitle = (x, y, title, more = {}) =>
      grid.append(svg("text", { x, y, "text-anchor": "middle", ...more }, title));
    const middle = (top + bottom) / 2;
    addTitle((left + right) / 2, HEIGHT - 4, "training steps");
    addTitle(11, middle, "loss", { transform: `rotate(-90 11 ${middle})` });

    const plotArea = { x: left, y: 0, width: right - left + MARGIN.right, height: bottom };
    const clip = svg("clipPath", { id: "plot-area" }, svg("rect", plotArea));
    const lines = svg("g", { "clip-path": "url(#plot-area)" });
    const evaluated = evaluations(this.rows);
    lines.append(svg("path", { class: "train", d: this.path(this.rows, (row) => row.train_loss) }));
    lines.append(svg("path", { class: "val", d: this.path(evaluated, valLoss) }));
    const r = evaluated.length > 20 ? 2 : 3; // the first points lie close together
    for (const row of evaluated) {
      const [cx, cy] = [this.xScale(row.step), this.yScale(valLoss(row))];
      lines.append(svg("circle", { class: "val-point", cx, cy, r }));
    }
    this.crosshair = svg("line", { class: "crosshair", y1: top, y2: bottom, visibility: "hidden" });

    const [first, last] = [evaluated[0], evaluated.at(-1)];
    const summary = `Loss over ${number(this.rows.at(-1).step)} steps` + (last
      ? `; validation loss from ${loss(valLoss(first))} to ${loss(valLoss(last))}.` : ".");
    const attributes = { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": summary };
    this.container.replaceChildren(svg("svg", attributes, clip, grid, lines, this.crosshair), this.tooltip);
  }

  path(rows, value) {
    return rows
      .filter((row) => Number.isFinite(value(row)))
      .map((row, i) => `${i ? "L" : "M"}${this.xScale(row.step).toFixed(1)} ${this.yScale(value(row)).toFixed(1)}`)
      .join("");
  }

  /** Show the figures of the step nearest to `pointerX`. */
  showTooltip(pointerX) {
    if (!this.crosshair) return;
    const distance = (row) => Math.abs(this.xScale(row.step) - pointerX);
    const row = this.rows.reduce((best, other) => (distance(other) < distance(best) ? other : best));
    const x = this.xScale(row.step);
    for (const name of ["x1", "x2"]) this.crosshair.setAttribute(name, x);
    this.crosshair.setAttribute("visibility", "visible");
    const parts = [`step ${number(row.step)}`, duration(row.elapsed_s ?? 0)];
    if (Number.isFinite(row.train_loss)) parts.push(`training ${loss(row.train_loss)}`);
    if (Number.isFinite(valLoss(row))) parts.push(`validation ${loss(valLoss(row))}`);
    this.tooltip.textContent = parts.join(" · ");
    this.tooltip.hidden = false;
    const room = this.container.clientWidth - this.tooltip.offsetWidth;
    this.tooltip.style.left = `${Math.max(0, Math.min(room, x - this.tooltip.offsetWidth / 2))}px`;
  }

  hideTooltip() {
    this.tooltip.hidden = true;
    this.crosshair?.setAttribute("visibility", "hidden");
  }
}

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
