// Elements of the page. Text always comes as text: nothing a client sent is ever read as HTML.

/** An element; `fields` are properties, or attributes where the name has a dash or is `role`. */
export function make(name, fields = {}, ...children) {
  const element = document.createElement(name);
  for (const [field, value] of Object.entries(fields)) {
    if (value === undefined || value === null) continue;
    if (field.startsWith("on")) element.addEventListener(field.slice(2), value);
    else if (field.includes("-") || field === "role" || field === "for" || field === "scope") element.setAttribute(field, value);
    else element[field] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Change a text only when it is another one, so that selections and screen readers are left alone. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A card with a heading. */
export function card(title, hint, ...children) {
  const heading = make("h2", {}, title);
  const head = make("header", {}, heading, hint ? make("p", { className: "faint" }, hint) : null);
  return make("section", { className: "card", "aria-label": title }, head, ...children);
}

/** A list of terms; `rows` are [name, text] or [name, element]. */
export function terms(rows) {
  return make("dl", { className: "terms" }, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

const SVG = "http://www.w3.org/2000/svg";

/** An element of SVG. */
export function drawn(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value);
  element.append(...children);
  return element;
}

/** Say something to screen readers when they have nothing better to do. */
export function announce(text) {
  byId("news").textContent = text;
}
