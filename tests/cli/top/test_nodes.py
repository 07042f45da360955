"""Several nodes, made up."""

from __future__ import annotations

from typing import Any, cast

import pytest

from cli.top.made_up import sample
from realtime_communication.cli.top.nodes import Nodes
from realtime_communication.cli.top.sample import Sample, Sampler
from realtime_communication.cli.top.view import view
from realtime_communication.client.errors import ConnectionLost


class Told:
    """Gives samples, or raises what there is in their place."""

    def __init__(self, *answers: Sample | Exception) -> None:
        self.answers = list(answers)
        self.closed = False

    def take(self) -> Sample:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.closed = True


def nodes(*samplers: Told) -> Nodes:
    return Nodes([(f"http://n{number}:1", cast("Sampler", sampler)) for number, sampler in enumerate(samplers)])


def rows(made: Nodes) -> list[tuple[Any, ...]]:
    found = made.figures("rate")["nodes"]
    return [(row["url"], row["status"], row.get("deliveries"), row["problem"]) for row in found]


def test_one_alone_has_no_table() -> None:
    made = nodes(Told(sample(1, 1), sample(2, 2)))
    made.take()
    assert made.figures("rate")["rates"]["deliveries"] is None
    made.take()
    assert made.figures("rate")["rates"]["deliveries"] == 3.0 and rows(made) == []
    made.close()


def test_others_may_come_and_go() -> None:
    samplers = (
        Told(sample(1, 1), sample(2, 2)),
        Told(ConnectionLost("x"), sample(2, 2)),
        Told(sample(1, 1), ConnectionLost("y")),
    )
    made = nodes(*samplers)
    made.take()
    assert rows(made)[1:] == [("http://n1:1", "unreachable", None, "x"), ("http://n2:1", "degraded", None, None)]
    made.take()
    assert rows(made) == [
        ("http://n0:1", "degraded", 3.0, None),
        ("http://n1:1", "degraded", None, None),
        ("http://n2:1", "unreachable", None, "y"),
    ]
    text = "\n".join(view(made.figures("rate"), "http://n0:1", 100, 60, order="rate", keys=False))
    assert "n2:1" in text and "unreachable" in text
    made.close()
    assert all(sampler.closed for sampler in samplers)


def test_the_first_has_to_answer() -> None:
    made = nodes(Told(ConnectionLost("x")))
    with pytest.raises(ConnectionLost):
        made.take()
    made.close()
