/** One WebSocket connection: what a browser's WebSocket, Node's, Deno's and the package `ws` have in common. */

import type { Bytes } from "./encoding.js";

/** The part of a WebSocket that this client uses. */
export interface WebSocketLike {
  binaryType: string;
  readonly protocol: string;
  readonly readyState: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  send(data: string | Bytes): void;
  close(code?: number, reason?: string): void;
}

/** Makes WebSockets: `globalThis.WebSocket`, or the default export of the package `ws`. */
export type WebSocketConstructor = new (url: string, protocols: string[]) => WebSocketLike;

/** How a connection ended: the close code (1006 when there was none) and what was said about it. */
export interface Outcome {
  readonly code: number;
  readonly reason: string;
}

/** What a connection calls; never after it has ended. */
export interface ConnectionHandlers {
  readonly opened: (connection: Connection) => void;
  readonly received: (data: string | ArrayBuffer) => void;
}

const OPEN = 1;
const ABNORMAL = 1006;

/** `ended` resolves once, and never rejects. */
export class Connection {
  readonly ended: Promise<Outcome>;
  readonly #socket: WebSocketLike;
  readonly #settle: (outcome: Outcome) => void;
  #error = "";

  /** Dials at once. Throws what the constructor throws. */
  constructor(make: WebSocketConstructor, url: string, subprotocols: string[], handlers: ConnectionHandlers) {
    let settle: (outcome: Outcome) => void = () => undefined;
    this.ended = new Promise((resolve) => {
      settle = resolve;
    });
    this.#settle = settle;
    const socket = new make(url, subprotocols);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => handlers.opened(this);
    socket.onmessage = ({ data }: { readonly data: unknown }) => {
      if (typeof data === "string" || data instanceof ArrayBuffer) handlers.received(data);
      else this.drop(ABNORMAL, "the WebSocket does not honour binaryType");
    };
    socket.onerror = (event: { readonly message?: unknown }) => {
      if (typeof event.message === "string") this.#error = event.message; // browsers give no reason
    };
    socket.onclose = ({ code, reason }: Outcome) => this.#end(code, reason || this.#error);
  }

  /** The subprotocol the server chose. */
  get subprotocol(): string {
    return this.#socket.protocol;
  }

  /** Queue one message; nothing happens when the connection is gone already. */
  send(data: string | Bytes): void {
    if (this.#socket.readyState === OPEN) this.#socket.send(data);
  }

  /**
   * Hang up. `ended` resolves now: the closing handshake of a dead link takes its time, and nobody waits for it.
   * `code` and `reason` are what `ended` tells; the peer gets a normal closure, the only one a browser may send.
   */
  drop(code: number, reason: string): void {
    this.#end(code, reason);
    try {
      this.#socket.close(1000);
    } catch {
      // a socket that was never connected
    }
  }

  #end(code: number, reason: string): void {
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.onerror = () => undefined; // `ws` throws what nobody listens to
    this.#settle({ code, reason });
  }
}
