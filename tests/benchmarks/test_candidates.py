"""The servers that are measured: what each lacks on a machine, and how that is reported."""

from pathlib import Path

import msgspec
import pytest

from benchmarks import figures, prepare, tables
from benchmarks.candidates import CANDIDATES, PRODUCT, Candidate, Need
from benchmarks.generator import Generator, GeneratorError
from benchmarks.measure import Plan, Session
from benchmarks.results import Results
from benchmarks.servers import running
from benchmarks.setting import go_version, output, setting

ABSENT = Candidate(
    "absent",
    "a server that is not here",
    "text",
    ("no-such-command", "{port}"),
    frozenset({"fanout", "idle"}),
    needs=(Need("no-such-command", "no-such-command is not installed"), Need("sh", "there is no shell")),
)


def measured_with(*candidates: Candidate, folder: Path) -> Results:
    """A measurement without rounds: the servers are started and nothing is asked of them."""
    results = Results()
    plan = Plan(0, 0.1, (figures.fanout(1),), figures.idle(1), 0.0, (), candidates)
    Session(plan, results, Generator(), folder / "tokens", 0).run()
    return results


class TestMissing:
    def test_only_what_is_not_there_is_named(self) -> None:
        assert ABSENT.missing() == "no-such-command is not installed"

    def test_a_folder_or_a_command_is_enough(self, tmp_path: Path) -> None:
        assert Need(str(tmp_path), "").is_there()
        assert Need("sh", "").is_there()
        assert not Need(str(tmp_path / "nothing"), "").is_there()

    def test_a_server_that_lacks_something_is_not_started_and_no_failure(self, tmp_path: Path) -> None:
        results = measured_with(ABSENT, folder=tmp_path)
        assert results.missing == {"absent": "no-such-command is not installed"}
        assert results.not_started == {}
        assert results.idle == {}

    def test_the_report_says_what_is_missing(self) -> None:
        results = Results()
        results.missing["absent"] = "no-such-command is not installed"
        text = tables.document([ABSENT], [figures.fanout(1)], None, results)
        assert "a server that is not here: not available, no-such-command is not installed." in text

    def test_its_version_is_not_asked_for(self) -> None:
        (server,) = setting([ABSENT], [], 1, 1.0).servers
        assert server.version == ""


class TestEachOne:
    def test_names_are_told_apart(self) -> None:
        assert len({candidate.name for candidate in CANDIDATES}) == len(CANDIDATES)

    def test_the_load_generator_knows_the_protocol(self, tmp_path: Path) -> None:
        prepare.compiled_parts(tmp_path)
        generator = Generator(tmp_path / "load")
        for protocol in {candidate.protocol for candidate in CANDIDATES}:
            with pytest.raises(GeneratorError, match="--mode and --port are needed"):
                generator.run(f"--protocol={protocol}")
        with pytest.raises(GeneratorError, match="no such protocol: telnet"):
            generator.run("--protocol=telnet")

    def test_peers_relay_messages_as_long_as_an_envelope_unless_they_have_a_protocol(self) -> None:
        lengths = {
            candidate.name: next(
                int(argument.removeprefix("--message-bytes="))
                for argument in figures.fanout(1).arguments(candidate, 1.0, 1.0)
                if argument.startswith("--message-bytes=")
            )
            for candidate in CANDIDATES
        }
        assert lengths["ws"] == lengths["limit"] == len(figures.SAMPLE_ENVELOPE)
        assert lengths["nats"] == lengths["centrifugo"] == lengths["socketio"] == lengths[PRODUCT] == 100


def test_the_port_and_the_environment_reach_the_server(tmp_path: Path) -> None:
    """A server that listens on the port of its configuration and writes down a variable."""
    script = tmp_path / "server.py"
    seen = tmp_path / "seen"
    script.write_text(
        "import os, socket, sys, time\n"
        f"open({str(seen)!r}, 'w').write(os.environ['OF_ITS_OWN'])\n"
        "port = int(open(sys.argv[1]).read().partition('=')[2])\n"
        "server = socket.create_server(('127.0.0.1', port))\n"
        "time.sleep(60)\n"
    )
    candidate = msgspec.structs.replace(
        ABSENT,
        command=("python3", str(script), "{config}"),
        configuration="port = @PORT@",
        environment=(("OF_ITS_OWN", "value"),),
    )
    with running(candidate, 0):
        assert seen.read_text() == "value"


def test_a_command_that_is_not_there_prints_nothing() -> None:
    assert output("no-such-command") == ""
    assert go_version("no-such-program") == ""


def test_figures_of_a_round_are_in_the_order_they_build_on() -> None:
    shuffled = [figures.load(40), figures.connect(5), figures.spread(10), figures.load(5), figures.fanout(1)]
    keys = [figure.key for figure in sorted(shuffled, key=figures.order)]
    assert keys == ["fanout-1", "subscribers-10", "connect", "latency-5", "latency-40"]
