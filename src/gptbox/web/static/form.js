/** The form, validated before it is sent. */

import { $ } from "./dom.js";

const MAX_PROMPT_BYTES = 64 * 1024;

/** The form's number fields: request parameter, element id, range and error message. */
const NUMBER_FIELDS = [
  { name: "temperature", id: "temperature", min: 0, max: () => 2,
    message: () => "Temperature must be a number from 0 to 2." },
  { name: "top_k", id: "top-k", min: 0, max: () => Number.MAX_SAFE_INTEGER, integer: true,
    message: () => "Top-k must be a whole number, 0 or more." },
  { name: "max_tokens", id: "length", min: 1, max: (limit) => limit, integer: true,
    message: (limit) => `Length must be a whole number from 1 to ${limit.toLocaleString("en")}.` },
  { name: "seed", id: "seed", min: 0, max: () => Number.MAX_SAFE_INTEGER, integer: true, optional: true,
    message: () => "Seed must be a whole number, 0 or more, or empty for a different text each time." },
];

/** An invalid field and what is wrong with it. */
export class FieldError extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

/** The request described by the form, of at most `maxTokens` tokens. Throws FieldError. */
export function readForm(maxTokens) {
  const request = { prompt: $("prompt").value };
  const bytes = new TextEncoder().encode(request.prompt).length;
  if (bytes > MAX_PROMPT_BYTES) {
    const size = Math.ceil(bytes / 1024);
    throw new FieldError($("prompt"), `This prompt is too long: ${size} KiB. The limit is 64 KiB.`);
  }
  for (const { name, id, min, max, integer, optional, message } of NUMBER_FIELDS) {
    const field = $(id);
    // Browsers also give "" for letters in a number field; badInput tells the two apart.
    if (optional && field.value === "" && !field.validity.badInput) continue;
    const value = field.value === "" ? NaN : Number(field.value);
    if (!(value >= min && value <= max(maxTokens)) || (integer && !Number.isSafeInteger(value))) {
      throw new FieldError(field, message(maxTokens));
    }
    request[name] = value;
  }
  return request;
}

/** Put an earlier request back into the form. */
export function fillForm(request) {
  $("prompt").value = request.prompt;
  for (const { name, id } of NUMBER_FIELDS) $(id).value = request[name] ?? "";
}

/** Mark one field as invalid and focus it; null clears all marks. */
export function markInvalid(invalid) {
  for (const field of $("form").querySelectorAll("input, textarea")) {
    if (field === invalid) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }
  invalid?.focus();
}
