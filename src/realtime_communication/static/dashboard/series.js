// Overviews, one a second, as the series that charts draw: counters become rates.

export const KEPT = 600; // seconds

const COUNTERS = {
  publications: "publications",
  deliveries: "deliveries",
  requests: "requests",
  received: "bytes_received",
  sent: "bytes_sent",
  opened: "upgraded",
  closed: "closed",
  limited: "rate_limited",
  backpressure: "backpressure",
  dropped: "dropped",
  lagged: "lagged",
};
const NAMES = [...Object.keys(COUNTERS), "connections", "queued", "p50", "p90", "p99", "cpu", "memory"];

export class Series {
  constructor() {
    this.times = []; // seconds since 1970
    this.values = Object.fromEntries(NAMES.map((name) => [name, []]));
    this.before = null;
    this.topicRates = new Map();
    this.workerRates = new Map();
  }

  /** Take an overview. */
  add(now) {
    const before = this.before?.node_id === now.node_id ? this.before : null;
    const secs = before ? (now.at - before.at) / 1000 : 0;
    const since = (get) => (secs > 0 ? Math.max(0, (get(now) - get(before)) / secs) : null);
    const row = {
      connections: now.connections,
      queued: now.queued,
      p50: now.latency.p50,
      p90: now.latency.p90,
      p99: now.latency.p99,
      cpu: since((each) => each.cpu_secs),
      memory: now.rss_bytes,
    };
    for (const [name, counter] of Object.entries(COUNTERS)) row[name] = since((each) => each.hub[counter] ?? 0);
    // A gap in time is a gap in the picture.
    if (before && secs > 5) this.#push((before.at + 1000) / 1000, {});
    this.#push(now.at / 1000, row);
    this.topicRates = rates(before?.topics, now.topics, (each) => each.topic, secs, ["offset"]);
    this.workerRates = rates(before?.per_worker, now.per_worker, (each) => each.worker, secs, ["publications", "deliveries", "cpu_secs"]);
    this.before = now;
  }

  last(name) {
    return this.values[name].at(-1) ?? null;
  }

  #push(time, row) {
    this.times.push(time);
    for (const name of NAMES) this.values[name].push(row[name] ?? null);
    if (this.times.length > KEPT) {
      this.times.shift();
      for (const name of NAMES) this.values[name].shift();
    }
  }
}

/** What some counters of each row grew by, per second, by the row's key. */
function rates(before, now, key, secs, counters) {
  const old = new Map((before ?? []).map((row) => [key(row), row]));
  const made = new Map();
  for (const row of now) {
    const earlier = old.get(key(row));
    if (!earlier || secs <= 0) continue;
    made.set(key(row), Object.fromEntries(counters.map((name) => [name, Math.max(0, (row[name] - earlier[name]) / secs)])));
  }
  return made;
}
