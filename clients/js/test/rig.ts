/** Servers to test against: what starts the tests has a rig that starts, stops and kills them, and signs tokens. */

import assert from "node:assert/strict";

import { Client, connect, type ConnectOptions } from "realtime-communication-client";
import WebSocket from "ws";

const rig = process.env["RTC_TEST_RIG"];

async function ask<T>(action: string, fields: Record<string, unknown> = {}): Promise<T> {
  assert.ok(rig, "RTC_TEST_RIG: run these tests by `ci/test tests/clients`");
  const answer = await fetch(`${rig}/${action}`, { method: "POST", body: JSON.stringify(fields) });
  const body = await answer.text();
  assert.equal(answer.status, 200, body);
  return JSON.parse(body) as T;
}

/** A running server. */
export class Server {
  private constructor(
    readonly id: number,
    readonly url: string,
    readonly port: number,
  ) {}

  /** The one that tests share. */
  static async shared(): Promise<Server> {
    const { id, url, port } = await ask<{ id: number; url: string; port: number }>("shared");
    return new Server(id, url, port);
  }

  /** One of the test's own. `target`: `product`, or `workers` for two worker processes. */
  static async start(settings: Record<string, unknown> = {}, target = "product"): Promise<Server> {
    const { id, url, port } = await ask<{ id: number; url: string; port: number }>("start", { settings, target });
    return new Server(id, url, port);
  }

  /** SIGTERM, and wait. */
  async stop(): Promise<void> {
    await ask("stop", { id: this.id });
  }

  /** SIGKILL. */
  async kill(): Promise<void> {
    await ask("kill", { id: this.id });
  }

  /** The same server again, on the same port. */
  async again(): Promise<void> {
    await ask("again", { id: this.id });
  }

  /** Replace one worker after the other, and wait until all are new. */
  async roll(): Promise<void> {
    await ask("roll", { id: this.id });
  }
}

/** `expiresIn` and `refreshIn` are seconds from now; null for no `refresh_threshold`. */
export interface Claims {
  readonly expiresIn?: number;
  readonly refreshIn?: number | null;
  readonly permissions?: readonly string[];
  readonly roles?: readonly string[];
}

/** A signed token. */
export async function token(user: string, claims: Claims = {}): Promise<string> {
  return (await ask<{ token: string }>("token", { user, claims })).token;
}

let made = 0;

/** A name that no other test uses. */
export function unique(prefix = "topic"): string {
  made += 1;
  return `${prefix}-${process.pid}-${Date.now().toString(36)}-${made}`;
}

/** A connected client with a short back-off; `user` is made up when there is none. */
export async function open(
  url: string,
  options: ConnectOptions & { readonly user?: string } = {},
): Promise<Client> {
  const { user = unique("user"), ...rest } = options;
  const hasCredential = rest.token !== undefined || rest.getToken !== undefined || rest.apiKey !== undefined;
  const credential = hasCredential ? {} : { token: await token(user) };
  return connect(url, { WebSocket, backoff: { initialMs: 20, maximumMs: 200 }, ...credential, ...rest });
}

/** The next `count` values. */
export async function take<T>(source: AsyncIterable<T>, count: number): Promise<T[]> {
  const iterator = source[Symbol.asyncIterator]();
  const taken: T[] = [];
  while (taken.length < count) {
    const { done, value } = await iterator.next();
    assert.ok(!done, `ended after ${taken.length} of ${count}`);
    taken.push(value as T);
  }
  return taken;
}

/** The next value of that type; what comes before is passed over. */
export async function next<T extends { readonly type: string }, K extends T["type"]>(
  source: AsyncIterable<T>,
  type: K,
): Promise<Extract<T, { readonly type: K }>> {
  const iterator = source[Symbol.asyncIterator]();
  for (;;) {
    const { done, value } = await iterator.next();
    assert.ok(!done, `ended before a ${type}`);
    if ((value as T).type === type) return value as Extract<T, { readonly type: K }>;
  }
}

/** Every value, to the end. */
export async function all<T>(source: AsyncIterable<T>): Promise<T[]> {
  const taken: T[] = [];
  for await (const value of source) taken.push(value);
  return taken;
}
