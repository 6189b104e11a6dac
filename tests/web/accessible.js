/** Run in the page by accessible.py: what is wrong with it, and which controls the Tab key must come to. */

export function faults() {
  const seen = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && element.getClientRects().length > 0;
  const text = (ids) => (ids ?? "").split(/\s+/).filter(Boolean).map((id) => document.getElementById(id)?.textContent ?? "").join(" ").trim();
  const nameOf = (element) => (element.getAttribute("aria-label") || text(element.getAttribute("aria-labelledby"))
    || [...(element.labels ?? [])].map((label) => label.textContent).join(" ")
    || (element.matches("button, a, summary") ? element.textContent : "") || "").trim();
  const short = (element) => element.outerHTML.slice(0, 160);
  const all = (selector) => [...document.querySelectorAll(selector)].filter(seen);
  const faults = [];

  for (const element of all("input, select, textarea, button, a, summary, [role=region], progress")) {
    if (!nameOf(element)) faults.push(`no name: ${short(element)}`);
  }
  const levels = all("h1, h2, h3, h4").map((heading) => Number(heading.tagName[1]));
  if (levels.filter((level) => level === 1).length !== 1) faults.push(`${levels.filter((level) => level === 1).length} headings of level 1`);
  levels.forEach((level, index) => { if (index && level > levels[index - 1] + 1) faults.push(`heading ${level} after ${levels[index - 1]}`); });
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of new Set(ids.filter((one, index) => ids.indexOf(one) !== index))) faults.push(`id ${id} twice`);
  for (const name of ["aria-describedby", "aria-labelledby", "for", "list"]) {
    for (const element of document.querySelectorAll(`[${name}]`)) {
      for (const id of element.getAttribute(name).split(/\s+/)) if (!document.getElementById(id)) faults.push(`${name} to nowhere: ${short(element)}`);
    }
  }
  for (const landmark of ["header", "nav", "main", "footer"]) if (all(landmark).length !== 1) faults.push(`${all(landmark).length} of ${landmark}`);
  if (document.documentElement.scrollWidth > innerWidth) faults.push(`the page is ${document.documentElement.scrollWidth} wide, the window ${innerWidth}`);

  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgba(getComputedStyle(at).backgroundColor);
      if (color[3] > 250) return color;
    }
    return [255, 255, 255, 255];
  };
  const luminance = ([r, g, b]) => [r, g, b].map((part) => part / 255).map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !seen(element) || element.closest("[disabled], option, .sr-only")) continue;
    const style = getComputedStyle(element);
    const color = element instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [luminance(rgba(color)), luminance(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const isLarge = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (isLarge ? 3 : 4.5)) faults.push(`contrast ${ratio.toFixed(2)}: ${walker.currentNode.textContent.trim().slice(0, 60)}`);
  }
  return faults;
}

/** Each stop gets its number in the order of reading. */
export function stops() {
  const seen = (element) => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;
  // Of radio buttons of one name the chosen one alone is a stop.
  const isStop = (element) => seen(element) && element.tabIndex >= 0 && !element.disabled && !(element.type === "radio" && !element.checked);
  return [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")].filter(isStop).map((element, index) => {
    element.dataset.stop = String(index);
    return element.outerHTML.slice(0, 120);
  });
}
