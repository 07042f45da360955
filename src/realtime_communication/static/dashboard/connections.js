// Who is connected: a list, and one connection with its topics and its end.

import { announce, byId, make, setText, terms } from "./elements.js";
import { count, duration, moment } from "./figures.js";
import { Table } from "./tables.js";
import { isOwn } from "./topics.js";

const SHOWN = 500;

export class Connections {
  /** `show(title, body, refresh)` opens the dialog, `close` closes it; `openTopic` shows a topic. */
  constructor({ show, close, openTopic, ask }) {
    this.ask = ask;
    this.dialog = { show, close };
    this.openTopic = openTopic;
    this.root = byId("view-connections");
    this.filter = make("input", { type: "search", id: "user-filter", autocomplete: "off", spellcheck: false, placeholder: "exactly this user id" });
    this.found = make("p", { className: "faint", role: "status" });
    this.problem = make("p", { className: "problem", role: "alert" });
    this.table = new Table({
      caption: "Connections", empty: "Nobody is connected.", key: (row) => row.session_id,
      columns: [
        { name: "User", value: (row) => row.user_id ?? "anonymous", action: (row) => this.open(row), sort: "up", label: (row) => `Look into the connection of ${row.user_id ?? "somebody anonymous"}` },
        { name: "Waiting", number: true, value: (row) => row.queued + row.replies_queued, text: count, sort: "down" },
        { name: "Topics", number: true, value: (row) => row.subscriptions, text: count, sort: "down" },
        { name: "Connected", number: true, value: (row) => row.connected_ms / 1000, text: duration, sort: "up" },
        { name: "Silent", number: true, value: (row) => row.silent_ms / 1000, text: duration, sort: "down" },
        { name: "Over", value: (row) => `${row.transport}, ${row.encoding}`, sort: "up" },
        { name: "Address", value: (row) => row.address, sort: "up" },
        { name: "Worker", number: true, value: (row) => row.worker ?? 0, sort: "up" },
      ],
      sorted: { column: 3, down: false },
    });
    this.filter.addEventListener("input", () => this.refresh());
    this.root.append(
      make("div", { className: "view-head" }, make("h2", {}, "Connections"),
        make("form", { role: "search", onsubmit: (event) => { event.preventDefault(); this.refresh(); } }, make("label", {}, "User ", this.filter))),
      this.found, this.problem,
      make("section", { className: "card flush" }, this.table.element),
    );
  }

  /** Ask again; called every other second while the view is looked at. */
  async refresh() {
    const user = this.filter.value.trim();
    const query = new URLSearchParams({ limit: SHOWN, ...(user && { user_id: user }) });
    try {
      const { count: all, connections, complete } = await this.ask("GET", `api/connections?${query}`);
      if (user !== this.filter.value.trim()) return;
      setText(this.table.empty, user ? `“${user}” is not connected.` : "Nobody is connected.");
      this.table.update(connections);
      setText(this.found, user ? `${count(connections.length)} of ${count(all)} connections` : complete ? `${count(all)} connections` : `The newest ${count(connections.length)} of ${count(all)} connections`);
      setText(this.problem, "");
    } catch (error) {
      setText(this.problem, error.message);
    }
  }

  /** Show one connection; `row` holds at least its session_id. */
  open({ session_id: id, user_id: user }) {
    const facts = make("div"), problem = make("p", { className: "problem", role: "alert" });
    const topics = new Table({
      caption: "Topics of this connection", empty: "It is subscribed to nothing.", key: (row) => row.topic,
      columns: [
        { name: "Topic", value: (row) => row.topic, action: (row) => this.openTopic(row.topic), inert: (row) => isOwn(row.topic), sort: "up", label: (row) => (isOwn(row.topic) ? row.topic : `Look into the topic ${row.topic}`) },
        { name: "Since", value: (row) => row.joined_at, text: moment, sort: "up" },
        { name: "Presence", value: (row) => (row.watching ? "watches" : "no") },
        { name: "State", value: (row) => (row.lagging ? "lags" : "keeps up"), tone: (value) => (value === "lags" ? "bad" : "good") },
      ],
    });
    const refresh = async () => {
      try {
        const found = await this.ask("GET", `admin/connections/${encodeURIComponent(id)}`);
        facts.replaceChildren(terms(this.#facts(found)));
        topics.update(found.topics);
      } catch (error) {
        setText(problem, error.status === 404 ? "This connection has ended." : error.message);
        return error.status !== 404;
      }
      return true;
    };
    const body = make("div", {}, problem, facts, make("h3", {}, "Topics"), topics.element, this.#disconnectForm(id, user, problem));
    this.dialog.show(`Connection of ${user ?? "somebody anonymous"}`, body, refresh);
  }

  #facts(found) {
    return [
      ["Session", make("code", {}, found.session_id)],
      ["Address", found.address],
      ["Over", `${found.transport}, ${found.encoding}${found.worker === undefined ? "" : `, worker ${found.worker}`}`],
      ["Waiting", `${count(found.queued)} messages, ${count(found.replies_queued)} replies; its socket ${found.blocked ? "is full" : "takes bytes"}`],
      ["Connected", `${duration(found.connected_ms / 1000)}, silent for ${duration(found.silent_ms / 1000)}`],
      ["May", found.permissions?.join(", ") || "nothing"],
      ["Token expires", found.expires_at ? moment(found.expires_at * 1000) : "never"],
    ];
  }

  #disconnectForm(id, user, problem) {
    const reason = make("input", { id: "reason", maxLength: 123, placeholder: "disconnected by an administrator", autocomplete: "off" });
    const end = async (body) => {
      try {
        const { disconnected } = await this.ask("POST", "api/disconnect", { ...body, ...(reason.value.trim() && { reason: reason.value.trim() }) });
        announce(`${disconnected} ${disconnected === 1 ? "connection" : "connections"} closed`);
        this.dialog.close();
        this.refresh();
      } catch (error) {
        setText(problem, error.message);
      }
    };
    return make(
      "form",
      { className: "danger", "aria-label": "Disconnect", onsubmit: (event) => { event.preventDefault(); end({ session_id: id }); } },
      make("label", {}, "Reason that the client is told", reason),
      make("div", { className: "buttons" },
        make("button", { type: "submit", className: "bad", id: "disconnect" }, "Disconnect"),
        user ? make("button", { type: "button", className: "bad quiet", onclick: () => end({ user_id: user }) }, `All connections of ${user}`) : null),
    );
  }
}
