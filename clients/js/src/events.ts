/** What the application receives: plain values, told apart by `type`. */

/** A place in a topic. Offsets count messages and only compare within one epoch; a new epoch is a lost history. */
export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/** A publication on a topic. `ts` is the server's clock in milliseconds since 1970, `from` a user id. */
export interface Message<T = unknown> {
  readonly type: "message";
  readonly topic: string;
  readonly offset: number;
  readonly ts: number;
  readonly from: string;
  readonly payload: T;
}

/** A message to this user. `offset` counts the messages of the user's inbox. */
export interface DirectMessage<T = unknown> {
  readonly type: "direct";
  readonly offset: number;
  readonly ts: number;
  readonly from: string;
  readonly payload: T;
}

/** The first session of a user came to the topic. `info` is what the user's token tells of its owner. */
export interface Join {
  readonly type: "join";
  readonly topic: string;
  readonly userId: string;
  readonly sessionId: string;
  readonly info?: Readonly<Record<string, unknown>>;
}

/** The last session of a user left the topic. */
export interface Leave {
  readonly type: "leave";
  readonly topic: string;
  readonly userId: string;
  readonly sessionId: string;
}

/**
 * Messages were skipped.
 *
 * `recovered`: they follow now, nothing is missing. Otherwise `missed` of them are lost to this subscription (`history`
 * may still have them). `source` says who skipped: the `server` for a slow connection, the client's full `queue`, or
 * the `offsets` that show a hole nobody announced.
 */
export interface Lagged {
  readonly type: "lagged";
  readonly topic: string;
  readonly missed: number;
  readonly recovered: boolean;
  readonly source: "server" | "queue" | "offsets";
}

/**
 * The subscription lives again after a lost connection.
 *
 * `recovered`: everything sent meanwhile follows, nothing is missing. Otherwise the application should reload its state:
 * `missed` messages are gone, or an unknown number when it is null (the topic's history was lost). The topic of a
 * user's own inbox is `@` and the user id.
 */
export interface Recovered {
  readonly type: "recovered";
  readonly topic: string;
  readonly recovered: boolean;
  readonly missed: number | null;
}

/** What the server says about one connection. Times are in seconds since 1970, null when the credential does not end. */
export interface Session {
  readonly sessionId: string;
  readonly userId: string;
  readonly nodeId: string;
  readonly expiresAt: number | null;
}

/** A connection stands and is authenticated. `reconnected` is false the first time. */
export interface Connected extends Session {
  readonly type: "connected";
  readonly reconnected: boolean;
}

/** The connection is gone; the next attempt follows in `retryInMs`, or never when it is null. */
export interface Disconnected {
  readonly type: "disconnected";
  readonly code: number;
  readonly reason: string;
  readonly retryInMs: number | null;
}

/** The token expires soon (seconds since 1970) and there is no `getToken`: call `client.refresh`. */
export interface TokenExpiring {
  readonly type: "tokenExpiring";
  readonly expiresAt: number | null;
}

/** The server is about to close this connection. The client comes back by itself where `reconnect` says so. */
export interface Closing {
  readonly type: "closing";
  readonly code: number;
  readonly reason: string;
  readonly reconnect: boolean;
  readonly afterMs: number;
}

/** An administrator's word to every connection. */
export interface Announcement {
  readonly type: "announcement";
  readonly ts: number;
  readonly from: string;
  readonly payload: unknown;
}

/** `connecting` until the first connection, `reconnecting` between two, `closed` for good. */
export type ClientState = "connecting" | "open" | "reconnecting" | "closed";

/** `client.state` changed. */
export interface StateChanged {
  readonly type: "state";
  readonly state: ClientState;
}

/** Nothing more comes. `error` is what ended it, null when the application did. */
export interface Ended {
  readonly type: "end";
  readonly error: Error | null;
}

/** Who has a live session now, and who finds the message in the inbox later. */
export interface Delivery {
  readonly delivered: readonly string[];
  readonly offline: readonly string[];
}

/** One message of a topic's cache. */
export interface HistoryMessage<T = unknown> {
  readonly offset: number;
  readonly ts: number;
  readonly from: string;
  readonly payload: T;
}

/** A part of a topic's cache. `position` is where the topic stands now, not the end of the page. */
export interface HistoryPage<T = unknown> {
  readonly topic: string;
  readonly position: Position;
  readonly messages: readonly HistoryMessage<T>[];
}

/** One session on a topic. `joinedAt` is in milliseconds since 1970. */
export interface Member {
  readonly userId: string;
  readonly sessionId: string;
  readonly joinedAt: number;
  readonly info?: Readonly<Record<string, unknown>>;
}

/** Who is on a topic. */
export interface PresenceState {
  readonly topic: string;
  readonly count: number;
  readonly members: readonly Member[];
}

export type SubscriptionEvent<T = unknown> = Message<T> | Join | Leave | Lagged | Recovered;
export type InboxEvent<T = unknown> = DirectMessage<T> | Lagged | Recovered;
export type ConnectionEvent =
  | Connected
  | Disconnected
  | Recovered
  | TokenExpiring
  | Closing
  | Announcement
  | StateChanged;
