"""A hub in plain Python that records what an engine calls, and asks it for things."""

import itertools
import struct

from realtime_communication.broker.redis_frames import split_bodies

TS = struct.Struct("<Q")
NOW_MS = 4_000_000_000_000  # of bodies: later than any clock


def body_of(text, ts=NOW_MS):
    return TS.pack(ts) + text.encode()


def texts(bodies):
    return [body[TS.size :].decode() for body in split_bodies(bodies)]


class RecordingHub:
    """Keeps `calls` (name, arguments) in their order; answers by token in `answers`, what was delivered in `feeds`."""

    def __init__(self):
        self.calls = []
        self.answers = {}
        self.feeds = {}
        self.presence = []
        self.resets = []
        self.lost = self.back = 0
        self.here = False
        self._notify = None
        self._items = []
        self._tokens = itertools.count(1)

    # The engine's side

    def set_upstream(self, notify):
        self._notify = notify

    def take_upstream(self):
        items, self._items = self._items, []
        return items

    def published(self, token, epoch, offset, reached):
        self._answer(token, ("published", epoch, offset, reached))

    def subscribed(self, token, epoch, offset, recovered, first, bodies):
        self._answer(token, ("subscribed", epoch, offset, recovered, first, texts(bodies)))

    def history_page(self, token, epoch, offset, first, bodies):
        self._answer(token, ("page", epoch, offset, first, texts(bodies)))

    def presence_state(self, token, members):
        self._answer(token, ("members", sorted(members)))

    def refuse_waiting(self, token, code, message, retry_ms):
        self._answer(token, ("refused", code, message, retry_ms))

    def deliver_upstream(self, topic, epoch, first, bodies):
        delivered = self.feeds.setdefault(topic, [])
        for number, text in enumerate(texts(bodies)):
            delivered.append((epoch, first + number, text))
        self.calls.append(("deliver", topic))

    def reset_topic(self, topic, epoch, offset):
        self.resets.append((topic, epoch, offset))

    def tell_presence(self, topic, leave, user, session, info):
        self.presence.append((topic, leave, user, session, info))

    def upstream_lost(self):
        self.lost += 1
        self.here = False

    def upstream_back(self):
        self.back += 1
        self.here = True

    def _answer(self, token, answer):
        assert token > 0 and token not in self.answers, (token, answer)
        self.answers[token] = answer
        self.calls.append((answer[0], token))

    # The test's side

    def ask(self, *item):
        self._items.append(item)
        if self._notify is not None:
            self._notify()

    def publish(self, topic, text, key=b"", *, ts=NOW_MS):
        token = next(self._tokens) if self.here else 0
        self.ask("publish", topic, token, body_of(text, ts), key)
        return token

    def subscribe(self, topic, position=None, history=0):
        token = next(self._tokens)
        self.ask("subscribe", topic, token, position, history)
        return token

    def history(self, topic, position=None, limit=100, reverse=False):
        token = next(self._tokens)
        self.ask("history", topic, token, position, limit, reverse)
        return token

    def members(self, topic):
        token = next(self._tokens)
        self.ask("presence", topic, token)
        return token

    def delivered(self, topic):
        return [text for _, _, text in self.feeds.get(topic, ())]
