/** From numbers to pixels, with ticks where people expect them. */

const NICE = [1, 2, 5, 10];

/** Round numbers from `low` to `high`, about `wanted` of them; `whole`: integers alone. */
export function niceTicks(low, high, wanted = 5, whole = false) {
  const rough = (high - low) / wanted;
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const nice = NICE.map((factor) => factor * power).find((step) => step >= rough * (1 - 1e-9));
  const step = whole ? Math.max(1, Math.round(nice)) : nice;
  const [first, last] = [Math.ceil(low / step - 1e-9), Math.floor(high / step + 1e-9)];
  // 3 * 0.1 is not 0.3 in binary.
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

/** Ticks of a logarithmic axis: 1, 2, 5 of each power of ten; over many powers the powers alone. */
export function logTicks(low, high) {
  const powers = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) powers.push(10 ** power);
  const within = (ticks) => ticks.map((tick) => Number(tick.toPrecision(12))).filter((tick) => tick >= low && tick <= high);
  const fine = within(powers.flatMap((power) => [power, 2 * power, 5 * power]));
  const ticks = fine.length > 7 ? within(powers) : fine;
  return ticks.length < 2 ? niceTicks(low, high, 4) : ticks;
}

/**
 * The scale of an axis {log, whole, bounds} for these values, onto the pixels `from` … `to`: a function with `ticks` and
 * `has(value)`: whether there is a place for it. `bounds`: what values of this kind never leave.
 */
export function scale(axis, values, from, to, wanted) {
  const has = (value) => Number.isFinite(value) && (!axis.log || value > 0);
  const [low, high] = padded(axis, values.filter(has));
  const at = axis.log ? Math.log : (value) => value;
  const share = (value) => (at(value) - at(low)) / (at(high) - at(low));
  const place = (value) => from + share(value) * (to - from);
  place.ticks = axis.log ? logTicks(low, high) : niceTicks(low, high, wanted, axis.whole);
  place.has = has;
  return place;
}

/** The range of the values with some air, so that no point lies on the frame. */
function padded(axis, values) {
  if (!values.length) return axis.log ? [1, 10] : [0, 1];
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  if (axis.log) return [low / 1.2, high * 1.2];
  const air = 0.06 * (high - low) || 0.05 * Math.abs(high) || 0.5;
  const [least, most] = axis.bounds ?? [low >= 0 ? 0 : -Infinity, Infinity];
  // An interval may reach beyond them; air may not.
  const [from, to] = [axis.zero ? Math.min(0, low) : Math.max(low - air, Math.min(least, low)), Math.min(high + air, Math.max(most, high))];
  return from < to ? [from, to] : [from - air, to + air];
}
