/** What the client shows at the door, and when it needs something new. */

import { AuthenticationFailed, ConnectionLost } from "./errors.js";
import type { Credential } from "./protocol.js";
import { within } from "./waiting.js";

/**
 * Gives a valid access token. It is asked for the first connection, when the token is about to end and when it was
 * refused. Throw AuthenticationFailed when there will be none any more; after any other error it is asked again.
 */
export type TokenProvider = () => string | Promise<string>;

/** Fresh tokens in a row that the server may refuse before the client gives up. */
export const REFUSED_IN_A_ROW = 3;

/** A token that ends sooner is not used for a new connection. */
const EXPIRY_MARGIN_MS = 5000;

/**
 * A token, a provider of tokens or an API key; none of them is ever logged or put into a URL.
 *
 * How long a token of the provider lasts is counted from when it came, so that the clock of this machine does not matter.
 */
export class Credentials {
  /** The present token. */
  token: string | null;
  readonly #provider: TokenProvider | null;
  readonly #apiKey: string | null;
  readonly #timeoutMs: number;
  #needsNew = false;
  #refusals = 0;
  #latest: string | null = null; // of the provider
  #latestEnds = Infinity; // as `performance.now()`

  /** `timeoutMs` is how long the provider may take. */
  constructor(token: string | null, provider: TokenProvider | null, apiKey: string | null, timeoutMs: number) {
    this.token = token;
    this.#provider = provider;
    this.#apiKey = apiKey;
    this.#timeoutMs = timeoutMs;
  }

  /** Whether a new token can be had. */
  get renewable(): boolean {
    return this.#provider !== null;
  }

  /** For the next connection; null when there is nothing to show. Throws as `newToken`. */
  async next(): Promise<Credential | null> {
    if (this.#apiKey !== null) return { api_key: this.#apiKey };
    if (this.renewable && (this.token === null || this.#needsNew || this.#isOld())) {
      this.token = await this.newToken();
      this.#needsNew = false;
    }
    return this.token === null ? null : { token: this.token };
  }

  /** Ask the provider. Throws AuthenticationFailed (its own word) or ConnectionLost (what else it threw). */
  async newToken(): Promise<string> {
    const provider = this.#provider;
    if (provider === null) throw new AuthenticationFailed("there is no getToken to ask for a new token");
    try {
      const token: unknown = await within(this.#timeoutMs, () => new Error(`no token within ${this.#timeoutMs} ms`), provider);
      if (typeof token !== "string" || token === "") throw new TypeError("it must return the token, a string");
      if (token !== this.#latest) {
        this.#latest = token;
        this.#latestEnds = performance.now() + lifetimeMs(token);
      }
      return token;
    } catch (error) {
      if (error instanceof AuthenticationFailed) {
        this.#refusals = REFUSED_IN_A_ROW;
        throw error;
      }
      const words = error instanceof Error ? error.message : String(error);
      throw new ConnectionLost(`getToken failed: ${words}`, 1006, "", { cause: error });
    }
  }

  /** Until the provider's latest token ends, at most; infinite when it does not say. */
  get remainingMs(): number {
    return this.#latestEnds - performance.now();
  }

  /** The server took them. */
  accepted(): void {
    this.#refusals = 0;
  }

  /** The server did not, or takes them no longer. Returns whether another attempt makes sense. */
  refused(): boolean {
    this.#refusals += 1;
    this.#needsNew = true;
    return this.renewable && this.#refusals < REFUSED_IN_A_ROW;
  }

  #isOld(): boolean {
    return this.token === this.#latest && this.remainingMs < EXPIRY_MARGIN_MS;
  }
}

/** From `iat` to `exp` of a JWT, whose signature is the server's business; infinite for what is none. */
export function lifetimeMs(token: string): number {
  const parts = token.split(".");
  if (parts.length !== 3) return Infinity;
  try {
    const claims: unknown = JSON.parse(atob((parts[1] ?? "").replace(/-/g, "+").replace(/_/g, "/")));
    const { iat, exp } = claims as { readonly iat?: unknown; readonly exp?: unknown };
    return typeof iat === "number" && typeof exp === "number" ? (exp - iat) * 1000 : Infinity;
  } catch {
    return Infinity;
  }
}
