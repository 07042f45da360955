/** Keeps the token of a connection fresh: asks for a new one when the server says that the present one ends soon. */

import { AuthenticationFailed, ClientClosed, RequestError } from "./errors.js";
import type { Credentials } from "./credentials.js";

/** Shortest time between two. */
const LEAST_MS = 1000;

/** A provider whose tokens are always about to end, or always the same, is asked in ever longer pauses, up to this. */
const MOST_MS = 60_000;

/** Shortest wait after an attempt that failed for a reason that may pass. */
const RETRY_MS = 5000;

/** What a renewal needs of its client. */
export interface RenewalHost {
  /** Show the server the new token. */
  refresh(token: string): Promise<unknown>;
  /** There will be no new token. */
  giveUp(): void;
}

export class Renewal {
  readonly #credentials: Credentials;
  readonly #host: RenewalHost;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #running = false;
  #stopped = false;
  #doneAt = -Infinity;
  #pauseMs = LEAST_MS;

  constructor(credentials: Credentials, host: RenewalHost) {
    this.#credentials = credentials;
    this.#host = host;
  }

  /** The server wants a new token. */
  due(): void {
    if (this.#running || this.#timer !== null) return;
    const since = performance.now() - this.#doneAt;
    if (since >= 2 * this.#pauseMs) this.#pauseMs = LEAST_MS;
    this.#in(Math.max(0, this.#nextPause() - since));
  }

  /** The connection is another one: it has its own token, and hears in time about it. */
  reset(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  stop(): void {
    this.#stopped = true;
    this.reset();
  }

  /** Longer each time, but not so long that the token ends in it. */
  #nextPause(): number {
    const pause = Math.max(LEAST_MS, Math.min(this.#pauseMs, this.#credentials.remainingMs / 2));
    this.#pauseMs = Math.min(2 * this.#pauseMs, MOST_MS);
    return pause;
  }

  #in(ms: number): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      void this.#renew();
    }, ms);
  }

  async #renew(): Promise<void> {
    this.#running = true;
    try {
      const token = await this.#credentials.newToken();
      if (token === this.#credentials.token) this.#in(this.#nextPause()); // the provider has no newer one yet
      else await this.#host.refresh(token);
    } catch (error) {
      if (error instanceof AuthenticationFailed) this.#host.giveUp();
      else if (error instanceof RequestError) this.#credentials.refused();
      else if (!(error instanceof ClientClosed)) this.#in(Math.max(RETRY_MS, this.#nextPause()));
    } finally {
      this.#running = false;
      this.#doneAt = performance.now();
    }
  }
}
