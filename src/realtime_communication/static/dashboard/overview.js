// The first view: how the whole server is, in tiles, charts and lists.

import { DepthBars, LineChart, Tile } from "./charts.js";
import { byId, card, make, setText } from "./elements.js";
import { NONE, bytes, clock, count, duration, percent, rate, seconds } from "./figures.js";
import { Table } from "./tables.js";

const SPANS = [[60, "Last minute"], [300, "Last 5 minutes"], [600, "Last 10 minutes"]];
const perSecond = (value) => (value === null || value === undefined ? NONE : `${rate(value)}/s`);
const traffic = (value) => (value === null || value === undefined ? NONE : `${bytes(value)}/s`);
const TONES = { closed: "good", half_open: "warn", open: "bad", ok: "good", degraded: "warn", timeout: "bad", failed: "bad" };

export class Overview {
  /** `open` shows a connection. */
  constructor(open) {
    this.root = byId("view-overview");
    this.tiles = {
      connections: new Tile({ title: "Connections", colour: "c1", href: "#connections" }),
      deliveries: new Tile({ title: "Deliveries", colour: "c2", href: "#topics" }),
      p99: new Tile({ title: "Latency, p99", colour: "c5" }),
      queued: new Tile({ title: "Waiting messages", colour: "c3" }),
      cpu: new Tile({ title: "Processor", colour: "c4" }),
      memory: new Tile({ title: "Memory", colour: "c1" }),
    };
    this.charts = charts();
    this.depths = new DepthBars();
    this.workers = workers();
    this.nodes = nodes();
    this.parts = parts();
    this.slowest = slowest(open);
    this.troubles = make("ol", { className: "troubles", tabIndex: 0, "aria-label": "Warnings and errors, newest first" });
    this.noTroubles = make("p", { className: "empty" }, "No warnings and no errors.");
    this.span = make("select", { id: "span" }, ...SPANS.map(([value, text]) => make("option", { value }, text)));
    this.span.value = "300";
    this.span.addEventListener("change", () => this.last && this.#draw());
    this.root.append(
      make("div", { className: "view-head" }, make("h2", {}, "Overview"), make("label", {}, make("span", { className: "hidden" }, "Time shown"), this.span)),
      make("div", { className: "tiles" }, ...Object.values(this.tiles).map((tile) => tile.element)),
      make("div", { className: "grid charts" }, ...this.charts.map((chart) => chart.element)),
      make(
        "div",
        { className: "grid halves" },
        card("Mailbox depths", "Connections by the messages that wait for each", this.depths.element),
        card("Slowest consumers", "What waits for them, most first", this.slowest.element),
        card("Workers", "The processes of this node", this.workers.element),
        card("Nodes", "Joined by Redis", this.nodes.element),
        card("Breakers and dependencies", "What the server leans on", this.parts.element),
        card("Recent warnings and errors", "The newest lines of the log, of all workers", this.troubles, this.noTroubles),
      ),
    );
  }

  update(now, series) {
    this.last = { now, series };
    if (!this.root.hidden) this.#draw();
  }

  show() {
    if (this.last) this.#draw();
  }

  #draw() {
    const { now, series } = this.last;
    const { tiles } = this;
    const latest = (name) => series.last(name);
    tiles.connections.update(count(now.connections), `of ${count(now.max_connections)}; ${count(now.hub.users ?? 0)} users`, series.values.connections);
    tiles.deliveries.update(perSecond(latest("deliveries")), `${perSecond(latest("publications"))} published`, series.values.deliveries);
    tiles.p99.update(seconds(latest("p99")), `half within ${seconds(latest("p50"))}`, series.values.p99);
    tiles.queued.update(count(now.queued), `for ${count(waitingConnections(now))} connections`, series.values.queued);
    tiles.cpu.update(percent(latest("cpu")), `of one core; ${now.per_worker.length} ${now.per_worker.length === 1 ? "worker" : "workers"}`, series.values.cpu);
    tiles.memory.update(bytes(now.rss_bytes), `up ${duration(now.uptime_secs)}`, series.values.memory);
    for (const chart of this.charts) chart.update(series, Number(this.span.value));
    this.depths.update(now.depths);
    this.slowest.update(now.slowest);
    this.workers.update(workerRows(now, series));
    this.nodes.update(now.nodes.map((node) => (node.here ? { ...node, publications: latest("publications"), deliveries: latest("deliveries") } : node)));
    this.parts.update(partRows(now));
    this.#showTroubles(now.troubles);
  }

  #showTroubles(troubles) {
    this.noTroubles.hidden = troubles.length > 0;
    this.troubles.hidden = troubles.length === 0;
    const mark = troubles.map((each) => `${each.at}${each.event}`).join();
    if (mark === this.drawnTroubles) return;
    this.drawnTroubles = mark;
    this.troubles.replaceChildren(...troubles.map(trouble));
  }
}

function charts() {
  return [
    new LineChart({
      title: "Connections", hint: "Open at each moment", format: count,
      lines: [{ of: "connections", label: "open", colour: "c1", filled: true }],
    }),
    new LineChart({
      title: "Messages", hint: "Per second", format: rate,
      lines: [{ of: "deliveries", label: "delivered", colour: "c2", filled: true }, { of: "publications", label: "published", colour: "c5" }],
    }),
    new LineChart({
      title: "Latency", hint: "From a publication to its last write", format: seconds,
      empty: "Nobody has published in the last seconds: there is nothing to time.",
      lines: [{ of: "p50", label: "p50", colour: "c2" }, { of: "p90", label: "p90", colour: "c3" }, { of: "p99", label: "p99", colour: "c4" }],
    }),
    new LineChart({
      title: "Traffic", hint: "Bytes per second", format: bytes,
      lines: [{ of: "sent", label: "sent", colour: "c1", filled: true }, { of: "received", label: "received", colour: "c2" }],
    }),
    new LineChart({
      title: "Coming and going", hint: "Connections per second", format: rate,
      lines: [{ of: "opened", label: "opened", colour: "c2", filled: true }, { of: "closed", label: "closed", colour: "c4" }],
    }),
    new LineChart({
      title: "Held back", hint: "Per second", format: rate,
      lines: [
        { of: "limited", label: "rate limited", colour: "c3" }, { of: "backpressure", label: "backpressure", colour: "c5" },
        { of: "dropped", label: "dropped", colour: "c4" }, { of: "lagged", label: "lagged", colour: "c1" },
      ],
    }),
  ];
}

function workers() {
  return new Table({
    caption: "Workers", empty: "No worker has answered.", key: (row) => row.worker,
    columns: [
      { name: "Worker", value: (row) => row.worker },
      { name: "State", value: (row) => row.state, tone: (value) => (value === "serves" ? "good" : value === "drains" ? "warn" : "bad") },
      { name: "Connections", number: true, value: (row) => row.connections, text: count },
      { name: "Deliveries", number: true, value: (row) => row.deliveries, text: perSecond },
      { name: "Processor", number: true, value: (row) => row.cpu, text: percent },
      { name: "Memory", number: true, value: (row) => row.rss_bytes, text: bytes },
      { name: "Waiting", number: true, value: (row) => row.queued, text: count },
      { name: "Up", number: true, value: (row) => row.uptime_secs, text: duration },
    ],
  });
}

function nodes() {
  return new Table({
    caption: "Nodes", empty: "No node has answered.", key: (row) => row.node_id,
    columns: [
      { name: "Node", value: (row) => row.node_id, text: (value, row) => (row.here ? `${value} (this one)` : value) },
      { name: "State", value: (row) => (row.draining ? "drains" : "serves"), tone: (value) => (value === "serves" ? "good" : "warn") },
      { name: "Workers", number: true, value: (row) => row.workers, text: count },
      { name: "Connections", number: true, value: (row) => row.connections, text: count },
      { name: "Deliveries", number: true, value: (row) => row.deliveries, text: perSecond },
      { name: "Memory", number: true, value: (row) => row.rss_bytes, text: bytes },
      { name: "Version", value: (row) => row.version },
    ],
  });
}

function parts() {
  return new Table({
    caption: "Breakers and dependencies", empty: "There is nothing that the server leans on.", key: (row) => `${row.kind} ${row.name}`,
    columns: [
      { name: "Name", value: (row) => row.name },
      { name: "Kind", value: (row) => row.kind },
      { name: "State", value: (row) => row.state, text: (value) => value.replace("_", " "), tone: (value) => TONES[value] ?? "warn" },
      { name: "Detail", value: (row) => row.detail },
    ],
  });
}

function slowest(open) {
  return new Table({
    caption: "Slowest consumers", empty: "Nothing waits: every consumer keeps up.", key: (row) => row.session_id,
    columns: [
      { name: "User", value: (row) => row.user_id ?? "anonymous", action: open, label: (row) => `Look into the connection of ${row.user_id ?? "somebody anonymous"}` },
      { name: "Waiting", number: true, value: (row) => row.queued + row.replies_queued, text: count },
      { name: "Socket", value: (row) => (row.blocked ? "full" : "takes bytes"), tone: (value) => (value === "full" ? "bad" : "good") },
      { name: "Silent", number: true, value: (row) => row.silent_ms / 1000, text: duration },
      { name: "Address", value: (row) => row.address },
    ],
  });
}

const waitingConnections = (now) => now.depths.slice(1).reduce((sum, row) => sum + row.connections, 0);

function workerRows(now, series) {
  const rows = now.per_worker.map((row) => {
    const rates = series.workerRates.get(row.worker) ?? {};
    return { ...row, state: row.draining ? "drains" : "serves", deliveries: rates.deliveries ?? null, cpu: rates.cpu_secs ?? null };
  });
  for (const worker of now.workers_missing ?? []) rows.push({ worker, state: "no answer" });
  return rows.sort((a, b) => a.worker - b.worker);
}

function partRows(now) {
  const breakers = Object.entries(now.circuit_breakers).map(([name, { state, failures, rejected, retry_in_secs: retry }]) => ({
    name, state, kind: "breaker",
    detail: `${count(failures)} failures, ${count(rejected)} rejected${retry ? `, tries again in ${duration(retry)}` : ""}`,
  }));
  const dependencies = Object.entries(now.dependencies).map(([name, { status, workers: byWorker, ...detail }]) => ({
    name, state: status, kind: "part", detail: detailText(detail),
  }));
  return [...dependencies, ...breakers];
}

function detailText(detail) {
  const running = Object.values(detail).filter((each) => each && typeof each === "object" && "running" in each);
  if (running.length) return `${running.filter((each) => each.running).length} of ${running.length} services run`;
  return Object.entries(detail)
    .filter(([, value]) => value !== null && typeof value !== "object")
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`)
    .join(", ");
}

function trouble(each) {
  const fields = Object.entries(each.fields).map(([name, value]) => `${name}=${value}`);
  return make(
    "li",
    {},
    make("span", { className: "tag", "data-tone": each.level === "error" ? "bad" : "warn" }, each.level),
    make("time", { dateTime: new Date(each.at).toISOString(), className: "faint" }, clock(each.at)),
    make("strong", {}, each.event),
    fields.length || each.stack ? make("code", {}, [...fields, ...(each.stack ?? [])].join("  ")) : null,
  );
}
