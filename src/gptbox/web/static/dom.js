/** Finding and making elements. Text only ever enters the page as text, never as markup. */

export const $ = (id) => document.getElementById(id);

/** A new element with attributes and children; a string child becomes a text node. */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Set an element's text, but only where it differs: an untouched node keeps the reader's selection. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tell screen readers, once: for a start or an end, never for each letter. */
export function announce(text) {
  say($("announcer"), text);
}

/** Append to a scrolling box, following the end only for a reader who is already there. */
export function appendFollowing(box, node, text) {
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
  node.appendData(text);
  if (atEnd) box.scrollTop = box.scrollHeight;
}

/** Copy text. Browsers offer the clipboard on https and localhost only, hence the older way behind it. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const focused = document.activeElement;
    const area = make("textarea", { class: "unseen", "aria-hidden": "true", readonly: "" });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return copied;
  }
}

/** A button that copies what `text()` gives, and says so for a moment. */
export function copies(button, text) {
  button.addEventListener("click", async () => {
    const copied = await copyText(text());
    say(button, copied ? "Copied" : "Not allowed here");
    announce(copied ? "Copied." : "The browser does not allow copying here.");
    setTimeout(() => say(button, "Copy"), 1600);
  });
}
