"""The performance page and what its plots show, from results that a test makes."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from benchmarks import charts, colours, figures, measurements, performance
from benchmarks.candidates import CANDIDATES, LIMIT, PRODUCT, UWEBSOCKETS
from benchmarks.charts import Chart
from benchmarks.driver import Row, Rows, not_available
from benchmarks.generator import Report
from benchmarks.measurements import Measurements, UnusableError
from benchmarks.results import Idle, Results
from benchmarks.setting import Machine, Server, Setting

MACHINE = Machine("Some Processor", 2, 8 * 2**30, "Linux 6.1", "Some System 12")
SERVERS = [
    Server(LIMIT, "bare C loop", ""),
    Server(PRODUCT, "**this build**", "realtime_communication 0.1.0"),
    Server(UWEBSOCKETS, "uWebSockets (C++), `publish`", "socketify 0.0.31"),
    Server("nats", "NATS over WebSocket", ""),
]
FIGURES = [
    *figures.CURVES["inflight"],
    figures.spread(10),
    figures.connect(5000),
    figures.ECHO,
    *figures.CURVES["load"][1:],
    figures.idle(10_000),
    *figures.CURVES["memory"],
]


def report(deliveries: int = 1000, **more: object) -> Report:
    values: dict[str, object] = {
        "mode": "fanout",
        "connections": 1000,
        "connect_seconds": 0.5,
        "seconds": 2.0,
        "deliveries": deliveries,
        "publications": 100,
        "bytes": 195 * deliveries,
        "received": 199 * deliveries,
        "offered": 0.0,
        "server_user": 0.25,
        "server_system": 0.75,
        "server_cpu": 1.0,
        "gaps": 0,
        "duplicates": 0,
        "disorder": 0,
        "lost": 0,
        "errors": 0,
        "stalled": False,
        "first_error": "",
    }
    return msgspec.convert(values | more, Report)


def a_setting(**more: object) -> Setting:
    setting = Setting("2031-05-04", MACHINE, 2, 1.0, SERVERS, FIGURES)
    return msgspec.structs.replace(setting, **more)


def full_results() -> Results:
    """Of everything but NATS, which is missing; uWebSockets does not keep up with the loads above its own."""
    results = Results()
    for factor, name in enumerate((LIMIT, PRODUCT, UWEBSOCKETS), 1):
        for number in (0, 1):
            for figure in FIGURES:
                if figure.kind == "latency":
                    late = name == UWEBSOCKETS and figure.percent > 80
                    taken = report(
                        publications=10 if late else 100,
                        offered=50.0,
                        p50_us=10.0 * factor + number,
                        p99_us=20.0 * factor,
                        p999_us=30.0 * factor,
                    )
                    results.add_report(figure.key, name, number, taken)
                elif figure.kind != "idle":
                    results.add_report(figure.key, name, number, report(100_000 // factor + number * 1000))
        held = report(mode="idle", connections=10_000, seconds=30.0, deliveries=0, received=0)
        results.idle[name] = Idle(held, 50 * 2**20, 60 * 2**20)
        results.memory[name] = [
            Idle(report(mode="idle", connections=count, deliveries=0), 50 * 2**20, 50 * 2**20 + count * 1024 * factor)
            for count in figures.CURVE_CONNECTIONS
        ]
    results.missing["nats"] = "nats-server could not be installed"
    results.foreign_share = 0.034
    return results


def write(path: Path, results: Results, setting: Setting | None = None) -> Path:
    path.write_bytes(results.as_json(setting or a_setting()))
    return path


@pytest.fixture
def measured(tmp_path: Path) -> Measurements:
    cluster = tmp_path / "cluster.json"
    rows = [Row("workers: two beside one", [1.5, 1.75, 1.6]), *not_available(["redis"], "there is no redis-server")]
    cluster.write_bytes(msgspec.json.encode(Rows("Several workers", rows, 0.04)))
    return measurements.read([write(tmp_path / "run.json", full_results()), cluster])


def section(page: str, title: str) -> str:
    (found,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    return str(found)


class TestReading:
    def test_rounds_of_several_files_count_together(self, tmp_path: Path) -> None:
        first, second = Results(), Results()
        first.add_report("fanout-1", PRODUCT, 0, report(100))
        second.add_report("fanout-1", PRODUCT, 0, report(300))
        both = measurements.read([write(tmp_path / "a", first), write(tmp_path / "b", second)])
        spread = both.results.spread(figures.fanout(1), PRODUCT)
        assert spread is not None
        assert (spread.least, spread.middle, spread.most) == (50, 100, 150)

    def test_files_of_two_machines_are_refused(self, tmp_path: Path) -> None:
        other = a_setting(machine=msgspec.structs.replace(MACHINE, cores=64))
        paths = [write(tmp_path / "a", Results()), write(tmp_path / "b", Results(), other)]
        with pytest.raises(UnusableError, match="2 machines"):
            measurements.read(paths)

    @pytest.mark.parametrize("text", ["", "{}", '{"runs": []}', '{"rows": []}', '[{"figure": 1}]'])
    def test_another_file_is_refused_by_name(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "other.json"
        path.write_text(text)
        with pytest.raises(UnusableError, match=r"other\.json"):
            measurements.read([path])

    def test_a_file_of_rows_alone_is_no_page(self, tmp_path: Path) -> None:
        path = tmp_path / "cluster.json"
        path.write_bytes(msgspec.json.encode(Rows("Several workers", [], 0.0)))
        with pytest.raises(UnusableError, match="benchmarks/run"):
            measurements.read([path])


class TestPage:
    def test_it_says_where_and_how_long_was_measured(self, measured: Measurements) -> None:
        text = section(performance.page(measured, []), "Machine")
        for row in (
            "| measured on | 2031-05-04 |",
            "| rounds | 2 with runs of 1 s |",
            "| processor | Some Processor, 2 cores |",
            "| memory | 8.0 GiB |",
            "| other programs took | 3% of the two cores |",
        ):
            assert row in text

    def test_cells_have_median_least_and_most(self, measured: Measurements) -> None:
        text = section(performance.page(measured, []), "Fan-out over publications in flight")
        assert "| bare C loop | 50,200 (50,000 – 50,500) |" in text

    def test_what_is_missing_is_said(self, measured: Measurements) -> None:
        page = performance.page(measured, [])
        assert "not available: nats-server could not be installed" in section(page, "Servers")
        measured = msgspec.structs.replace(measured, results=Results())
        assert section(performance.page(measured, []), "Fan-out over subscribers").strip() == "Not measured."
        assert "NATS" not in section(page, "Latency over load")

    def test_nothing_measured_is_no_figure(self, tmp_path: Path) -> None:
        empty = measurements.read([write(tmp_path / "run.json", Results(), a_setting(figures=[]))])
        page = performance.page(empty, charts.charts(empty))
        assert charts.charts(empty) == []
        for title in ("Latency over load", "Memory over connections", "Connections opened", "Idle connections"):
            assert section(page, title).strip() == "Not measured."
        assert "![" not in page

    def test_a_server_that_did_not_keep_up_has_no_latency(self, measured: Measurements) -> None:
        text = section(performance.page(measured, []), "Latency over load")
        (row,) = [line for line in text.splitlines() if line.startswith("| 160 %") and "uWebSockets" in line]
        assert row.count("did not keep up") == 3
        assert "50,000" in row

    def test_bytes_of_a_delivery_are_what_arrived(self, measured: Measurements) -> None:
        assert "| bare C loop | of this tree | 199 (199 – 199) |" in section(performance.page(measured, []), "Servers")

    def test_rows_of_other_programs(self, measured: Measurements) -> None:
        text = section(performance.page(measured, []), "Several workers")
        assert "other programs took 4% of the two cores" in text
        assert "| workers: two beside one | 1.60 (1.50 – 1.75) |" in text
        assert "| redis | not available: there is no redis-server |" in text

    def test_unsound_runs_are_listed_and_count_nowhere(self, tmp_path: Path) -> None:
        results = Results()
        results.add_report("fanout-1", PRODUCT, 0, report(10**9, lost=3))
        measured = measurements.read([write(tmp_path / "run.json", results)])
        page = performance.page(measured, charts.charts(measured))
        assert "* product, fanout-1: lost 3" in section(page, "Soundness")
        assert "500,000,000" not in page


class TestCharts:
    def test_there_is_one_for_each_series(self, measured: Measurements) -> None:
        assert [chart.name for chart in charts.charts(measured)] == ["throughput", "latency", "memory", "connects"]

    def test_throughput_goes_over_what_is_in_flight(self, measured: Measurements) -> None:
        (panel,) = named(measured, "throughput").panels
        line = next(line for line in panel.lines if line.server == LIMIT)
        assert [point.x for point in line.points] == [1, 4, 16, 64, 256, 1024]
        assert line.points[0].y.least == 50

    def test_a_load_that_was_too_much_is_no_point(self, measured: Measurements) -> None:
        for panel in named(measured, "latency").panels:
            ends = {line.server: line.points[-1].x for line in panel.lines}
            assert ends == {LIMIT: 160, PRODUCT: 160, UWEBSOCKETS: 80}

    def test_memory_is_that_of_the_process(self, measured: Measurements) -> None:
        (panel,) = named(measured, "memory").panels
        line = next(line for line in panel.lines if line.server == PRODUCT)
        assert line.points[-1].y.middle == pytest.approx(50 + 10_000 * 2 / 1024)

    def test_alternative_texts_have_the_values(self, measured: Measurements) -> None:
        for chart in charts.charts(measured):
            assert "this build" in chart.alt
            assert re.search(r"\d", chart.alt)
            assert not re.search(r"[\]\[*`\n]", chart.alt)


def named(measured: Measurements, name: str) -> Chart:
    (found,) = [chart for chart in charts.charts(measured) if chart.name == name]
    return found


class TestWriting:
    def test_the_page_links_what_is_written_and_old_pictures_go(self, measured: Measurements, tmp_path: Path) -> None:
        docs = tmp_path / "docs"
        (docs / "performance").mkdir(parents=True)
        (docs / "performance" / "old.svg").touch()
        written = performance.write(measured, docs, lambda chart: chart.name.encode())
        linked = re.findall(r"\]\((performance/[^)]+)\)", (docs / "performance.md").read_text())
        assert [docs / path for path in linked] == [path for path in written if path.suffix == ".svg"]
        assert not (docs / "performance" / "old.svg").exists()

    def test_the_same_files_give_the_same_page(self, measured: Measurements) -> None:
        assert performance.page(measured, charts.charts(measured)) == performance.page(
            measured, charts.charts(measured)
        )


class TestColours:
    @pytest.mark.parametrize("page", [colours.LIGHT_PAGE, colours.DARK_PAGE])
    def test_lines_and_letters_stand_out_on_a_light_page_and_on_a_dark_one(self, page: str) -> None:
        for colour, _, _ in colours.STYLES.values():
            assert colours.contrast(colour, page) >= 3  # WCAG 2.2, 1.4.11, for graphics
        assert colours.contrast(colours.TEXT, page) >= 3.9

    def test_every_server_has_a_style_of_its_own(self) -> None:
        assert set(colours.STYLES) == {candidate.name for candidate in CANDIDATES}
        assert len(set(colours.STYLES.values())) == len(colours.STYLES)

    def test_black_on_white_is_the_strongest_contrast(self) -> None:
        assert colours.contrast("#000000", "#ffffff") == pytest.approx(21)


def test_the_results_file_says_where_it_was_measured(tmp_path: Path) -> None:
    document = json.loads(write(tmp_path / "run.json", full_results()).read_text())
    assert document["setting"]["machine"]["processor"] == "Some Processor"
    assert document["missing"] == {"nats": "nats-server could not be installed"}
