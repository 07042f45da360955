/** Requests as the application makes them: their options, and the promises of their answers. */

import type { ServerEnvelope } from "./envelopes.js";
import { type ClientError, RequestTimeout } from "./errors.js";
import type { Position } from "./events.js";

/** What every request takes. */
export interface RequestOptions {
  /** Instead of the client's `requestTimeoutMs`. */
  readonly timeoutMs?: number | undefined;
  /** Stop waiting; what was sent already may still have its effect. */
  readonly signal?: AbortSignal | undefined;
}

export interface SendOptions extends RequestOptions {
  /** Publications with the same key have their effect once; each gets one of its own by default. */
  readonly idempotencyKey?: string | undefined;
}

export interface PublishOptions extends SendOptions {
  /** Leave out this connection's own subscription. */
  readonly excludeSelf?: boolean | undefined;
}

export interface HistoryOptions extends RequestOptions {
  /** Only what follows this position. */
  readonly after?: Position | undefined;
  /** How many messages (100, at most 1,000). */
  readonly limit?: number | undefined;
  /** From the end. */
  readonly reverse?: boolean | undefined;
}

/** `signal` ends the subscription when it is aborted, also later on. */
export interface SubscribeOptions extends RequestOptions {
  /** So many earlier messages come first (0). */
  readonly history?: number | undefined;
  /** `join` and `leave` come too (false). */
  readonly presence?: boolean | undefined;
  /** Continue after this position, of an earlier run; a `recovered` comes first. */
  readonly recover?: Position | undefined;
  /** Instead of the client's `queueSize`. */
  readonly queueSize?: number | undefined;
}

interface Waiting {
  readonly resolve: (envelope: ServerEnvelope) => void;
  readonly reject: (error: unknown) => void;
}

/** The requests whose answers somebody waits for. */
export class Answers {
  readonly #waiting: Map<number, Waiting> = new Map();

  /**
   * The answer to request `id`. Rejects with what ended the request, the signal's reason, or after `timeoutMs` with
   * RequestTimeout, of which `late` says why. `done` is called before, however it ends.
   */
  of(id: number, timeoutMs: number, late: () => string, signal: AbortSignal | undefined, done: () => void): Promise<ServerEnvelope> {
    return new Promise((resolve, reject) => {
      const settled = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
        this.#waiting.delete(id);
        done();
      };
      const waiting: Waiting = {
        resolve: (envelope) => {
          settled();
          resolve(envelope);
        },
        reject: (error) => {
          settled();
          reject(error);
        },
      };
      const abort = (): void => waiting.reject(signal?.reason);
      const timer = setTimeout(() => waiting.reject(new RequestTimeout(late())), timeoutMs);
      signal?.addEventListener("abort", abort, { once: true });
      this.#waiting.set(id, waiting);
    });
  }

  answered(id: number, envelope: ServerEnvelope): void {
    this.#waiting.get(id)?.resolve(envelope);
  }

  failed(id: number, error: ClientError): void {
    this.#waiting.get(id)?.reject(error);
  }

  failAll(error: ClientError): void {
    for (const waiting of [...this.#waiting.values()]) waiting.reject(error);
  }
}

/** Idempotency keys that no other client makes. Works in pages that are no secure context, too. */
export class Keys {
  readonly #prefix: string = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
  #made = 0;

  next(): string {
    this.#made += 1;
    return `${this.#prefix}-${this.#made}`;
  }
}
