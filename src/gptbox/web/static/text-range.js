/** Places in an element's text, counted in code units, and the nodes that they stand in. */

/** The element's text nodes from `start` to `end`: {node, from, to} with offsets in each node. */
function* nodesIn(root, start, end) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  let at = 0;
  while (walker.nextNode() && at < end) {
    const node = walker.currentNode;
    const [from, to] = [Math.max(0, start - at), Math.min(node.length, end - at)];
    if (from < to) yield { node, from, to };
    at += node.length;
  }
}

/** Wrap the text from `start` to `end` in elements made by `make`, one in each node that it stands in. */
export function wrap(root, start, end, make) {
  return [...nodesIn(root, start, end)].map(({ node, from, to }) => {
    node.splitText(to);
    const part = node.splitText(from);
    const element = make();
    part.replaceWith(element);
    element.append(part);
    for (const rest of [element.previousSibling, element.nextSibling]) rest?.nodeType === Node.TEXT_NODE && !rest.length && rest.remove();
    return element;
  });
}

/** Put an element's content in its place. */
export function unwrap(element) {
  const { parentNode } = element;
  if (!parentNode) return;
  element.replaceWith(...element.childNodes);
  parentNode.normalize();
}

/** The element that holds exactly the text from `start` to `end`; undefined if none does. */
export function elementAt(root, start, end) {
  const [first] = nodesIn(root, start, start + 1);
  const element = first?.from === 0 ? first.node.parentElement : null;
  return element && element !== root && element.textContent.length === end - start ? element : undefined;
}

/** How much of the element's text stands before a place in the document. */
export function offsetOf(root, node, offset) {
  const range = new Range();
  range.setStart(root, 0);
  range.setEnd(node, offset);
  return range.toString().length;
}

/** The offset in the element's text of a point on the screen; -1 if there is no text. */
export function offsetAtPoint(root, x, y) {
  const position = document.caretPositionFromPoint?.(x, y);
  const range = position ? null : document.caretRangeFromPoint?.(x, y);
  const [node, offset] = position ? [position.offsetNode, position.offset] : [range?.startContainer, range?.startOffset];
  if (!node || !root.contains(node) || node.nodeType !== Node.TEXT_NODE) return -1;
  // The caret is at the letter's nearer edge; the letter is the one that the point is in.
  const before = new Range();
  if (offset > 0) {
    before.setStart(node, offset - 1);
    before.setEnd(node, offset);
    const isIn = [...before.getClientRects()].some(({ left, right, top, bottom }) => x >= left && x < right && y >= top && y < bottom);
    if (isIn) return offsetOf(root, node, offset - 1);
  }
  return offsetOf(root, node, offset);
}
