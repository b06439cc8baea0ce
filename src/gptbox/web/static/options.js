/** The form: what the visitor asks for, checked before it is sent, so that a mistake is explained on the spot. */

import { $ } from "./dom.js";

const PROMPT_BYTES = 64 * 1024;

/** Each number of the form: its name in the request, its field, its range and how to say what is wrong. */
const NUMBERS = [
  { name: "temperature", id: "temperature", low: 0, high: () => 2, says: () => "Temperature is a number from 0 to 2." },
  { name: "top_k", id: "top-k", low: 0, high: () => Number.MAX_SAFE_INTEGER, whole: true,
    says: () => "Top-k is a whole number, 0 or more." },
  { name: "max_tokens", id: "length", low: 1, high: (most) => most, whole: true,
    says: (most) => `Length is a whole number from 1 to ${most.toLocaleString("en")}.` },
  { name: "seed", id: "seed", low: 0, high: () => Number.MAX_SAFE_INTEGER, whole: true, optional: true,
    says: () => "Seed is a whole number, 0 or more, or empty for another text each time." },
];

/** A field that cannot be sent as it is. */
export class FieldError extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

/** The request that the form describes; at most `most` tokens. Throws FieldError. */
export function readForm(most) {
  const request = { prompt: $("prompt").value };
  const bytes = new TextEncoder().encode(request.prompt).length;
  if (bytes > PROMPT_BYTES) {
    const size = Math.ceil(bytes / 1024);
    throw new FieldError($("prompt"), `These first words are too long: ${size} KiB, and 64 KiB can be sent.`);
  }
  for (const { name, id, low, high, whole, optional, says } of NUMBERS) {
    const field = $(id);
    // A browser gives "" for letters in a number field as well: badInput tells the two apart.
    if (optional && field.value === "" && !field.validity.badInput) continue;
    const value = field.value === "" ? NaN : Number(field.value);
    if (!(value >= low && value <= high(most)) || (whole && !Number.isSafeInteger(value))) {
      throw new FieldError(field, says(most));
    }
    request[name] = value;
  }
  return request;
}

/** Put a former request back into the form. */
export function fillForm(request) {
  $("prompt").value = request.prompt;
  for (const { name, id } of NUMBERS) $(id).value = request[name] ?? "";
}

/** Mark the one field that is wrong, or none. */
export function markField(wrong) {
  for (const field of $("form").querySelectorAll("input, textarea")) {
    if (field === wrong) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }
  wrong?.focus();
}

/** The settings of a request in a line. */
export function describe(request) {
  const seed = request.seed === undefined ? "" : `, seed ${request.seed}`;
  return `temperature ${request.temperature}, top-k ${request.top_k || "off"}${seed}`;
}
