/** Numbers and times as people read them. Units are decimal: 1 kB is 1,000 bytes. A missing value is a dash. */

export const NONE = "–";
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const PREFIXES = ["", "k", "M", "G", "T", "P", "E"];

const isMissing = (value) => value === null || value === undefined || Number.isNaN(value);

/** Something to show for a value: what `show` makes of it, or a dash. */
const shown = (show) => (value) => (isMissing(value) ? NONE : show(value));

export const count = shown((value) => whole.format(value));
export const percent = shown((value) => `${(100 * value).toFixed(1)} %`);
export const points = shown((value) => `${value > 0 ? "+" : ""}${(100 * value).toFixed(1)}`);
export const decimal = shown((value) => significant(value, 3));
export const times = shown((value) => `${significant(value, 3)}×`);
export const milliseconds = shown((value) => `${significant(value, 3)} ms`);
export const bytes = shown((value) => `${scaled(value)}B`);
export const short = shown((value) => scaled(value).trimEnd());
export const text = shown(String);

/** So many significant digits, and no more zeros than that needs. */
export function significant(value, digits) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(digits - 1).replace(/\.?0+e/, "e").replace("e+", "e");
  return String(Number(value.toPrecision(digits)));
}

function scaled(value) {
  let power = 0;
  let rest = Math.abs(value);
  while (rest >= 999.5 && power < PREFIXES.length - 1) {
    rest /= 1000;
    power += 1;
  }
  const digits = power === 0 ? String(Number(rest.toPrecision(3))) : rest.toPrecision(3);
  return `${value < 0 ? "−" : ""}${digits} ${PREFIXES[power]}`;
}

/** 42 s, 3 min 20 s, 2 h 5 min, 3 d 4 h */
export const duration = shown((seconds) => {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const total = Math.round(seconds);
  if (total < 60) return `${total} s`;
  const [minutes, hours, days] = [Math.floor(total / 60), Math.floor(total / 3600), Math.floor(total / 86400)];
  if (minutes < 60) return `${minutes} min ${total % 60} s`;
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${days} d ${hours % 24} h`;
});

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const year = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** An RFC 3339 time: of today the clock, else the day. */
export const time = shown((rfc3339) => {
  const at = new Date(rfc3339);
  const now = new Date();
  if (at.toDateString() === now.toDateString()) return clock.format(at);
  return (at.getFullYear() === now.getFullYear() ? day : year).format(at);
});

/** Seconds between two RFC 3339 times. */
export function seconds(from, until) {
  return (new Date(until) - new Date(from)) / 1000;
}

/** The first characters of a digest. */
export const shortDigest = shown((sha256) => sha256.slice(0, 12));

/** "1 job", "3 jobs" */
export function plural(number, noun, several = `${noun}s`) {
  return `${count(number)} ${number === 1 ? noun : several}`;
}

/** snake_case as words. */
export function words(name) {
  const spaced = String(name).replaceAll("_", " ");
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}
