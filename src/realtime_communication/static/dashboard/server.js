// What is asked of the server, and the credential it is asked with.
//
// The credential is kept in memory and, if wanted, in the tab's session storage. It leaves in a header only.

const KEY = "rtc-dashboard-credential";
const SILENT_MS = 10_000; // the stream sends every second: after this it is taken for lost

let credential = readKept();

/** An answer that is no good: `status` 0 when there was none at all. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }

  /** Whether another credential is needed. */
  get isSignIn() {
    return this.status === 401 || this.status === 403;
  }
}

export const signedIn = () => credential !== "";

export function signIn(text, keep) {
  credential = text;
  try {
    if (keep) sessionStorage.setItem(KEY, text);
    else sessionStorage.removeItem(KEY);
  } catch {
    // Storage is blocked: it is kept in memory.
  }
}

export function signOut() {
  signIn("", false);
}

/** The answer of an endpoint as a value. `path` is relative to the server's root. Throws Refused. */
export async function ask(method, path, body) {
  const headers = identity();
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await reach(`../${path}`, { method, headers, body: body && JSON.stringify(body) });
  if (!response.ok) throw await refusalOf(response);
  return response.json();
}

/** The events of a stream as {name, data}, until it ends or `signal` aborts. Throws Refused. */
export async function* events(path, signal) {
  const silence = new AbortController();
  const both = AbortSignal.any([signal, silence.signal]);
  const response = await reach(`../${path}`, { headers: identity(), signal: both });
  if (!response.ok) throw await refusalOf(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const timer = setTimeout(() => silence.abort(), SILENT_MS);
      const { done, value } = await reader.read().finally(() => clearTimeout(timer));
      if (done) return;
      text += value;
      let end;
      while ((end = text.indexOf("\n\n")) >= 0) {
        yield eventIn(text.slice(0, end));
        text = text.slice(end + 2);
      }
    }
  } catch (error) {
    if (signal.aborted) return;
    throw new Refused(0, "unreachable", silence.signal.aborted ? "the server has fallen silent" : "the connection was lost");
  } finally {
    silence.abort();
  }
}

function eventIn(text) {
  const fields = {};
  for (const line of text.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
  }
  return { name: fields.event, data: JSON.parse(fields.data) };
}

function identity() {
  // A token has three parts; all else is an API key.
  const isToken = credential.split(".").length === 3;
  return isToken ? { Authorization: `Bearer ${credential}` } : { "X-API-Key": credential };
}

async function reach(path, options) {
  try {
    return await fetch(path, { cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer", ...options });
  } catch {
    throw new Refused(0, "unreachable", "the server cannot be reached");
  }
}

async function refusalOf(response) {
  try {
    const { error } = await response.json();
    return new Refused(response.status, error.code, error.message);
  } catch {
    return new Refused(response.status, "unknown", `the server answered with status ${response.status}`);
  }
}

function readKept() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}
