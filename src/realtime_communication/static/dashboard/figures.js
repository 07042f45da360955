// Numbers as people read them.

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const oneDigit = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
export const NONE = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** 12,345; 1.2M from a million on. */
export const count = (value) => (!known(value) ? NONE : Math.abs(value) >= 1e6 ? short.format(value) : plain.format(value));

/** Per second: one digit behind the point when it is small. */
export const rate = (value) =>
  !known(value) ? NONE : value > 0 && value < 10 ? oneDigit.format(value) : value >= 1e5 ? short.format(value) : plain.format(value);

export function bytes(value) {
  if (!known(value)) return NONE;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1000 || unit === "GiB") return `${value < 10 && unit !== "B" ? value.toFixed(1) : Math.round(value)} ${unit}`;
    value /= 1024;
  }
}

/** Seconds, from microseconds up. */
export function seconds(value) {
  if (!known(value)) return NONE;
  if (value < 1e-3) return `${digits(value * 1e6)} µs`;
  if (value < 1) return `${digits(value * 1e3)} ms`;
  return `${digits(value)} s`;
}

const digits = (value) => (value < 10 ? value.toFixed(1) : Math.round(value).toString());

export const percent = (value) => (known(value) ? `${Math.round(value * 100)} %` : NONE);

/** How long, in the two largest units. */
export function duration(secs) {
  if (!known(secs)) return NONE;
  const whole = Math.floor(secs);
  const parts = [
    [Math.floor(whole / 86400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "m"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([value]) => value > 0);
  if (first < 0) return "0 s";
  return parts
    .slice(first, first + 2)
    .filter(([value], index) => value > 0 || index === 0)
    .map(([value, unit]) => `${value} ${unit}`)
    .join(" ");
}

/** The time of day of milliseconds since 1970. */
export const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });

export const moment = (ms) => new Date(ms).toLocaleString([], { hour12: false });
