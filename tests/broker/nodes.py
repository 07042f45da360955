"""A node as far as Redis goes: its link, its feed, and what that told."""

from realtime_communication.broker.redis_feed import Feed

QUICK = {"probe_secs": 0.05, "probe_back_secs": 0.4}


class FedNode:
    """``told`` are messages as (channel, data), ("restored", channels) and "lost", in order."""

    def __init__(self, link, **times):
        self.link = link
        self.told = []
        self.feed = Feed(
            link,
            on_message=lambda channel, data: self.told.append((channel, data)),
            on_restored=lambda channels: self.told.append(("restored", sorted(channels))),
            on_lost=lambda: self.told.append("lost"),
            **(QUICK | times),
        )
        self.parts = (link, self.feed)

    def restored(self):
        """The channels that were without a feed and have it again."""
        return {channel for word in self.told if word[0] == "restored" for channel in word[1]}

    def messages(self):
        """What came, without the rest."""
        return [word for word in self.told if isinstance(word[0], bytes)]
