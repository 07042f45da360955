/**
 * The TypeScript client of `realtime_communication`.
 *
 *     const client = await connect("ws://localhost:8081/ws", { token });
 *     const room = await client.subscribe<{ text: string }>("room:42", { history: 20 });
 *     room.on("message", ({ from, payload }) => console.log(from, payload.text));
 *     await client.publish("room:42", { text: "hello" });
 */

export type { BackoffOptions } from "./backoff.js";
export { Client, connect } from "./client.js";
export type { TokenProvider } from "./credentials.js";
export type { EventOf, EventSource, ListenerOptions, Off, TypeOf } from "./delivery.js";
export type { Bytes, Compression, Format } from "./encoding.js";
export {
  AuthenticationFailed,
  ClientClosed,
  ClientError,
  ConnectionLost,
  type ErrorCode,
  ProtocolViolation,
  QueueFull,
  RequestError,
  RequestTimeout,
} from "./errors.js";
export type * from "./events.js";
export type { ConnectOptions } from "./options.js";
export type { HistoryOptions, PublishOptions, RequestOptions, SendOptions, SubscribeOptions } from "./requests.js";
export { Subscription } from "./subscription.js";
export type { WebSocketConstructor, WebSocketLike } from "./transport.js";
