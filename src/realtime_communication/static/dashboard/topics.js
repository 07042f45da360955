// The topics: a list with live rates, and one topic with who is on it and what was said last.

import { byId, make, setText, terms } from "./elements.js";
import { NONE, count, moment, rate } from "./figures.js";
import { Table } from "./tables.js";

const MESSAGES = 20;
const MEMBERS = 200;
const PAYLOAD = 2000; // characters

/** Whether a topic is an inbox or the server's own: what is in it is not for an administrator to read. */
export const isOwn = (topic) => /^[@$]/.test(topic);

export class Topics {
  constructor({ show, ask }) {
    this.ask = ask;
    this.showDialog = show;
    this.root = byId("view-topics");
    this.filter = make("input", { type: "search", id: "topic-filter", autocomplete: "off", spellcheck: false, placeholder: "part of a name" });
    this.found = make("p", { className: "faint", role: "status" });
    this.table = new Table({
      caption: "Topics", empty: "There is no topic with subscribers or messages.", key: (row) => row.topic,
      columns: [
        { name: "Topic", value: (row) => row.topic, action: (row) => this.open(row.topic), sort: "up", label: (row) => `Look into the topic ${row.topic}` },
        { name: "Published", number: true, value: (row) => row.rate, text: (value) => (value === null ? NONE : `${rate(value)}/s`), sort: "down" },
        { name: "Subscribers", number: true, value: (row) => row.subscribers, text: count, sort: "down" },
        { name: "Delivered", number: true, value: (row) => (row.rate === null ? null : row.rate * row.subscribers), text: (value) => (value === null ? NONE : `${rate(value)}/s`), sort: "down" },
        { name: "Messages", number: true, value: (row) => row.offset, text: count, sort: "down" },
      ],
      sorted: { column: 1, down: true },
    });
    this.filter.addEventListener("input", () => this.#draw());
    this.exact = make("button", { type: "button", disabled: true, onclick: () => this.open(this.filter.value.trim()) }, "Open by name");
    this.root.append(
      make("div", { className: "view-head" }, make("h2", {}, "Topics"),
        make("form", { role: "search", onsubmit: (event) => { event.preventDefault(); this.exact.click(); } }, make("label", {}, "Topic ", this.filter), this.exact)),
      this.found,
      make("section", { className: "card flush" }, this.table.element),
    );
  }

  update(now, series) {
    this.all = now.hub.topics ?? 0;
    this.rows = now.topics.map((row) => ({ ...row, rate: series.topicRates.get(row.topic)?.offset ?? null }));
    if (!this.root.hidden) this.#draw();
  }

  refresh() {
    if (this.rows) this.#draw();
  }

  #draw() {
    const part = this.filter.value.trim().toLowerCase();
    this.exact.disabled = part === "" || isOwn(part);
    const shown = this.rows.filter((row) => row.topic.toLowerCase().includes(part));
    setText(this.table.empty, part ? `None of the topics shown has “${this.filter.value.trim()}” in its name.` : "There is no topic with subscribers or messages.");
    this.table.update(shown);
    setText(this.found, `${count(shown.length)} topics: those with most subscribers, and those that are published on most`);
  }

  /** Show one topic. */
  open(topic) {
    const facts = make("div"), problem = make("p", { className: "problem", role: "alert" });
    const members = new Table({
      caption: "Who is on the topic", empty: "Nobody is on it.", key: (row) => row.session_id,
      columns: [
        { name: "User", value: (row) => row.user_id, sort: "up" },
        { name: "Since", value: (row) => row.joined_at, text: moment, sort: "up" },
        { name: "Session", value: (row) => row.session_id },
      ],
    });
    const messages = make("ol", { className: "messages" }), none = make("p", { className: "empty" }, "No messages are kept.");
    const path = `api/topics/${encodeURIComponent(topic)}`;
    const refresh = async () => {
      try {
        const [present, history] = await Promise.all([
          this.ask("GET", `${path}/presence`), this.ask("GET", `${path}/history?limit=${MESSAGES}&reverse=true`),
        ]);
        facts.replaceChildren(terms([["Sessions", count(present.count)], ["Messages so far", count(history.offset)], ["Epoch", make("code", {}, history.epoch)]]));
        members.update(present.members.slice(0, MEMBERS));
        this.#showMessages(messages, none, history.messages);
        setText(problem, "");
      } catch (error) {
        setText(problem, error.message);
      }
      return true;
    };
    const body = make("div", {}, problem, facts, make("h3", {}, "Latest messages"), messages, none, make("h3", {}, "Who is on it"), members.element);
    this.showDialog(topic, body, refresh);
  }

  #showMessages(list, none, messages) {
    none.hidden = messages.length > 0;
    const mark = messages.map((each) => each.offset).join();
    if (list.dataset.mark === mark) return;
    list.dataset.mark = mark;
    list.replaceChildren(...messages.map((each) => make(
      "li", {},
      make("span", { className: "faint" }, `${count(each.offset)} · ${moment(each.ts)} · ${each.from || "the server"}`),
      make("code", { tabIndex: 0 }, shortened(JSON.stringify(each.payload))),
    )));
  }
}

const shortened = (text) => (text.length > PAYLOAD ? `${text.slice(0, PAYLOAD)}… (${count(text.length - PAYLOAD)} characters more)` : text);
