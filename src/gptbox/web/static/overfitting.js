/** Overfitting: what it is, and from which step on. */

import { evaluations } from "./axis.js";
import { loss, number, valLoss } from "./format.js";

/** The same limits as of the trainer's own judgement (train/early_stopping.py): more than the noise of the losses. */
const RISE = 0.02;
const GAP = 0.05;

/** The step after which the validation loss rose while the training loss fell; null if the run does not overfit. */
export function overfitsFrom(rows) {
  const evaluated = evaluations(rows);
  if (evaluated.length < 3) return null;
  const best = evaluated.reduce((lowest, row) => (valLoss(row) < valLoss(lowest) ? row : lowest));
  const last = evaluated.at(-1);
  const hasDiverged = valLoss(last) > valLoss(best) + RISE && last.train_loss < valLoss(best) - GAP;
  return hasDiverged ? best.step : null;
}

export const explainOverfitting = (step) => step === null ? "" :
  `It overfits from step ${number(step)} on: the loss on unseen text rises while that on its own text still falls. ` +
  "It begins to learn its text by heart, and gets worse at going on with any other.";

/** What a loss means where the model overfits: its samples read better than it deserves. */
export const explainByHeart = (value, step) =>
  "Its samples may read better and better: they repeat what it has read. On text that it has not, its loss of " +
  `${loss(value)} is worse than it was at step ${number(step)}.`;
