/** One topic as the application sees it. */

import type { EventChannel, EventOf, EventSource, ListenerOptions, Off, TypeOf } from "./delivery.js";
import { asyncDispose } from "./disposal.js";
import type { RequestOptions } from "./requests.js";
import type { Message, Position, SubscriptionEvent } from "./events.js";

/** What a subscription needs of its client. */
export interface SubscriptionOwner {
  positionOf(subscription: Subscription): Position | null;
  end(subscription: Subscription, options: RequestOptions): Promise<void>;
}

/**
 * What `client.subscribe` resolves to. Listen with `on`, or iterate:
 *
 *     for await (const event of subscription)            // message, join, leave, lagged, recovered
 *     for await (const message of subscription.messages())
 *
 * Events wait until someone listens or iterates. The iteration ends after `unsubscribe` or `client.close`, and throws
 * what ended the subscription otherwise. `T` is the type of the payloads; nothing checks them.
 */
export class Subscription<T = unknown> implements EventSource<SubscriptionEvent<T>>, AsyncDisposable {
  readonly topic: string;
  readonly #owner: SubscriptionOwner;
  readonly #channel: EventChannel<SubscriptionEvent<T>>;

  constructor(topic: string, owner: SubscriptionOwner, channel: EventChannel<SubscriptionEvent<T>>) {
    this.topic = topic;
    this.#owner = owner;
    this.#channel = channel;
  }

  /** The last position received, for a `recover` of a later run; events up to it may still be queued. */
  get position(): Position | null {
    return this.#owner.positionOf(this);
  }

  on<K extends TypeOf<SubscriptionEvent<T>>>(
    type: K,
    listener: (event: EventOf<SubscriptionEvent<T>, K>) => unknown,
    options?: ListenerOptions,
  ): Off {
    return this.#channel.on(type, listener, options);
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<SubscriptionEvent<T>> {
    return this.#channel[Symbol.asyncIterator]();
  }

  /** Only the messages; whoever reads no `lagged` and `recovered` does not learn of holes. */
  async *messages(): AsyncGenerator<Message<T>, void, undefined> {
    for await (const event of this) if (event.type === "message") yield event;
  }

  /** End the subscription; events that wait can still be read. */
  unsubscribe(options: RequestOptions = {}): Promise<void> {
    return this.#owner.end(this, options);
  }

  [asyncDispose](): Promise<void> {
    return this.unsubscribe();
  }
}
