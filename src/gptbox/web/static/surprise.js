/** How surprising a token is: −log2 of its probability, in five steps. */

/** The probabilities below which the next step begins. */
const STEPS = [0.7, 0.4, 0.15, 0.04];

/** 0 for a token of which the model was sure, to 4 for one at which it was guessing. */
export const surprise = (logprob) => STEPS.filter((step) => Math.exp(logprob) < step).length;

export const bits = (logprob) => -logprob / Math.LN2;
