// One connection to the server over rtc.v1.json that comes back by itself.
//
// Every topic's last epoch and offset are remembered. After a lost connection each topic is subscribed to again from
// there, and the server says whether anything is missing. Nothing here knows the page: what happens is told through
// `on(event, details)`.

const PROTOCOL = "rtc.v1.json";
const PING_EVERY_MS = 1000;
const SILENCE_MS = 8000; // no answer to a Ping for this long: the connection is taken for dead
const REQUEST_MS = 10000;
const BACKOFF_FIRST_MS = 400;
const BACKOFF_MOST_MS = 8000;
const HISTORY = 50;

export class Connection {
  #on;
  #socket = null;
  #user = "";
  #timer = 0;
  #pinger = 0;
  #attempt = 0;
  #nextId = 1;
  #waiting = new Map(); // id → {resolve, timer}
  #topics = new Map(); // topic → {epoch, offset} or null while never subscribed
  #inbox = null; // {epoch, offset} of our own direct messages
  #lastHeard = 0;
  #after = null; // ms the server asked us to stay away
  #stopped = false;

  constructor(on) {
    this.#on = on;
    addEventListener("online", () => this.#soon(0));
  }

  get user() { return this.#user; }
  get open() { return this.#socket?.readyState === WebSocket.OPEN && this.#socket.authenticated; }

  start(user) {
    if (user !== this.#user) this.#inbox = null;
    this.#user = user;
    this.#stopped = false;
    this.#attempt = 0;
    this.#detach();
    this.#connect();
  }

  stop() {
    this.#stopped = true;
    this.#detach();
  }

  // What a bad network does: nothing more arrives, and nobody says goodbye.
  lose() { this.#lost("The connection was cut here."); }

  async subscribe(topic) {
    if (!this.#topics.has(topic)) this.#topics.set(topic, null);
    if (this.open) await this.#subscribe(topic);
  }

  async unsubscribe(topic) {
    this.#topics.delete(topic);
    if (this.open) await this.request("Unsubscribe", { topic });
  }

  // Resolves to the reply, an Error included; to null when the connection went away first.
  request(type, fields = {}) {
    if (!this.#socket || this.#socket.readyState !== WebSocket.OPEN) return Promise.resolve(null);
    const id = this.#nextId++;
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#settle(id, null), REQUEST_MS);
      this.#waiting.set(id, { resolve, timer });
      this.#send({ type, id, ...fields });
    });
  }

  async #connect() {
    this.#on("state", { state: "connecting", attempt: this.#attempt });
    const user = this.#user;
    let token;
    try {
      const answer = await fetch(`/demo/token?user=${encodeURIComponent(user)}`, { cache: "no-store" });
      const body = await answer.json();
      if (answer.status === 400) return this.#on("state", { state: "stopped", reason: body.error.message });
      if (!answer.ok) throw new Error(body.error.message);
      token = body.token;
    } catch {
      return user === this.#user && this.#lost("The server does not answer.");
    }
    if (user !== this.#user || this.#socket) return;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws`, [PROTOCOL]);
    this.#socket = socket;
    socket.onopen = () => this.#send({ type: "Authenticate", token });
    socket.onmessage = (event) => this.#receive(socket, event.data);
    socket.onclose = (event) => {
      if (socket !== this.#socket) return;
      if (event.code === 4403) this.#stopped = true;
      this.#lost(event.reason || `The connection closed (${event.code}).`);
    };
  }

  #send(envelope) {
    this.#on("envelope", { out: true, envelope: envelope.token ? { ...envelope, token: "…" } : envelope });
    this.#socket.send(JSON.stringify(envelope));
  }

  #receive(socket, data) {
    if (socket !== this.#socket || typeof data !== "string") return;
    this.#lastHeard = performance.now();
    const envelope = JSON.parse(data);
    this.#on("envelope", { out: false, envelope });
    if (envelope.id !== undefined) this.#settle(envelope.id, envelope);
    switch (envelope.type) {
      case "Connected": return void this.#connected(envelope);
      case "Message": return this.#message(envelope);
      case "DirectMessage":
        if (this.#inbox) this.#inbox.offset = envelope.offset;
        return this.#on("direct", { message: envelope, recovered: false });
      case "Join": case "Leave": return this.#on("presence", envelope);
      case "Lagged":
        this.#topics.set(envelope.topic, { epoch: envelope.epoch, offset: envelope.offset });
        return this.#on("lagged", envelope);
      case "TokenExpiring": return void this.#refresh();
      case "Closing": this.#after = envelope.reconnect ? envelope.after_ms ?? 0 : null;
        return this.#on("closing", envelope);
      case "Error": if (envelope.id === undefined) this.#on("error", envelope);
    }
  }

  async #connected(envelope) {
    this.#socket.authenticated = true;
    this.#attempt = 0;
    this.#after = null;
    this.#on("state", { state: "connected", envelope });
    this.#pinger = setInterval(() => this.#ping(), PING_EVERY_MS);
    this.#ping();
    await Promise.all([...this.#topics.keys()].map((topic) => this.#subscribe(topic)));
    await this.#catchUpInbox();
    if (this.open) this.#on("ready");
  }

  async #subscribe(topic) {
    const known = this.#topics.get(topic);
    const fields = known ? { recover: known } : { history: HISTORY };
    const reply = await this.request("Subscribe", { topic, presence: true, ...fields });
    if (!reply) return;
    if (reply.type === "Error") return this.#on("error", reply);
    const messages = reply.messages ?? [];
    this.#topics.set(topic, { epoch: reply.epoch, offset: reply.offset });
    this.#on("subscribed", { topic, messages, again: known !== null, recovered: reply.recovered, known });
    // Without recovery the server still has what was said since it came back.
    if (known && !reply.recovered && messages.length === 0) {
      const page = await this.request("History", { topic, limit: HISTORY, reverse: true });
      if (page?.type === "HistoryPage" && page.messages.length) {
        const rest = page.messages.sort((a, b) => a.offset - b.offset);
        this.#on("history", { topic, epoch: page.epoch, messages: rest });
      }
    }
    const people = await this.request("Presence", { topic });
    if (people?.type === "PresenceState") this.#on("people", people);
  }

  // Direct messages come through an inbox topic that the server subscribes us to; its history fills the gap.
  async #catchUpInbox() {
    const known = this.#inbox;
    const fields = known ? { after: known } : { limit: 1, reverse: true };
    const page = await this.request("History", { topic: `@${this.#user}`, ...fields });
    if (page?.type !== "HistoryPage") {
      if (page && known) this.#on("inbox", { recovered: false, missed: [] });
      return;
    }
    const same = known !== null && known.epoch === page.epoch;
    const missed = known ? page.messages.filter((message) => !same || message.offset > known.offset) : [];
    this.#inbox = { epoch: page.epoch, offset: page.offset };
    for (const message of missed) this.#on("direct", { message, recovered: true });
    // A new epoch means a new server: it knows nothing of what was sent before.
    if (known && !same) this.#on("inbox", { recovered: false, missed });
  }

  #message(envelope) {
    const known = this.#topics.get(envelope.topic);
    if (known) known.offset = envelope.offset;
    this.#on("message", envelope);
  }

  async #refresh() {
    try {
      const answer = await fetch(`/demo/token?user=${encodeURIComponent(this.#user)}`, { cache: "no-store" });
      await this.request("Refresh", { token: (await answer.json()).token });
    } catch { /* the connection ends when the token does, and comes back with a new one */ }
  }

  async #ping() {
    if (performance.now() - this.#lastHeard > SILENCE_MS) return this.#lost("The server went silent.");
    const started = performance.now();
    const reply = await this.request("Ping");
    if (reply?.type === "Pong") this.#on("latency", performance.now() - started);
  }

  #settle(id, reply) {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    clearTimeout(waiting.timer);
    this.#waiting.delete(id);
    waiting.resolve(reply);
  }

  #detach() {
    clearInterval(this.#pinger);
    clearTimeout(this.#timer);
    this.#timer = 0;
    const socket = this.#socket;
    this.#socket = null;
    if (socket) socket.close();
    for (const id of [...this.#waiting.keys()]) this.#settle(id, null);
  }

  #lost(reason) {
    this.#detach();
    if (this.#stopped) return this.#on("state", { state: "stopped", reason });
    // Full jitter: clients that lost the same server do not all come back in the same moment.
    const most = Math.min(BACKOFF_MOST_MS, BACKOFF_FIRST_MS * 2 ** this.#attempt);
    const delay = this.#after ?? 100 + Math.random() * most;
    this.#after = null;
    this.#attempt += 1;
    this.#on("state", { state: "lost", reason, delay });
    this.#soon(delay);
  }

  #soon(delay) {
    if (this.#socket || this.#stopped || !this.#user) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(), delay);
  }
}
