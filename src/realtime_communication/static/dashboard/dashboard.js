// The page as a whole: who is signed in, which view is shown, and the stream that feeds them all.

import { Connections } from "./connections.js";
import { announce, byId, setText } from "./elements.js";
import { Overview } from "./overview.js";
import { Series } from "./series.js";
import { Refused, ask as askServer, events, signIn, signOut, signedIn } from "./server.js";
import { Settings } from "./settings.js";
import { Topics } from "./topics.js";

const REFRESH_MS = 2000;
const AGAIN_MS = [1000, 2000, 5000, 10_000]; // after a lost stream
const STATES = { ok: ["All is well", "good"], degraded: ["Degraded", "bad"], draining: ["Draining", "warn"] };

const NOT_THE_CREDENTIAL = new Set(["unavailable", "rate_limited", "internal"]);

const series = new Series();
const dialog = byId("detail");
let refreshDialog = null;
let paused = false;
let stream = null;
let newestError = null;

const asking = async (method, path, body) => {
  try {
    return await askServer(method, path, body);
  } catch (error) {
    // One topic may be refused to somebody who may do all else.
    const isOfTopic = error.status === 403 && path.startsWith("api/topics/");
    if (error instanceof Refused && error.isSignIn && !isOfTopic) askToSignIn(`${error.message}.`);
    throw error;
  }
};
const topics = new Topics({ show: showDialog, ask: asking });
const connections = new Connections({ show: showDialog, close: () => dialog.close(), openTopic: (name) => topics.open(name), ask: asking });
const overview = new Overview((row) => connections.open(row));
const settings = new Settings({ ask: asking });
const views = { overview, connections, topics, settings };

// Views

const currentView = () => (location.hash.slice(1) in views ? location.hash.slice(1) : "overview");

function showView() {
  const shown = currentView();
  for (const name of Object.keys(views)) byId(`view-${name}`).hidden = !signedIn() || name !== shown;
  for (const link of byId("nav").children) {
    if (link.hash === `#${shown}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${byId(`view-${shown}`).ariaLabel} · realtime_communication`;
  if (!signedIn()) return;
  views[shown].show?.();
  views[shown].refresh?.();
}

addEventListener("hashchange", () => {
  showView();
  byId("main").focus({ preventScroll: true });
  scrollTo(0, 0);
});

setInterval(async () => {
  if (!signedIn() || paused || document.hidden) return;
  if (currentView() === "connections") connections.refresh();
  if (dialog.open && refreshDialog && !(await refreshDialog())) refreshDialog = null;
}, REFRESH_MS);

// The dialog

function showDialog(title, body, refresh) {
  setText(byId("detail-title"), title);
  byId("detail-body").replaceChildren(body);
  refreshDialog = refresh;
  refresh();
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

byId("detail-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => (refreshDialog = null));
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // beside it
});

// The stream

async function follow() {
  stream?.abort();
  const own = (stream = new AbortController());
  for (let tries = 0; !own.signal.aborted; tries += 1) {
    try {
      for await (const { name, data } of events("admin/events", own.signal)) {
        if (name === "refused") throw new Refused(NOT_THE_CREDENTIAL.has(data.code) ? 0 : 401, data.code, data.message);
        if (name !== "overview") continue;
        tries = 0;
        take(data);
      }
      if (!own.signal.aborted) lost("the server has ended the stream");
    } catch (error) {
      if (own.signal.aborted) return;
      if (!(error instanceof Refused)) throw error;
      if (error.isSignIn) return askToSignIn(`${error.message}.`);
      lost(error.message);
    }
    await new Promise((done) => setTimeout(done, AGAIN_MS[Math.min(tries, AGAIN_MS.length - 1)]));
  }
}

function take(now) {
  setText(byId("alert"), "");
  series.add(now);
  const [text, tone] = STATES[now.status];
  const state = byId("state");
  setText(state, text);
  state.dataset.tone = tone;
  setText(byId("node"), `${now.node_id} · ${now.profile} · ${now.version}`);
  document.body.dataset.live = "yes";
  tellErrors(now.troubles);
  if (paused) return;
  overview.update(now, series);
  topics.update(now, series);
}

function lost(why) {
  document.body.dataset.live = "no";
  setText(byId("alert"), `No news: ${why}. Trying again. What is shown is what was known last.`);
  setText(byId("state"), "Out of reach");
  byId("state").dataset.tone = "bad";
}

/** Errors that have come since are told to those who do not see the list. */
function tellErrors(troubles) {
  const errors = troubles.filter((each) => each.level === "error");
  const fresh = newestError === null ? [] : errors.filter((each) => each.at > newestError);
  if (fresh.length) announce(`${fresh.length} new in the log: ${fresh[0].event}`);
  newestError = Math.max(newestError ?? 0, errors[0]?.at ?? 0);
}

byId("pause").addEventListener("click", (event) => {
  paused = !paused;
  event.target.setAttribute("aria-pressed", String(paused));
  setText(event.target, paused ? "Go on" : "Pause");
  document.body.classList.toggle("paused", paused);
});

// Signing in and out

function askToSignIn(problem = "") {
  stream?.abort();
  stream = null;
  signOut();
  dialog.close();
  setText(byId("alert"), "");
  setText(byId("sign-in-problem"), problem && problem[0].toUpperCase() + problem.slice(1));
  present();
  byId("token").focus();
}

function present() {
  const inside = signedIn();
  byId("sign-in").hidden = inside;
  for (const id of ["nav", "state", "pause", "sign-out"]) byId(id).hidden = !inside;
  document.body.classList.toggle("signed-in", inside);
  if (!inside) setText(byId("node"), "Dashboard");
  showView();
}

byId("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = byId("token"), problem = byId("sign-in-problem");
  const given = field.value.trim();
  if (!/^[\x21-\x7e]+$/.test(given)) {
    setText(problem, "A token or a key is made of letters, digits and signs, without spaces.");
    return;
  }
  setText(problem, "");
  signIn(given, byId("keep").checked);
  try {
    await askServer("GET", "admin/overview");
  } catch (error) {
    signOut();
    setText(problem, `${error.isSignIn ? "That was refused" : "That did not work"}: ${error.message}.`);
    field.focus();
    return;
  }
  field.value = "";
  present();
  byId("main").focus({ preventScroll: true });
  follow();
});

byId("sign-out").addEventListener("click", () => askToSignIn());

present();
if (signedIn()) follow();
else byId("token").focus();
