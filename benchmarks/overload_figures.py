"""More than the server can do. `benchmarks/overload` prepares the environment and runs this.

Measures what one server on one core delivers a second, then offers a multiple of it for a minute and shows what was
delivered, what was shed and by which means, how the rest of the server answered meanwhile, and how soon it was as
before. Exit status 1: a bound was broken, and which.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from . import probes
from .driver import Driver, Unsound, conclude, figures_parser
from .generator import Generator, GeneratorError
from .machine import Watch, allow_many_files, processor
from .measure import say, two_cores
from .overload import POLICIES, Capacity, Outcome, Plan, capacity_of, overload
from .servers import StartError

MIB = 1024 * 1024
FAN_OUT_SECS = 2.0
USUAL_POLICIES = ("limits", "backpressure", "drop_oldest")
REFUSALS = {200, 503}
"""What may be answered to a request meanwhile; 101 where a place was free."""


class Bounds(msgspec.Struct, frozen=True):
    """What breaks a run."""

    goodput: float = 0.75
    """Of the capacity, at least. `limits` lets in no more than nine tenths of it."""
    growth: int = 512 * MIB
    """Of memory above what it usually is."""


class Result(msgspec.Struct):
    """Of all runs, as `--json` writes it."""

    measured_at: str
    machine: str
    plan: Plan
    bounds: Bounds
    outcomes: list[Outcome] = []
    foreign_share: float = 0.0
    broken: list[str] = []


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    plan, bounds = Plan(), Bounds()
    parser = figures_parser("benchmarks/overload", __doc__, POLICIES)
    parser.set_defaults(only=list(USUAL_POLICIES))
    parser.add_argument("--multiple", type=float, default=plan.multiple, help=f"of the capacity ({plan.multiple:g})")
    parser.add_argument("--seconds", type=float, default=plan.seconds, help=f"of overload ({plan.seconds:g})")
    parser.add_argument("--before", type=float, default=plan.before, help=f"seconds at three tenths ({plan.before:g})")
    parser.add_argument("--after", type=float, default=plan.after, help=f"seconds likewise, behind ({plan.after:g})")
    parser.add_argument("--subscribers", type=int, default=plan.subscribers, help=f"that read ({plan.subscribers})")
    parser.add_argument("--slow", type=int, default=plan.slow, help=f"that do not meanwhile ({plan.slow})")
    parser.add_argument("--publishers", type=int, default=plan.publishers, help=f"({plan.publishers})")
    parser.add_argument("--goodput-bound", type=float, default=bounds.goodput, help=f"at least ({bounds.goodput})")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, result: Result, cores: tuple[int, int]) -> None:
    """Fills in the outcomes. Raises Unsound, GeneratorError, StartError."""
    plan = result.plan
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        driver = Driver(Path(folder), Generator(core=cores[1]), plan.clients, min(FAN_OUT_SECS, plan.seconds))
        for policy in options.only:
            say(f"{policy}: capacity")
            capacity = capacity_of(driver, cores[0], plan)
            say(f"{policy}: {plan.multiple:g} × {capacity.deliveries:,.0f} deliveries/s for {plan.seconds:g} s")
            driver.new_tokens()
            result.outcomes.append(overload(driver, cores[0], policy, plan, capacity))


def broken(outcome: Outcome, bounds: Bounds) -> list[str]:
    """The bounds that it broke."""
    name, shed = outcome.policy, outcome.shedding
    found = []
    if outcome.violations:
        found.append(f"{name}: violations of order, once or completeness: {outcome.problems}")
    if shed.told != shed.missing:
        found.append(f"{name}: Lagged told of {shed.told:,} missing deliveries, and {shed.missing:,} were")
    if outcome.goodput < bounds.goodput:
        found.append(f"{name}: {outcome.goodput:.2f} of the capacity was delivered, less than {bounds.goodput:g}")
    if (growth := outcome.peak_rss - outcome.usual_rss) > bounds.growth:
        found.append(f"{name}: memory grew by {growth / MIB:,.0f} MiB, more than {bounds.growth / MIB:,.0f}")
    if outcome.p50_back_secs is None or outcome.p99_back_secs is None:
        found.append(f"{name}: latency was not as before until the end")
    for each in outcome.answers:
        allowed = REFUSALS | {101} if 101 in each.statuses else REFUSALS
        if each.failures or set(each.statuses) - allowed or not each.statuses:
            found.append(f"{name}: {each.what}: {each.failures} without an answer, {each.statuses}")
    return found


def microseconds(value: float | None) -> str:
    return "–" if value is None else f"{value / 1000:,.2f}"


def seconds(value: float | None) -> str:
    return "not until the end" if value is None else f"{value:.1f}"


def capacity_cell(capacity: Capacity) -> str:
    return f"{capacity.deliveries:,.0f} ({capacity.publications:,.0f} publications)"


ROWS: Sequence[tuple[str, Callable[[Outcome], str]]] = (
    ("capacity, deliveries/s", lambda each: capacity_cell(each.capacity)),
    ("publications that were due ÷ capacity", lambda each: f"{each.offered:.2f}"),
    ("deliveries/s ÷ capacity", lambda each: f"{each.goodput:.2f}"),
    ("CPU of the server, cores", lambda each: f"{each.cpu:.2f}"),
    ("publications acknowledged, whole run", lambda each: f"{each.shedding.acknowledged:,}"),
    ("… refused with `rate_limited`", lambda each: f"{each.shedding.rate_limited:,}"),
    ("… refused with `unavailable`", lambda each: f"{each.shedding.unavailable:,}"),
    ("… refused with `backpressure`", lambda each: f"{each.shedding.backpressure:,}"),
    ("… without an answer, on closed connections", lambda each: f"{each.shedding.unanswered:,}"),
    ("… held back: the socket took nothing", lambda each: f"{each.shedding.held:,}"),
    ("… held back: the publisher was away", lambda each: f"{each.shedding.away:,}"),
    ("publishers closed", lambda each: f"{each.shedding.closed_publishers:,} {each.shedding.why}".rstrip()),
    ("subscribers closed", lambda each: f"{each.shedding.closed_subscribers:,}"),
    ("`Lagged`", lambda each: f"{each.shedding.lagged:,}"),
    ("deliveries missing, and told of", lambda each: f"{each.shedding.missing:,} = {each.shedding.told:,}"),
    ("deliveries late, and told of", lambda each: f"{each.shedding.made_up:,}"),
    ("violations of order, once or completeness", lambda each: f"{each.violations}"),
    ("latency before, p50 / p99, ms", lambda each: latency(each.before.p50_us, each.before.p99_us)),
    ("latency meanwhile, p50 / p99, ms", lambda each: latency(each.meanwhile.p50_us, each.meanwhile.p99_us)),
    ("p50 as before after, s", lambda each: seconds(each.p50_back_secs)),
    ("p99 as before after, s", lambda each: seconds(each.p99_back_secs)),
    ("RSS before / peak, MiB", lambda each: f"{each.usual_rss / MIB:,.0f} / {each.peak_rss / MIB:,.0f}"),
)


def latency(p50_us: float | None, p99_us: float | None) -> str:
    return f"{microseconds(p50_us)} / {microseconds(p99_us)}"


def tables(result: Result) -> str:
    """For people."""
    outcomes = result.outcomes
    lines = [
        f"| figure | {' | '.join(f'`{each.policy}`' for each in outcomes)} |",
        "| --- |" + " --- |" * len(outcomes),
    ]
    lines += [f"| {figure} | {' | '.join(map(of, outcomes))} |" for figure, of in ROWS]
    for each in outcomes:
        lines += ["", f"Answers meanwhile, `{each.policy}`:", "", probes.table(each.answers)]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    options = parse_options(arguments)
    cores = two_cores()
    allow_many_files()
    watch = Watch(cores)
    plan = Plan(
        subscribers=options.subscribers,
        slow=options.slow,
        publishers=options.publishers,
        multiple=options.multiple,
        before=options.before,
        seconds=options.seconds,
        after=options.after,
    )
    bounds = Bounds(goodput=options.goodput_bound)
    result = Result(time.strftime("%Y-%m-%d", time.gmtime()), processor(), plan, bounds)
    try:
        measure(options, result, cores)
    except (GeneratorError, StartError, Unsound) as problem:
        print(f"no figures: {problem}", file=sys.stderr)
        return 1
    result.foreign_share = round(watch.foreign_share(), 3)
    result.broken = [words for outcome in result.outcomes for words in broken(outcome, bounds)]
    return conclude(options, tables(result), result.foreign_share, result, result.broken)


if __name__ == "__main__":
    sys.exit(main())
