// Tables whose rows change every second: rows keep their elements, and so their focus, as long as their key is there.

import { make, setText } from "./elements.js";

/**
 * `columns` are {name, value(row), text?(value, row), number?, sort?: "up" | "down", action?(row), inert?(row), tone?,
 * label?(row)}. `sort` says what the first click does; `inert` for which rows there is no action. `key` gives a row's key.
 */
export class Table {
  constructor({ caption, columns, key, empty, sorted }) {
    this.columns = columns;
    this.key = key;
    this.sorted = sorted ?? null; // {column, down}
    this.rows = new Map();
    this.data = [];
    this.body = make("tbody");
    this.head = make("tr", {}, ...columns.map((column, index) => this.#header(column, index)));
    this.empty = make("p", { className: "empty" }, empty);
    this.table = make("table", {}, make("caption", { className: "hidden" }, caption), make("thead", {}, this.head), this.body);
    this.element = make(
      "div",
      { className: "scroll", tabIndex: 0, role: "group", "aria-label": caption },
      this.table,
      this.empty,
    );
    this.#mark();
  }

  update(data) {
    this.data = data;
    const rows = this.#inOrder(data);
    const present = new Set();
    rows.forEach((row, index) => {
      const key = String(this.key(row));
      present.add(key);
      let known = this.rows.get(key);
      if (!known) this.rows.set(key, (known = this.#row()));
      known.data = row;
      known.cells.forEach((cell, at) => this.#fill(cell, this.columns[at], row));
      if (this.body.children[index] !== known.element) this.body.insertBefore(known.element, this.body.children[index] ?? null);
    });
    for (const [key, { element }] of this.rows) {
      if (!present.has(key)) {
        element.remove();
        this.rows.delete(key);
      }
    }
    this.table.hidden = rows.length === 0;
    this.empty.hidden = rows.length > 0;
  }

  #row() {
    const known = { data: null };
    known.cells = this.columns.map((column, index) => {
      const cell = make(index === 0 ? "th" : "td", { className: column.number ? "number" : "" });
      if (index === 0) cell.scope = "row";
      if (column.action) {
        cell.append(make("button", { type: "button", className: "link", onclick: () => column.action(known.data) }));
      } else if (column.tone) {
        cell.append(make("span", { className: "tag" }));
      }
      return cell;
    });
    known.element = make("tr", {}, ...known.cells);
    return known;
  }

  #fill(cell, column, row) {
    const value = column.value(row);
    const text = column.text ? column.text(value, row) : (value ?? "–");
    setText(cell.firstElementChild ?? cell, String(text));
    if (column.tone) cell.firstElementChild.dataset.tone = column.tone(value, row);
    if (column.inert) cell.firstElementChild.disabled = column.inert(row);
    if (column.label) cell.firstElementChild.setAttribute("aria-label", column.label(row));
  }

  #header(column, index) {
    const inside = column.sort
      ? make("button", { type: "button", className: "sort", onclick: () => this.#sortBy(index) }, column.name)
      : column.name;
    return make("th", { scope: "col", className: column.number ? "number" : "" }, inside);
  }

  #sortBy(index) {
    const first = this.columns[index].sort === "down";
    this.sorted = { column: index, down: this.sorted?.column === index ? !this.sorted.down : first };
    this.#mark();
    this.update(this.data);
  }

  #mark() {
    [...this.head.children].forEach((cell, index) => {
      if (!this.columns[index].sort) return;
      const order = this.sorted?.column === index ? (this.sorted.down ? "descending" : "ascending") : "none";
      cell.setAttribute("aria-sort", order);
    });
  }

  #inOrder(data) {
    if (!this.sorted) return data;
    const { value } = this.columns[this.sorted.column];
    const sign = this.sorted.down ? -1 : 1;
    return [...data].sort((a, b) => sign * compare(value(a), value(b)));
  }
}

function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return -1;
  if (b === null || b === undefined) return 1;
  return typeof a === "string" ? a.localeCompare(b) : a - b;
}
