/** DOM helpers. Text only ever enters the page as text nodes, never as markup. */

export const $ = (id) => document.getElementById(id);

/** A new element with attributes and children; a string child becomes a text node. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Set an element's text only if it differs: an untouched node keeps the reader's selection. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Announce a start or an end to screen readers, never each chunk of text. */
export function announce(text) {
  setText($("announcer"), text);
}

/** Copy text. Browsers offer the clipboard API on https and localhost only, hence the fallback to execCommand. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const focused = document.activeElement;
    const area = el("textarea", { class: "sr-only", "aria-hidden": "true", readonly: "" });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return copied;
  }
}

/** Copy `getText()` when `button` is clicked, and show the outcome for a moment. */
export function copyOnClick(button, getText) {
  button.addEventListener("click", async () => {
    const copied = await copyText(getText());
    setText(button, copied ? "Copied" : "Copy failed");
    announce(copied ? "Copied." : "The browser blocked copying.");
    setTimeout(() => setText(button, "Copy"), 1600);
  });
}

/** Show a modal dialog. A click beside it closes it, as Esc does. */
export function openDialog(dialog) {
  if (dialog.open) return;
  dialog.onclick ??= ({ target }) => {
    if (target === dialog) dialog.close();
  };
  dialog.showModal();
}

/** Have the browser save a file. */
export function saveFile(name, content, type) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  el("a", { href: url, download: name }).click();
  // Some browsers read it only after the click.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
