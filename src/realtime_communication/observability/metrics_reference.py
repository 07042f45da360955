"""The reference of all metrics as Markdown: `docs/metrics.md` is made with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from realtime_communication.config.metric_names import CUSTOM_METRICS, INBOXES, MAX_LABEL_BYTES, MAX_TOPICS, OTHER
from realtime_communication.config.watching import Prometheus
from realtime_communication.observability.catalogue import GROUPS, WORKERS, MetricRow

_DEFAULT: Final = Prometheus()
_HEAD: Final = f"""\
# Metrics

Every metric, generated from the catalogue by `rtc config metrics`.

They are served on a port of their own, `{_DEFAULT.port}` on the address of `server.host` (`127.0.0.1` when the server
listens on a Unix socket), under `{_DEFAULT.path}`: the text form of Prometheus, or OpenMetrics 1.0 to a scraper that
asks for it. The main port does not serve them. The port needs no credentials, so let only the scraper reach it.

```yaml
scrape_configs:
  - job_name: realtime_communication
    static_configs: [{{targets: ["rtc-1.example.com:{_DEFAULT.port}"]}}]
```

- `[monitoring.prometheus]` (also spelled `[metrics]`) sets port, path, names and buckets. With `enabled = false`, or
  `logging.enable_metrics = false`, there is no port and nothing is measured.
- A name is `namespace`_`subsystem`_*name*, `{_DEFAULT.namespace}_{_DEFAULT.subsystem}_connections` for one; an empty
  part is left out. The names under *Process* are whole.
- What is marked *taken* costs something and is read every `update_interval_secs`; the rest is read at each scrape.
- A port in use ends the server with status 71; in the dev profile it goes on without metrics.
- Histograms have the upper bounds `buckets`, in seconds.
"""

_CUSTOM: Final = f"""\
## Metrics to ask for

Served when `[[monitoring.custom_metrics]]` names them, with the type of this table and the labels wanted of those
offered; without a label a metric is the sum over it. `help` replaces the text.

```toml
[[monitoring.custom_metrics]]
name = "message_latency"
type = "histogram"
help = "Message delivery latency in seconds"
labels = ["message_type", "topic"]
```

Labels have a bound, whatever clients do. The {MAX_TOPICS} topics with the most subscribers have a label `topic` of
their own, the others share `{OTHER}`; all inboxes together are `{INBOXES}`. Which topics these are is decided every
`update_interval_secs`; what was counted for a topic that loses its label is added to `{OTHER}`. Values are cut to
{MAX_LABEL_BYTES} bytes.

`message_latency` comes from samples: under heavy load it is of the newest publications of each interval, not of all.
"""

_WORKERS: Final = """\
## Several workers

With several workers one port speaks for all of them: each scrape asks every worker. Counters and histograms are added
up, and stay when a worker is replaced; gauges are added up too, but for those whose highest or lowest value tells more,
such as `event_loop_lag_seconds`, `draining` (1 when all of them drain) and `redis_up`. Figures under *Process* are
those of all processes together. Beside them there is one series for each worker of these:
"""

_DASHBOARD: Final = f"""\
## Dashboard

`deploy/grafana/realtime_communication.json` shows the most important ones: import it in Grafana (*Dashboards, New,
Import*) and choose the Prometheus data source. Its expressions have the default names. With another `namespace` or
`subsystem` replace the prefix before the import, as Grafana has no variables within the names of metrics:

```bash
sed 's/{_DEFAULT.namespace}_{_DEFAULT.subsystem}_/myteam_chat_/g' deploy/grafana/realtime_communication.json
```

The panel of message latencies needs `message_latency` of the table above.
"""


def markdown() -> str:
    """The reference."""
    parts = [_HEAD]
    for title, rows in GROUPS.items():
        parts.append(f"## {title}\n\n" + _table(("metric", "type", "labels", "meaning"), map(_cells, rows)))
    parts += [_WORKERS, _table(("metric", "type", "labels", "meaning"), map(_cells, WORKERS))]
    custom = ((f"`{spec.name}`", spec.type, _names(spec.labels), spec.help) for spec in CUSTOM_METRICS.values())
    parts += [_CUSTOM, _table(("name", "type", "labels offered", "meaning"), custom), _DASHBOARD]
    return "\n".join(parts)


def _cells(row: MetricRow) -> Iterator[str]:
    yield f"`{row.name}_total`" if row.type == "counter" else f"`{row.name}`"
    yield row.type
    yield _names(row.labels)
    yield row.help + (". *Taken.*" if row.taken else "") + (f" ({row.where})" if row.where else "")


def _names(labels: Iterable[str]) -> str:
    return ", ".join(f"`{label}`" for label in labels)


def _table(head: tuple[str, ...], rows: Iterable[Iterable[str]]) -> str:
    lines = [_line(head), "|" + "---|" * len(head), *map(_line, rows)]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"
