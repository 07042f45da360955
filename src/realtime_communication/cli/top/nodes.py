"""Several nodes of one system: the one that is shown in full, and a line for each of the others."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence
from typing import Any

from realtime_communication.cli.top.figures import figures, node_row
from realtime_communication.cli.top.sample import Sample, Sampler
from realtime_communication.client.errors import ClientError


class Nodes:
    """Takes samples of all nodes at once. The first one is shown in full: it has to answer, the others need not."""

    def __init__(self, samplers: Sequence[tuple[str, Sampler]]) -> None:
        (self._url, self._first), *self._others = samplers
        self._pool = concurrent.futures.ThreadPoolExecutor(max(1, len(self._others)))
        self._samples: dict[str, tuple[Sample | None, Sample | None]] = {}
        self._problems: dict[str, str | None] = {}

    def take(self) -> None:
        """The next samples. Raises ClientError when the first node does not answer; those so far are kept."""
        asked = [(url, self._pool.submit(sampler.take)) for url, sampler in self._others]
        for url, answer in asked:
            try:
                self._keep(url, answer.result())
            except ClientError as error:
                self._problems[url] = str(error)
        self._keep(self._url, self._first.take())

    def figures(self, order: str) -> dict[str, Any]:
        """What there is to show; without several nodes `nodes` is empty."""
        before, now = self._samples[self._url]
        assert now is not None, "figures before take"
        found = figures(before, now, order)
        if self._others:
            urls = [self._url, *(url for url, _ in self._others)]
            found["nodes"] = [
                node_row(url, *self._samples.get(url, (None, None)), self._problems.get(url)) for url in urls
            ]
        return found

    def close(self) -> None:
        """Close what the samplers have opened themselves."""
        self._pool.shutdown()
        for sampler in (self._first, *(sampler for _, sampler in self._others)):
            sampler.close()

    def _keep(self, url: str, sample: Sample) -> None:
        self._samples[url] = (self._samples.get(url, (None, None))[1], sample)
        self._problems[url] = None
