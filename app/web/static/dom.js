/** Elements without a framework. What a user typed is only ever set as text: nothing here parses HTML. */

const SVG = "http://www.w3.org/2000/svg";
// These are properties of elements and not (only) attributes: an attribute would set the default alone.
const PROPERTIES = new Set(["value", "checked", "selected", "indeterminate", "open"]);

/** An element: h("a", {href, class, onclick, "aria-label"}, ...children). Null, undefined and false are left out. */
export function h(tag, properties = {}, ...children) {
  return furnished(document.createElement(tag), properties ?? {}, children);
}

/** The same for SVG. */
export function s(tag, properties = {}, ...children) {
  return furnished(document.createElementNS(SVG, tag), properties ?? {}, children);
}

function furnished(element, properties, children) {
  // Children first: a select has no value before it has options.
  element.append(...flat(children));
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  return element;
}

function flat(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Replace what is in a node. */
export function fill(node, ...children) {
  node.replaceChildren(...flat(children));
  return node;
}

const shown = new WeakMap();

/** Rebuild a node's content when what it shows (`state`, anything that JSON holds) has changed. Focus and scroll stay. */
export function update(node, state, build) {
  const key = JSON.stringify(state);
  if (shown.get(node) === key) return;
  shown.set(node, key);
  const focused = node.contains(document.activeElement) ? identity(document.activeElement) : null;
  const scrolled = [...node.querySelectorAll(".scrolls")].map((box) => box.scrollLeft);
  fill(node, build());
  node.querySelectorAll(".scrolls").forEach((box, index) => { box.scrollLeft = scrolled[index] ?? 0; });
  if (focused === null) return;
  const again = [...node.querySelectorAll("a, button, input, select, textarea, summary, [tabindex]")];
  again.find((element) => identity(element) === focused)?.focus({ preventScroll: true });
}

/** What makes an element the same one after its list was built anew. */
function identity(element) {
  return [element.tagName, element.id, element.getAttribute("href"), element.getAttribute("aria-label"),
    element.tagName === "INPUT" || element.tagName === "SELECT" ? element.name : element.textContent].join("|");
}

let lastNumber = 0;

/** An id that no other element has. */
export function uniqueId(prefix) {
  lastNumber += 1;
  return `${prefix}-${lastNumber}`;
}

/** A box that scrolls sideways by itself, so that the page does not; reachable by keyboard, as whatever scrolls must be. */
export function scrolling(label, ...children) {
  return h("div", { class: "scrolls", role: "region", "aria-label": label, tabindex: "0" }, ...children);
}
