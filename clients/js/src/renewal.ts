/** Keeps the token of a connection fresh: asks for a new one when the server says that the present one ends soon. */

import { AuthenticationFailed, ClientClosed, RequestError } from "./errors.js";
import type { Credentials } from "./credentials.js";

/** Wait after an attempt that failed for a reason that may pass. */
const RETRY_MS = 5000;

/** Shortest time between two: a server whose tokens are always about to end is not asked in a loop. */
const APART_MS = 1000;

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

  constructor(credentials: Credentials, host: RenewalHost) {
    this.#credentials = credentials;
    this.#host = host;
  }

  /** The server wants a new token. */
  due(): void {
    if (this.#running || this.#timer !== null) return;
    this.#in(Math.max(0, this.#doneAt + APART_MS - performance.now()));
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
      await this.#host.refresh(await this.#credentials.newToken());
    } catch (error) {
      if (error instanceof AuthenticationFailed) this.#host.giveUp();
      else if (error instanceof RequestError) this.#credentials.refused();
      else if (!(error instanceof ClientClosed)) this.#in(RETRY_MS);
    } finally {
      this.#running = false;
      this.#doneAt = performance.now();
    }
  }
}
