"""Draws the charts as SVG files, without a background and alike every time."""

import io
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from .charts import Chart, Line, Panel
from .colours import TEXT, style

PANEL_INCHES = (4.6, 4.2)
LEGEND_INCHES = 2.4
BAR_INCHES = 0.34

SETTINGS = {
    "svg.hashsalt": "benchmarks",  # the same names inside the file every time
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": TEXT,
    "axes.edgecolor": TEXT,
    "axes.labelcolor": TEXT,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "grid.color": TEXT,
    "grid.alpha": 0.25,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(chart: Chart) -> bytes:
    """The chart as an SVG file."""
    with mpl.rc_context(SETTINGS):
        bars = chart.panels[0].bars
        width, height = PANEL_INCHES[0] * len(chart.panels) + LEGEND_INCHES, PANEL_INCHES[1]
        if bars:
            height = 1.2 + BAR_INCHES * len(chart.panels[0].lines)
        figure = Figure(figsize=(width, height), layout="constrained")
        places = figure.subplots(1, len(chart.panels), squeeze=False)[0]
        for axes, panel in zip(places, chart.panels, strict=True):
            (draw_bars if bars else draw_lines)(axes, panel)
        if not bars:
            legend(figure, chart.panels)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Title": chart.alt})
        return out.getvalue()


def draw_lines(axes: Axes, panel: Panel) -> None:
    for line in panel.lines:
        colour, marker, dash = style(line.server)
        xs = [point.x for point in line.points]
        middles = [point.y.middle for point in line.points]
        below = [point.y.middle - point.y.least for point in line.points]
        above = [point.y.most - point.y.middle for point in line.points]
        axes.errorbar(
            xs,
            middles,
            yerr=[below, above],
            color=colour,
            marker=marker,
            linestyle=dash,
            linewidth=2.4 if line.server == "product" else 1.4,
            markersize=6,
            elinewidth=0.8,
            capsize=2,
            label=line.title,
        )
    name_axes(axes, panel)
    ticks = sorted({point.x for line in panel.lines for point in line.points})
    if panel.log_x:
        axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    if panel.log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    else:
        axes.set_ylim(bottom=0)


def draw_bars(axes: Axes, panel: Panel) -> None:
    lines = sorted(panel.lines, key=lambda line: line.points[0].y.middle)
    values = [line.points[0].y for line in lines]
    axes.barh(
        [line.title for line in lines],
        [value.middle for value in values],
        xerr=[[value.middle - value.least for value in values], [value.most - value.middle for value in values]],
        color=[style(line.server)[0] for line in lines],
        ecolor=TEXT,
        capsize=2,
    )
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    name_axes(axes, panel)


def name_axes(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)


def legend(figure: Figure, panels: Sequence[Panel]) -> None:
    """One for all panels, highest line of the first one first."""
    lines: list[Line] = sorted(panels[0].lines, key=lambda line: -line.points[-1].y.middle)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    titles = [line.title for line in lines]
    figure.legend([by_label[title] for title in titles], titles, loc="outside right upper", frameon=False)
