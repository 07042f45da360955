// The page: conversations, people, latency and envelopes. All text from others goes through textContent.

import { Connection } from "./connection.js";

const MOST_MESSAGES = 500;
const MOST_ENVELOPES = 200;
const MOST_SAMPLES = 60;

const $ = (id) => document.getElementById(id);
const parameters = new URLSearchParams(location.search);
const conversations = new Map(); // "room:lobby" or "@bob" → conversation
const pending = new Map(); // key → {conversation, text, item}: sent, and not acknowledged yet
const samples = [];
let current = null;

const connection = new Connection((event, details) => handlers[event]?.(details));

// --- conversations -------------------------------------------------------------------------------------------------

function conversation(key) {
  let found = conversations.get(key);
  if (!found) {
    const direct = key.startsWith("@");
    found = { key, direct, label: direct ? key.slice(1) : key.replace(/^room:/, ""), items: [], people: new Set(), unread: 0, seen: new Set(), epoch: "" };
    conversations.set(key, found);
    drawConversations();
  }
  return found;
}

function open(key) {
  current = conversation(key);
  current.unread = 0;
  $("title").textContent = current.direct ? `@${current.label}` : current.label;
  $("messages").replaceChildren(...current.items);
  $("people-panel").hidden = current.direct;
  drawConversations();
  drawPeople();
  $("messages").scrollTop = $("messages").scrollHeight;
  $("text").placeholder = current.direct ? `Write to ${current.label}` : `Write to everyone in ${current.label}`;
}

function joinRoom(name) {
  const key = `room:${name}`;
  conversation(key);
  connection.subscribe(key);
  open(key);
  remember();
}

function leave(key) {
  const gone = conversation(key);
  conversations.delete(key);
  if (!gone.direct) connection.unsubscribe(key);
  remember();
  if (!conversations.size) return joinRoom("lobby");
  open([...conversations.keys()][0]);
}

function remember() {
  const rooms = [...conversations.values()].filter((each) => !each.direct).map((each) => each.label);
  sessionStorage.setItem("rooms", JSON.stringify(rooms));
}

function drawConversations() {
  for (const [id, direct] of [["rooms", false], ["direct", true]]) {
    const items = [...conversations.values()].filter((each) => each.direct === direct).map((each) => {
      const button = element("button", "conversation", each.label);
      button.type = "button";
      if (each === current) button.setAttribute("aria-current", "true");
      if (each.unread) button.append(element("span", "badge", `${each.unread}`), element("span", "hidden", " unread"));
      button.onclick = () => open(each.key);
      const item = element("li");
      item.append(button);
      return item;
    });
    $(id).replaceChildren(...items);
  }
}

function drawPeople() {
  const people = [...(current?.people ?? [])].sort((a, b) => a.localeCompare(b));
  $("people-count").textContent = people.length;
  $("subtitle").textContent = current?.direct ? "direct" : `${people.length} here`;
  $("people").replaceChildren(...people.map((user) => {
    const own = user === connection.user;
    const button = element("button", "person", user);
    button.type = "button";
    button.prepend(avatar(user));
    button.append(element("span", "quiet", own ? "you" : "write"));
    button.disabled = own;
    button.onclick = () => { open(`@${user}`); $("text").focus(); };
    const item = element("li");
    item.append(button);
    return item;
  }));
}

// --- messages ------------------------------------------------------------------------------------------------------

function add(to, item) {
  to.items.push(item);
  if (to.items.length > MOST_MESSAGES) to.items.shift().remove();
  if (to !== current) return;
  const list = $("messages");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
  list.append(item);
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function messageItem(from, text, ts, marks = []) {
  const own = from === connection.user;
  const item = element("li", own ? "message own" : "message");
  item.append(avatar(from));
  const body = element("div", "body");
  const head = element("div", "meta");
  head.append(element("strong", "", own ? "you" : from));
  const time = element("time", "quiet", new Date(ts).toLocaleTimeString());
  time.dateTime = new Date(ts).toISOString();
  head.append(time, ...marks.map((mark) => element("span", "mark-text", mark)));
  body.append(head, element("p", "", text));
  item.append(body);
  return item;
}

function notice(to, kind, text) { add(to, element("li", `notice ${kind}`, text)); }

function show(to, message, mark) {
  const id = `${to.epoch}/${message.offset}/${message.from}`;
  if (to.seen.has(id)) return;
  to.seen.add(id);
  const key = message.payload?.key;
  if (message.from === connection.user && pending.has(key)) settle(key);
  add(to, messageItem(message.from, textOf(message.payload), message.ts, mark ? [mark] : []));
  if (to !== current) { to.unread += 1; drawConversations(); }
}

function textOf(payload) {
  return typeof payload?.text === "string" ? payload.text : JSON.stringify(payload);
}

function settle(key) {
  pending.get(key).item.remove();
  const { conversation: to, item } = pending.get(key);
  to.items.splice(to.items.indexOf(item), 1);
  pending.delete(key);
}

function say(text) {
  const key = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
  const item = messageItem(connection.user, text, Date.now(), ["sending…"]);
  item.classList.add("pending");
  pending.set(key, { conversation: current, text, item });
  add(current, item);
  $("messages").scrollTop = $("messages").scrollHeight;
  deliver(key);
}

// May run again after a lost connection: the key makes the server take the message once.
async function deliver(key) {
  const { conversation: to, text } = pending.get(key);
  const payload = { text, key };
  const reply = to.direct
    ? await connection.request("DirectMessage", { to: to.label, payload, idempotency_key: key })
    : await connection.request("Broadcast", { topic: to.key, payload, idempotency_key: key });
  if (!reply || !pending.has(key)) return; // lost: `ready` tries again
  if (reply.type === "Error") {
    settle(key);
    return notice(to, "bad", `Not sent: ${reply.message}`);
  }
  if (to.direct) {
    settle(key);
    add(to, messageItem(connection.user, text, Date.now(), [reply.offline?.length ? "offline: kept for later" : "delivered"]));
  }
}

// --- what the connection tells -------------------------------------------------------------------------------------

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const rooms = () => [...conversations.values()].filter((each) => !each.direct);

const handlers = {
  state({ state, reason, delay, attempt }) {
    $("state").dataset.state = state;
    document.body.dataset.state = state;
    const texts = {
      connecting: attempt ? "Connecting again…" : "Connecting…",
      connected: `Connected as ${connection.user}`,
      lost: `${reason} Trying again in ${((delay ?? 0) / 1000).toFixed(1)} s`,
      stopped: reason,
    };
    $("state-text").textContent = texts[state];
    if (state === "lost") {
      sample(null);
      for (const each of rooms()) {
        if (!each.away) notice(each, "away", "Connection lost. What is said now will be fetched later, if the server still has it.");
        each.away = true;
      }
    }
  },

  subscribed({ topic, messages, again, recovered }) {
    const to = conversation(topic);
    to.away = false;
    if (!again) {
      for (const message of messages) show(to, message);
      to.unread = 0;
      drawConversations();
      return;
    }
    if (recovered) {
      notice(to, "good", messages.length
        ? `Connected again: ${plural(messages.length, "missed message")} recovered, nothing is missing.`
        : "Connected again: nothing was missed.");
      for (const message of messages) show(to, message, "recovered");
      return;
    }
    to.seen.clear();
    notice(to, "bad", "Connected again, but the server no longer has what came after your last message. Some messages may be missing here.");
    for (const message of messages) show(to, message);
  },

  history({ topic, epoch, messages }) {
    const to = conversation(topic);
    to.epoch = epoch;
    for (const message of messages) show(to, message);
  },

  ready() { for (const key of [...pending.keys()]) deliver(key); },
  message(message) { show(conversation(message.topic), message); },

  direct({ message, recovered }) {
    const to = conversation(`@${message.from}`);
    if (!to.items.length) drawConversations();
    show(to, message, recovered ? "recovered" : "");
  },

  inbox() {
    for (const each of conversations.values()) {
      if (each.direct) {
        each.seen.clear();
        notice(each, "bad", "Connected again. Direct messages sent meanwhile may be missing.");
      }
    }
  },

  people({ topic, members }) {
    const to = conversation(topic);
    to.people = new Set(members.map((member) => member.user_id));
    if (to === current) drawPeople();
  },

  presence({ type, topic, user_id: user }) {
    const to = conversations.get(topic);
    if (!to) return;
    const joined = type === "Join";
    if (joined === to.people.has(user)) return;
    if (joined) to.people.add(user); else to.people.delete(user);
    if (user !== connection.user) notice(to, "quiet", `${user} ${joined ? "joined" : "left"}`);
    if (to === current) drawPeople();
  },

  lagged({ topic, missed, recovered }) {
    notice(conversation(topic), recovered ? "good" : "bad",
      recovered ? `${plural(missed, "message")} came late; they follow now.` : `${plural(missed, "message")} skipped: this page was too slow.`);
  },

  closing({ reason, after_ms: after }) {
    for (const each of rooms()) notice(each, "away", `The server says: ${reason}. Coming back in ${(after / 1000).toFixed(1)} s.`);
  },

  error({ message }) { if (current) notice(current, "bad", message); },
  latency(ms) { sample(ms); },
  envelope({ out, envelope }) { rawEnvelope(out, envelope); },
};

// --- latency and envelopes -----------------------------------------------------------------------------------------

function sample(ms) {
  samples.push(ms);
  if (samples.length > MOST_SAMPLES) samples.shift();
  $("latency").textContent = ms === null ? "–" : `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  plot();
}

function plot() {
  const canvas = $("plot");
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  const style = getComputedStyle(document.documentElement);
  const most = Math.max(2, ...samples.filter((each) => each !== null)) * 1.15;
  const step = width / (MOST_SAMPLES - 1);
  context.clearRect(0, 0, width, height);
  context.lineWidth = 3;
  context.lineJoin = "round";
  context.strokeStyle = style.getPropertyValue("--accent");
  context.fillStyle = style.getPropertyValue("--bad");
  context.beginPath();
  let drawing = false;
  samples.forEach((each, index) => {
    const x = width - (samples.length - 1 - index) * step;
    if (each === null) {
      drawing = false;
      context.fillRect(x - 2, height - 10, 4, 10);
      return;
    }
    const y = height - 4 - (each / most) * (height - 8);
    if (drawing) context.lineTo(x, y); else context.moveTo(x, y);
    drawing = true;
  });
  context.stroke();
}

function rawEnvelope(out, envelope) {
  if (!$("show-pings").checked && (envelope.type === "Ping" || envelope.type === "Pong")) return;
  const item = element("li", out ? "out" : "in");
  item.append(element("span", "arrow", out ? "↑" : "↓"), element("span", "hidden", out ? "sent " : "received "), element("code", "", JSON.stringify(envelope)));
  const list = $("raw");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  list.append(item);
  if (list.childElementCount > MOST_ENVELOPES) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

// --- small parts, and the page's own controls ----------------------------------------------------------------------

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function avatar(user) {
  const made = element("span", "avatar", [...user][0]?.toUpperCase() ?? "?");
  made.setAttribute("aria-hidden", "true");
  let hue = 0;
  for (const character of user) hue = (hue * 31 + character.codePointAt(0)) % 360;
  made.style.setProperty("--hue", hue);
  return made;
}

function onSubmit(form, field, act) {
  $(form).addEventListener("submit", (event) => {
    event.preventDefault();
    const value = $(field).value.trim();
    if (!value) return;
    if (form !== "name-form") $(field).value = "";
    act(value);
  });
}

function become(user) {
  sessionStorage.setItem("user", user);
  $("name").value = user;
  document.title = `${user} – realtime_communication demo`;
  connection.start(user);
}

onSubmit("send-form", "text", say);
onSubmit("join-form", "room", joinRoom);
onSubmit("direct-form", "direct-to", (user) => { open(`@${user}`); $("text").focus(); });
onSubmit("name-form", "name", become);
$("leave").onclick = () => leave(current.key);
$("drop").onclick = () => connection.lose();
$("clear").onclick = () => $("raw").replaceChildren();
$("envelopes-toggle").onclick = () => {
  const shown = $("envelopes").toggleAttribute("hidden") === false;
  $("envelopes-toggle").setAttribute("aria-pressed", `${shown}`);
};

// A page that is left may be kept alive by the browser, with its connection: others would see us here for ever.
addEventListener("pagehide", () => connection.stop());
addEventListener("pageshow", (event) => { if (event.persisted) connection.start(connection.user); });

const guest = `guest-${Math.random().toString(36).slice(2, 6)}`;
const wanted = parameters.get("room") ? [parameters.get("room")] : JSON.parse(sessionStorage.getItem("rooms") ?? "[]");
for (const room of wanted.length ? wanted : ["lobby"]) joinRoom(room);
become(parameters.get("user") ?? sessionStorage.getItem("user") ?? guest);
