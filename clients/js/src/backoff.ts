/** When to try again after a lost connection. */

export interface BackoffOptions {
  /** Upper bound of the first delay, in milliseconds (200). */
  readonly initialMs?: number;
  /** Upper bound of all delays, in milliseconds (20,000). */
  readonly maximumMs?: number;
}

/**
 * Exponential delays with full jitter, so that the clients of a restarted server do not come back in step.
 *
 * The n-th delay is drawn evenly from 0 … `initialMs` × 2ⁿ, at most `maximumMs`.
 * Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
 */
export class Backoff {
  readonly #initialMs: number;
  readonly #maximumMs: number;
  readonly #random: () => number;
  #attempt = 0;

  /** @throws RangeError unless 0 < initialMs <= maximumMs. */
  constructor({ initialMs = 200, maximumMs = 20_000 }: BackoffOptions = {}, random: () => number = Math.random) {
    if (!(initialMs > 0 && initialMs <= maximumMs && Number.isFinite(maximumMs))) {
      throw new RangeError("backoff: initialMs must be above 0 and not above maximumMs");
    }
    this.#initialMs = initialMs;
    this.#maximumMs = maximumMs;
    this.#random = random;
  }

  /** Milliseconds until the next attempt; never under `atLeastMs`, the server's own wish. */
  nextDelay(atLeastMs = 0): number {
    const ceiling = Math.min(this.#maximumMs, this.#initialMs * 2 ** Math.min(this.#attempt, 32));
    this.#attempt += 1;
    return atLeastMs + this.#random() * ceiling;
  }

  /** A connection stood: start from the beginning next time. */
  reset(): void {
    this.#attempt = 0;
  }
}
