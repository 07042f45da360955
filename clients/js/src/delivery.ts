/**
 * From the connection to the application: listeners that cannot hurt each other, and one bounded queue to iterate over.
 *
 * Events go to the listeners as they come. They wait in the queue as long as nobody listens, so that what comes between
 * `await subscribe(…)` and the first listener is not lost, and from the first iteration on.
 */

import type { Ended } from "./events.js";

/** Takes a listener away again. May be called more than once. */
export type Off = () => void;

/** The types of events that listeners can name: those of `E`, and `end`. */
export type TypeOf<E extends { readonly type: string }> = E["type"] | "end";

/** The event of type `K` among `E` and `Ended`. */
export type EventOf<E extends { readonly type: string }, K extends string> = Extract<E | Ended, { readonly type: K }>;

/** How a listener can be taken away. */
export interface ListenerOptions {
  /** Takes the listener away when it is aborted. */
  readonly signal?: AbortSignal | undefined;
}

/** What a reader of events sees. */
export interface EventSource<E extends { readonly type: string }> extends AsyncIterable<E> {
  /** Call `listener` for each event of `type`. A promise that it returns is not waited for. */
  on<K extends TypeOf<E>>(
    type: K,
    listener: (event: EventOf<E, K>) => unknown,
    options?: ListenerOptions,
  ): Off;

  /** The events in order; they are shared among all iterations. Ends, or throws what ended the source. */
  [Symbol.asyncIterator](): AsyncIterableIterator<E>;
}

interface Listener<E> {
  readonly type: string;
  call(event: E): unknown;
}

interface Reader<E> {
  resolve(result: IteratorResult<E, undefined>): void;
  reject(error: unknown): void;
}

/**
 * At most `capacity` events wait. One more pushes out the oldest; `lost` makes an event telling how many, which takes the
 * place of those pushed out, so that the reader meets it exactly at the hole. `onError` gets what listeners throw.
 */
export class EventChannel<E extends { readonly type: string }> implements EventSource<E> {
  readonly #capacity: number;
  readonly #lost: ((count: number) => E) | null;
  readonly #onError: (error: unknown) => void;
  #listeners: readonly Listener<E | Ended>[] = [];
  #queue: E[] = [];
  #pushedOut = 0;
  #readers: Reader<E>[] = [];
  #iterated = false;
  #flushing = false;
  #ended: Ended | null = null;

  constructor(capacity: number, lost: ((count: number) => E) | null, onError: (error: unknown) => void) {
    this.#capacity = capacity;
    this.#lost = lost;
    this.#onError = onError;
  }

  /** Events that wait. */
  get size(): number {
    return this.#queue.length;
  }

  /** Hand `event` on. Never fails; nothing happens when the channel has ended. */
  put(event: E): void {
    if (this.#ended !== null) return;
    const heard = this.#listeners.length > 0 && !this.#flushing;
    if (heard) this.#call(event);
    if (this.#iterated || !heard) this.#enqueue(event);
  }

  /** No more will come. Readers get what is waiting, then `error`, or the end when it is null. */
  end(error: Error | null): void {
    if (this.#ended !== null) return;
    this.#ended = { type: "end", error };
    if (this.#listeners.length > 0 && !this.#flushing) this.#call(this.#ended);
    for (const reader of this.#readers.splice(0)) this.#settle(reader);
  }

  on<K extends TypeOf<E>>(
    type: K,
    listener: (event: EventOf<E, K>) => unknown,
    { signal }: ListenerOptions = {},
  ): Off {
    if (signal?.aborted) return () => undefined;
    const added: Listener<E | Ended> = { type, call: listener as (event: E | Ended) => unknown };
    const waiting = this.#listeners.length === 0 && (this.#queue.length > 0 || this.#ended !== null);
    this.#listeners = [...this.#listeners, added];
    if (waiting && !this.#iterated && !this.#flushing) {
      this.#flushing = true;
      queueMicrotask(() => this.#flush()); // so that listeners added in one go all hear it
    }
    const off = (): void => {
      this.#listeners = this.#listeners.filter((each) => each !== added);
      signal?.removeEventListener("abort", off);
    };
    signal?.addEventListener("abort", off, { once: true });
    return off;
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<E> {
    this.#iterated = true;
    const mine = new Set<Reader<E>>();
    const iterator: AsyncIterableIterator<E> = {
      next: () =>
        new Promise((resolve, reject) => {
          const reader: Reader<E> = {
            resolve: (result) => {
              mine.delete(reader);
              resolve(result);
            },
            reject: (error) => {
              mine.delete(reader);
              reject(error);
            },
          };
          if (this.#queue.length > 0 || this.#pushedOut > 0 || this.#ended !== null) {
            this.#settle(reader);
          } else {
            mine.add(reader);
            this.#readers.push(reader);
          }
        }),
      return: () => {
        this.#readers = this.#readers.filter((each) => !mine.has(each));
        for (const reader of [...mine]) reader.resolve({ done: true, value: undefined });
        return Promise.resolve({ done: true, value: undefined });
      },
      [Symbol.asyncIterator]: () => iterator,
    };
    return iterator;
  }

  #enqueue(event: E): void {
    const reader = this.#readers.shift();
    if (reader !== undefined) {
      reader.resolve({ done: false, value: event });
      return;
    }
    if (this.#queue.length >= this.#capacity) {
      this.#queue.shift();
      this.#pushedOut += 1;
    }
    this.#queue.push(event);
  }

  /** The next of what waits, or null. */
  #take(): E | null {
    if (this.#pushedOut > 0) {
      const count = this.#pushedOut;
      this.#pushedOut = 0;
      if (this.#lost !== null) return this.#lost(count);
    }
    return this.#queue.shift() ?? null;
  }

  #settle(reader: Reader<E>): void {
    const event = this.#take();
    if (event !== null) reader.resolve({ done: false, value: event });
    else if (this.#ended?.error) reader.reject(this.#ended.error);
    else reader.resolve({ done: true, value: undefined });
  }

  #flush(): void {
    this.#flushing = false;
    if (this.#listeners.length === 0 || this.#iterated) return;
    for (let event = this.#take(); event !== null; event = this.#take()) this.#call(event);
    if (this.#ended !== null) this.#call(this.#ended);
  }

  #call(event: E | Ended): void {
    for (const listener of this.#listeners) {
      if (listener.type !== event.type) continue;
      try {
        const result = listener.call(event);
        if (result instanceof Promise) result.catch(this.#onError);
      } catch (error) {
        this.#onError(error);
      }
    }
  }
}
