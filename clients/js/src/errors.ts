/**
 * Everything the client throws on purpose, in one tree. `code` is stable and meant for programs, `message` for people.
 *
 *     ClientError
 *     ├── RequestError          the server answered with `Error`; `code` is the server's
 *     ├── RequestTimeout        "timeout": no answer in time
 *     ├── QueueFull             "queue_full": too many requests wait for their answers
 *     ├── ConnectionLost        "connection_lost": the connection ended, and this client does not open another
 *     ├── AuthenticationFailed  the credentials were refused, or no fresh ones could be had
 *     ├── ClientClosed          "closed": used after it was closed
 *     └── ProtocolViolation     "protocol_violation": the server sent what rtc.v1 does not allow
 *
 * A wrong argument throws the usual TypeError or RangeError before anything is sent. A request that is aborted rejects
 * with the signal's reason.
 */

/** The error codes of rtc.v1. A later server may know more. */
export type ErrorCode =
  | "bad_request"
  | "unauthorized"
  | "forbidden"
  | "token_expired"
  | "topic_invalid"
  | "not_subscribed"
  | "rate_limited"
  | "backpressure"
  | "too_many_targets"
  | "too_large"
  | "unsupported"
  | "unavailable"
  | "internal"
  | (string & {});

/** Base of all errors of this client. */
export class ClientError extends Error {
  override readonly name: string = "ClientError";
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The server refused a request. */
export class RequestError extends ClientError {
  override readonly name = "RequestError";
  /** When it is worth trying again, where the server knows. */
  readonly retryAfterMs: number | null;
  /** Whose limit it was: `connection`, `user` or `global`. */
  readonly scope: string | null;

  constructor(code: ErrorCode, message: string, retryAfterMs: number | null = null, scope: string | null = null) {
    super(code, message ? `${code}: ${message}` : code);
    this.retryAfterMs = retryAfterMs;
    this.scope = scope;
  }
}

/**
 * No answer came in time. Whether the request had its effect is not known; repeating `publish` or `send` with the same
 * `idempotencyKey` is safe.
 */
export class RequestTimeout extends ClientError {
  override readonly name = "RequestTimeout";

  constructor(message: string) {
    super("timeout", message);
  }
}

/** More requests wait for their answers than `maxPending` or `maxPendingBytes` allow. Nothing was sent. */
export class QueueFull extends ClientError {
  override readonly name = "QueueFull";

  constructor(message: string) {
    super("queue_full", message);
  }
}

/** The connection is gone. `closeCode` is 1006 when there was none, `reason` the server's words. */
export class ConnectionLost extends ClientError {
  override readonly name = "ConnectionLost";
  readonly closeCode: number;
  readonly reason: string;

  constructor(message: string, closeCode = 1006, reason = "", options?: ErrorOptions) {
    super("connection_lost", message, options);
    this.closeCode = closeCode;
    this.reason = reason;
  }
}

/** The server does not accept the credentials. Throw it in `getToken` when there will be no token any more. */
export class AuthenticationFailed extends ClientError {
  override readonly name = "AuthenticationFailed";

  constructor(message: string, code: ErrorCode = "unauthorized") {
    super(code, message);
  }
}

/** The client is closed. */
export class ClientClosed extends ClientError {
  override readonly name = "ClientClosed";

  constructor(message = "the client is closed") {
    super("closed", message);
  }
}

/** The server sent something that is not rtc.v1. */
export class ProtocolViolation extends ClientError {
  override readonly name = "ProtocolViolation";

  constructor(message: string, options?: ErrorOptions) {
    super("protocol_violation", message, options);
  }
}
