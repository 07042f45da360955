/** A TCP proxy, to cut and to stall connections between client and server. */

import { createConnection, createServer, type Server, type Socket } from "node:net";
import { once } from "node:events";
import type { AddressInfo } from "node:net";

export class Proxy implements AsyncDisposable {
  /** New connections are closed at once. */
  refusing = false;
  accepted = 0;
  readonly #server: Server;
  readonly #pairs: Set<readonly [Socket, Socket]> = new Set();
  #stalled = false;

  private constructor(target: number) {
    this.#server = createServer((down) => {
      this.accepted += 1;
      down.on("error", () => undefined);
      if (this.refusing) return void down.destroy();
      const up = createConnection(target, "127.0.0.1");
      up.on("error", () => undefined);
      const pair = [down, up] as const;
      this.#pairs.add(pair);
      for (const [from, to] of [pair, [up, down] as const]) {
        from.pipe(to);
        from.on("close", () => {
          to.destroy();
          this.#pairs.delete(pair);
        });
      }
      if (this.#stalled) this.#pause(pair);
    });
  }

  /** In front of `port`. */
  static async open(port: number): Promise<Proxy> {
    const proxy = new Proxy(port);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}/ws`;
  }

  /** Reset every connection, both sides. */
  cut(): void {
    for (const [down, up] of this.#pairs) {
      down.resetAndDestroy();
      up.resetAndDestroy();
    }
  }

  /** Forward nothing more for now; the connections stay open. */
  stall(): void {
    this.#stalled = true;
    for (const pair of this.#pairs) this.#pause(pair);
  }

  /** The same for what the server says; what the client says still comes through. */
  stallAnswers(): void {
    for (const [, up] of this.#pairs) this.#pause([up]);
  }

  /** Forward again. */
  flow(): void {
    this.#stalled = false;
    for (const [down, up] of this.#pairs) {
      down.pipe(up);
      up.pipe(down);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.cut();
    await once(this.#server, "close");
  }

  #pause(sockets: readonly Socket[]): void {
    for (const socket of sockets) {
      socket.unpipe();
      socket.pause();
    }
  }
}
