/** The loss curve: an SVG with the training loss as a line, the validation loss as points, and the chosen snapshot. */

import { TimeAxis, evaluations, ticks } from "./axis.js";
import { el, svg } from "./dom.js";
import { duration, loss, number, valLoss } from "./format.js";

const HEIGHT = 220;
const MARGIN = { top: 12, right: 14, bottom: 38, left: 42 };
const GLIDE_MS = 900;

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

/** The range of the losses. On a linear time axis the steep first steps are cut off, so that the rest is readable. */
function lossRange(rows, isLogarithmic) {
  const from = isLogarithmic ? 0 : rows.at(-1).step * 0.03;
  const losses = rows.filter((row) => row.step >= from).flatMap((row) => [row.train_loss, valLoss(row)]);
  const finite = losses.filter(Number.isFinite);
  const [min, max] = [Math.min(...finite), Math.max(...finite)];
  const padding = Math.max(0.05, (max - min) * 0.06);
  return [min - padding, max + padding];
}

const easeOut = (part) => 1 - (1 - part) ** 3;

export class LossCurve {
  /** Draws into `container`, and again whenever its size changes. After each drawing, `onDraw(axis)` is called. While
   * the reader drags along the curve, `onDrag(x)` is, with the place in pixels. */
  constructor(container, onDraw, onDrag) {
    Object.assign(this, { container, onDraw, onDrag });
    this.data = { rows: [], best: null, overfitsFrom: null, isLogarithmic: true };
    this.chosen = null;
    /** The last step of the axis, smaller than the last row's while the newest mark glides in. */
    this.last = 0;
    /** The next frame of a glide, 0 if there is none, and the last step that it leads to. */
    this.frame = 0;
    this.target = 0;
    this.tooltip = el("p", { class: "tooltip", "aria-hidden": "true", hidden: "" });
    new ResizeObserver(() => this.draw()).observe(container);
    container.addEventListener("pointerdown", (event) => this.onPointerDown(event));
    container.addEventListener("pointermove", (event) => this.onPointerMove(event));
    container.addEventListener("pointerleave", () => this.hideTooltip());
  }

  onPointerDown(event) {
    if (event.button) return;
    // A touch that becomes a scroll is cancelled by the browser; a drag along the curve stays with it.
    this.container.setPointerCapture(event.pointerId);
    this.onPointerMove(event);
    event.preventDefault(); // no selection of the labels
  }

  onPointerMove(event) {
    const x = event.clientX - this.container.getBoundingClientRect().left;
    this.showTooltip(x);
    if (this.container.hasPointerCapture(event.pointerId)) this.onDrag(x);
  }

  /**
   * Show {rows, best, overfitsFrom, isLogarithmic}: the metrics, the step of the best snapshot, and that at which the
   * validation loss began to rise, or null. `glides`: the axis reaches its new end slowly.
   */
  show(data, glides) {
    const rows = data.rows.filter((row) => Number.isFinite(row.train_loss) || Number.isFinite(valLoss(row)));
    this.data = { ...data, rows };
    const last = rows.at(-1)?.step ?? 0;
    if (this.frame && last === this.target) return; // the glide goes on with the new data
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.target = last;
    if (!glides || !this.last || last <= this.last || reducedMotion.matches || document.hidden) {
      this.last = last;
      this.draw();
      return;
    }
    const [from, began] = [this.last, performance.now()];
    const glide = () => {
      const part = Math.min(1, (performance.now() - began) / GLIDE_MS);
      this.last = from + (last - from) * easeOut(part);
      this.draw();
      this.frame = part < 1 ? requestAnimationFrame(glide) : 0;
    };
    glide();
  }

  /** Mark the chosen snapshot, {step, loss}, or none. */
  choose(chosen) {
    this.chosen = chosen;
    this.drawChosen();
  }

  draw() {
    const width = Math.floor(this.container.clientWidth);
    const { rows, best, overfitsFrom, isLogarithmic } = this.data;
    if (!width || !rows.length) return;
    const { top, left } = MARGIN;
    const right = width - MARGIN.right;
    const bottom = HEIGHT - MARGIN.bottom;
    this.axis = new TimeAxis(rows[0].step, this.last, isLogarithmic, left, right);
    const [min, max] = lossRange(rows, isLogarithmic);
    this.y = (value) => bottom - ((value - min) / (max - min)) * (bottom - top);

    const lines = svg("g", { "clip-path": "url(#plot-area)" });
    const grid = this.drawGrid(top, bottom, ticks(min, max, 5), lines);
    if (overfitsFrom !== null) {
      const x = this.axis.x(overfitsFrom);
      lines.append(svg("rect", { class: "overfit", x, y: top, width: Math.max(0, right - x), height: bottom - top }));
      // The losses rise to the right: the corner on the left is free.
      const place = right - x > 80 ? { x: x + 6 } : { x: x - 6, "text-anchor": "end" };
      Object.assign(place, { y: top + 14 });
      lines.append(svg("text", place, "overfitting"));
    }
    const evaluated = evaluations(rows);
    lines.append(svg("path", { class: "train", d: this.path(rows, (row) => row.train_loss) }));
    lines.append(svg("path", { class: "val", d: this.path(evaluated, valLoss) }));
    const r = evaluated.length > 40 ? 2 : 3;
    for (const row of evaluated) {
      const isBest = row.step === best;
      const place = { cx: this.axis.x(row.step), cy: this.y(valLoss(row)), r: isBest ? r + 1.5 : r };
      lines.append(svg("circle", { class: isBest ? "val-point best" : "val-point", ...place }));
    }
    this.crosshair = svg("line", { class: "crosshair", y1: top, y2: bottom, visibility: "hidden" });
    this.playhead = svg("line", { class: "playhead", y2: HEIGHT });
    this.chosenPoint = svg("circle", { class: "chosen", r: 6 });

    const [first, last] = [evaluated[0], evaluated.at(-1)];
    const summary = `Loss over ${number(rows.at(-1).step)} steps` + (last
      ? `; validation loss from ${loss(valLoss(first))} to ${loss(valLoss(last))}.` : ".");
    const plotArea = { x: left - 8, y: 0, width: right - left + 8 + MARGIN.right, height: bottom };
    const clip = svg("clipPath", { id: "plot-area" }, svg("rect", plotArea));
    const attributes = { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": summary };
    const drawing = svg("svg", attributes, clip, this.playhead, grid, lines, this.chosenPoint, this.crosshair);
    this.container.replaceChildren(drawing, this.tooltip);
    this.drawChosen();
    this.onDraw(this.axis);
  }

  /** The axes with their labels; horizontal lines go into `lines`, below the curve. */
  drawGrid(top, bottom, losses, lines) {
    const { left, right, isLogarithmic } = this.axis;
    const grid = svg("g", { class: "grid" });
    for (const value of losses.values) {
      const y = this.y(value);
      lines.append(svg("line", { class: "grid-line", x1: left, x2: right, y1: y, y2: y }));
      grid.append(svg("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, value.toFixed(losses.digits)));
    }
    for (const step of this.axis.ticks()) {
      const x = this.axis.x(step);
      const anchor = x > right - 10 ? "end" : "middle";
      grid.append(svg("line", { x1: x, x2: x, y1: bottom, y2: bottom + 4, class: "axis" }));
      const place = { x: anchor === "end" ? right + 6 : x, y: bottom + 17, "text-anchor": anchor };
      grid.append(svg("text", place, number(step)));
    }
    grid.append(svg("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }));
    const title = `training steps${isLogarithmic ? ", the beginning stretched" : ""}`;
    const below = { class: "axis-title", x: (left + right) / 2, y: HEIGHT - 5, "text-anchor": "middle" };
    grid.append(svg("text", below, title));
    const middle = (top + bottom) / 2;
    const turned = { x: 10, y: middle, "text-anchor": "middle", transform: `rotate(-90 10 ${middle})` };
    grid.append(svg("text", turned, "loss"));
    return grid;
  }

  drawChosen() {
    if (!this.playhead) return;
    const { chosen } = this;
    for (const element of [this.playhead, this.chosenPoint]) {
      element.setAttribute("visibility", chosen ? "visible" : "hidden");
    }
    if (!chosen) return;
    const x = Math.min(this.axis.x(chosen.step), this.axis.right);
    const hasLoss = Number.isFinite(chosen.loss);
    for (const name of ["x1", "x2"]) this.playhead.setAttribute(name, x);
    this.playhead.setAttribute("y1", hasLoss ? this.y(chosen.loss) : MARGIN.top);
    this.chosenPoint.setAttribute("cx", x);
    if (hasLoss) this.chosenPoint.setAttribute("cy", this.y(chosen.loss));
    else this.chosenPoint.setAttribute("visibility", "hidden");
  }

  path(rows, value) {
    return rows
      .filter((row) => Number.isFinite(value(row)))
      .map((row, i) => `${i ? "L" : "M"}${this.axis.x(row.step).toFixed(1)} ${this.y(value(row)).toFixed(1)}`)
      .join("");
  }

  /** Show the figures of the step nearest to `pointerX`. */
  showTooltip(pointerX) {
    if (!this.axis) return;
    const distance = (row) => Math.abs(this.axis.x(row.step) - pointerX);
    const row = this.data.rows.reduce((best, other) => (distance(other) < distance(best) ? other : best));
    const x = this.axis.x(row.step);
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
