// What can be changed while the server runs: rate limits and the log level; and the configuration in force.

import { announce, byId, card, make, setText } from "./elements.js";
import { Table } from "./tables.js";

const LEVELS = ["trace", "debug", "info", "warn", "error", "off"];
const SCOPES = { connection: "One connection", user: "One user", global: "The whole server" };
const LIMITS = { rps: ["requests_per_second", "Requests per second"], burst: ["burst_size", "At once"] };
const fieldsOf = (scope) => Object.entries(LIMITS).map(([short, [key, label]]) => ({ field: `${scope}_${short}`, path: `rate_limiting.${scope}.${key}`, label }));

export class Settings {
  constructor({ ask }) {
    this.ask = ask;
    this.root = byId("view-settings");
    this.inputs = new Map(); // by field
    this.limits = this.#limitsForm();
    this.level = this.#levelForm();
    this.filter = make("input", { type: "search", id: "key-filter", autocomplete: "off", spellcheck: false, placeholder: "part of a key" });
    this.filter.addEventListener("input", () => this.#draw());
    this.problem = make("p", { className: "problem", role: "alert" });
    this.table = new Table({
      caption: "Configuration in force", empty: "No key has that in its name.", key: (row) => row.key,
      columns: [
        { name: "Key", value: (row) => row.key, sort: "up" },
        { name: "Value", value: (row) => (typeof row.value === "string" ? row.value : JSON.stringify(row.value)) },
        { name: "From", value: (row) => row.origin, sort: "up" },
      ],
    });
    this.keys = [];
    this.root.append(
      make("div", { className: "view-head" }, make("h2", {}, "Settings")),
      this.problem,
      make("div", { className: "grid halves" }, this.limits, this.level),
      card("Configuration in force", "Secrets are left out", make("label", { className: "filter" }, "Key ", this.filter), this.table.element),
    );
  }

  /** Read what is in force; what is being edited is left alone. */
  async refresh() {
    try {
      const { keys } = await this.ask("GET", "admin/config");
      this.keys = Object.entries(keys).map(([key, { value, origin }]) => ({ key, value, origin }));
      for (const { path, input } of this.inputs.values()) {
        if (document.activeElement !== input && !input.dataset.edited) input.value = keys[path]?.value ?? "";
      }
      setText(this.problem, "");
      this.#draw();
    } catch (error) {
      setText(this.problem, error.message);
    }
  }

  #draw() {
    const part = this.filter.value.trim().toLowerCase();
    this.table.update(this.keys.filter(({ key }) => key.includes(part)));
  }

  #limitsForm() {
    const scopes = Object.entries(SCOPES).map(([scope, name]) => make(
      "fieldset", {}, make("legend", {}, name),
      ...fieldsOf(scope).map(({ field, path, label }) => {
        const input = this.#input(field, path, { type: "number", min: field.endsWith("_burst") ? "1" : "0.001", step: field.endsWith("_burst") ? "1" : "any", required: true });
        return make("label", {}, label, input);
      }),
    ));
    const changed = (form) => Object.fromEntries([...form.querySelectorAll("input[data-edited]")].map((input) => [input.name, Number(input.value)]));
    return this.#form({
      title: "Rate limits", hint: "They hold for open connections at once", button: "Change the limits", parts: scopes,
      send: async (form) => {
        const body = changed(form);
        if (!Object.keys(body).length) return "Nothing was changed.";
        await this.ask("PUT", "admin/config/rate-limits", body);
        return "The limits are in force.";
      },
    });
  }

  #levelForm() {
    const input = this.#input("level", "logging.level", { type: "text", required: true, spellcheck: false, autocomplete: "off", "aria-describedby": "level-help" });
    input.setAttribute("list", "levels");
    const levels = make("datalist", { id: "levels" }, ...LEVELS.map((value) => make("option", { value })));
    const help = make("p", { id: "level-help", className: "faint" }, "One of trace, debug, info, warn, error, off; or a filter such as ", make("code", {}, "warn,realtime_communication::auth=debug"), ".");
    return this.#form({
      title: "Log level", hint: "Of all workers, until the configuration is read again", button: "Change the level",
      parts: [make("label", {}, "Level or filter", input, levels), help],
      send: async () => {
        const { level } = await this.ask("PUT", "admin/config/log-level", { level: input.value.trim() });
        return `The level is ${level} now.`;
      },
    });
  }

  #input(field, path, properties) {
    const input = make("input", { name: field, id: `field-${field}`, ...properties });
    input.addEventListener("input", () => (input.dataset.edited = "yes"));
    this.inputs.set(field, { path, input });
    return input;
  }

  #form({ title, hint, button, parts, send }) {
    const said = make("p", { className: "said", role: "status" }), problem = make("p", { className: "problem", role: "alert" });
    const form = make("form", {}, ...parts, problem, make("div", { className: "buttons" }, make("button", { type: "submit", className: "primary" }, button), said));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      setText(problem, "");
      setText(said, "");
      try {
        setText(said, await send(form));
        announce(said.textContent);
        for (const input of form.querySelectorAll("input")) delete input.dataset.edited;
        await this.refresh();
      } catch (error) {
        setText(problem, error.message);
      }
    });
    return card(title, hint, form);
  }
}
