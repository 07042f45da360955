import assert from "node:assert/strict";
import { before, test } from "node:test";

import { AuthenticationFailed } from "realtime-communication-client";

import { all, next, open, Server, token, unique } from "../rig.js";

let url: string;
before(async () => {
  ({ url } = await Server.shared());
});

test("a token that is due is replaced on the same connection", async () => {
  const user = unique("user");
  let asked = 0;
  const getToken = (): Promise<string> => {
    asked += 1;
    return token(user, asked === 1 ? { expiresIn: 30, refreshIn: 0 } : {});
  };
  await using client = await open(url, { getToken });
  const { sessionId } = client.session ?? {};
  while (asked < 2) await client.ping();
  await client.ping();
  assert.deepEqual([asked, client.session?.sessionId], [2, sessionId]);
});

test("an expired token is replaced on a new connection, and nothing is missed", async () => {
  const user = unique("user");
  const topic = unique();
  let asked = 0;
  await using alice = await open(url, {
    getToken: async () => {
      asked += 1;
      if (asked === 1) return token(user, { expiresIn: 2, refreshIn: null });
      if (asked === 2) throw new Error("the issuer is away"); // no refresh in time is possible
      return token(user);
    },
  });
  await using bob = await open(url);
  const room = await alice.subscribe(topic);
  assert.equal((await next(alice.events(), "disconnected")).code, 4401);
  await bob.publish(topic, "after");
  assert.equal((await next(room, "recovered")).recovered, true);
  assert.equal((await next(room, "message")).payload, "after");
  assert.equal(asked, 3);
});

test("a fixed token warns, can be replaced, and ends the client otherwise", async () => {
  const user = unique("user");
  const fixed = await token(user, { expiresIn: 3, refreshIn: 0 });
  await using saved = await open(url, { token: fixed });
  const lost = await open(url, { token: await token(user, { expiresIn: 2, refreshIn: null }) });
  const room = await lost.subscribe(unique());
  const { expiresAt } = await next(saved.events(), "tokenExpiring");
  assert.equal(expiresAt, saved.session?.expiresAt);
  assert.ok(((await saved.refresh(await token(user))) ?? 0) > (expiresAt ?? 0));
  await assert.rejects(all(room), AuthenticationFailed);
  await assert.rejects(lost.ping(), { name: "AuthenticationFailed" });
  assert.equal(lost.state, "closed");
});

test("getToken is asked again when it fails, not for ever when it is refused, and its own word is final", async () => {
  let asked = 0;
  const patient = await open(url, {
    getToken: () => {
      asked += 1;
      if (asked < 3) throw new Error("the issuer is away");
      return token(unique("user"));
    },
  });
  await patient.close();
  assert.equal(asked, 3);
  asked = 0;
  const refused = open(url, { getToken: () => `refused ${(asked += 1)}` });
  await assert.rejects(refused, AuthenticationFailed);
  assert.equal(asked, 3);
  asked = 0;
  const final = open(url, {
    getToken: () => {
      asked += 1;
      throw new AuthenticationFailed("signed out");
    },
  });
  await assert.rejects(final, /signed out/);
  assert.equal(asked, 1);
  const empty = open(url, { getToken: () => "", openTimeoutMs: 100 });
  await assert.rejects(empty, /getToken failed: it must return the token/);
});
