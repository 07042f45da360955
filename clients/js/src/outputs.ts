/** What the protocol hands to whoever drives it: answers, events with their addressee, and things that fall due. */

import type { ServerEnvelope } from "./envelopes.js";
import type { ClientError, RequestError } from "./errors.js";
import type { ConnectionEvent, InboxEvent, Session, SubscriptionEvent } from "./events.js";

export type Output =
  /** The reply to request `id`. */
  | { readonly kind: "answered"; readonly id: number; readonly envelope: ServerEnvelope }
  /** Request `id` will get no reply. */
  | { readonly kind: "failed"; readonly id: number; readonly error: ClientError }
  /** For the subscriber of a topic. */
  | { readonly kind: "topic"; readonly topic: string; readonly event: SubscriptionEvent }
  /** For whoever reads the direct messages. */
  | { readonly kind: "inbox"; readonly event: InboxEvent }
  /** About the connection as a whole. */
  | { readonly kind: "connection"; readonly event: ConnectionEvent }
  /** A connection is open. */
  | { readonly kind: "open"; readonly session: Session; readonly reconnected: boolean }
  /** The server refuses to restore a subscription. */
  | { readonly kind: "ended"; readonly topic: string; readonly error: RequestError }
  /** The token should be replaced now. */
  | { readonly kind: "refresh"; readonly expiresAt: number | null };

export type Emit = (output: Output) => void;
