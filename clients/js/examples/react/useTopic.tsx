/**
 * A topic as React state: the last messages, in order, over lost connections.
 *
 * A client has one subscription of a topic, so use the hook once for each topic and hand its result down.
 */

import { type ReactElement, useCallback, useEffect, useState } from "react";
import type { Client, Message } from "realtime-communication-client";

export interface TopicState<T> {
  readonly messages: readonly Message<T>[];
  /** Some messages are missing: the connection was away for longer than the server remembers. */
  readonly hasGap: boolean;
  /** Why there is no subscription, or no longer. */
  readonly error: Error | null;
  readonly publish: (payload: T) => Promise<void>;
}

export function useTopic<T>(client: Client, topic: string, history = 50, keep = 500): TopicState<T> {
  const [messages, setMessages] = useState<readonly Message<T>[]>([]);
  const [hasGap, setHasGap] = useState(false);
  const [error, setError] = useState<Error | null>(null);

  useEffect(() => {
    const controller = new AbortController();
    const { signal } = controller;
    setMessages([]);
    setHasGap(false);
    setError(null);
    client.subscribe<T>(topic, { history, signal }).then(
      (room) => {
        room.on("message", (message) => setMessages((before) => [...before, message].slice(-keep)), { signal });
        room.on("lagged", ({ recovered }) => setHasGap((before) => before || !recovered), { signal });
        room.on("recovered", ({ recovered }) => setHasGap((before) => before || !recovered), { signal });
        room.on("end", ({ error: reason }) => setError(reason), { signal });
      },
      (reason: unknown) => {
        if (!signal.aborted) setError(reason instanceof Error ? reason : new Error(String(reason)));
      },
    );
    return () => controller.abort(); // ends the subscription, or the attempt
  }, [client, topic, history, keep]);

  const publish = useCallback(
    async (payload: T): Promise<void> => {
      await client.publish(topic, payload);
    },
    [client, topic],
  );
  return { messages, hasGap, error, publish };
}

/** The hook at work. */
export function Room({ client, name }: { readonly client: Client; readonly name: string }): ReactElement {
  const { messages, hasGap, error, publish } = useTopic<{ readonly text: string }>(client, `room:${name}`);
  const [text, setText] = useState("");
  if (error !== null) return <p role="alert">{error.message}</p>;
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        void publish({ text }).then(() => setText(""));
      }}
    >
      {hasGap && <p role="status">Some messages are missing.</p>}
      <ol>
        {messages.map(({ offset, from, payload }) => (
          <li key={offset}>
            {from}: {payload.text}
          </li>
        ))}
      </ol>
      <input value={text} onChange={(event) => setText(event.target.value)} />
    </form>
  );
}
