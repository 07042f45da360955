import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { Credentials, lifetimeMs } from "#dist/credentials.js";
import { Renewal } from "#dist/renewal.js";

/** A token that lasts so long, of an issuer whose clock is `aheadSecs` ahead of ours. */
function lasting(secs: number, aheadSecs = 0, serial = 0): string {
  const iat = Math.floor(Date.now() / 1000) + aheadSecs;
  const claims = { iat, exp: iat + secs, serial };
  return `head.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.signature`;
}

test("how long a token lasts is read from it, and counted from when it came", async () => {
  assert.equal(lifetimeMs(lasting(600)), 600_000);
  for (const text of ["opaque", "a.b.c", "a..c", "a.e30.c", "", "a.bnVsbA.c"]) assert.equal(lifetimeMs(text), Infinity);
  for (const aheadSecs of [-86_400, 0, 86_400]) {
    for (const [secs, times] of [
      [4, 2],
      [600, 1],
    ] as const) {
      let asked = 0;
      const credentials = new Credentials(null, () => lasting(secs, aheadSecs, (asked += 1)), null, 1000);
      await credentials.next();
      await credentials.next();
      assert.equal(asked, times);
    }
  }
});

/** What a renewal sends and how long it waits before each question, while the server wants a new token at once. */
async function renewals(getToken: () => string, rounds: number): Promise<{ sent: string[]; pauses: number[] }> {
  const credentials = new Credentials(null, getToken, null, 60_000);
  await credentials.next();
  const sent: string[] = [];
  const pauses: number[] = [];
  const ended = new Promise<void>((resolve) => {
    const renewal = new Renewal(credentials, {
      refresh: (token) => {
        credentials.token = token;
        if (sent.push(token) < rounds) {
          setImmediate(() => renewal.due());
        } else {
          renewal.stop();
          resolve();
        }
        return Promise.resolve();
      },
      giveUp: resolve,
    });
    const real = globalThis.setTimeout;
    mock.method(globalThis, "setTimeout", (work: () => void, ms = 0) => {
      if (ms < 60_000) pauses.push(Math.round(ms / 1000));
      return real(work, ms < 60_000 ? 0 : ms);
    });
    renewal.due();
  });
  await ended;
  mock.restoreAll();
  return { sent, pauses };
}

test("tokens that are always about to end are asked for in ever longer pauses", async () => {
  let asked = 0;
  const { pauses } = await renewals(() => `token ${(asked += 1)}`, 6);
  assert.deepEqual(pauses.slice(0, 6), [0, 2, 4, 8, 16, 32]);
});

test("the same token is not sent again", async () => {
  const tokens = ["fresh", "fresh", "fresh", "fresher"];
  const { sent, pauses } = await renewals(() => tokens.shift() ?? "freshest", 1);
  assert.deepEqual([sent, pauses.slice(0, 3)], [["fresher"], [0, 2, 4]]);
});
