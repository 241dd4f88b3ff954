/**
 * Latency arithmetic without a page: percentiles, sliding windows, and finding which server message
 * belongs to which shown frame. Nothing here touches the DOM, so `node --test tests/web` covers it.
 */

const RTP_WRAP = 2 ** 32;

/**
 * The q-quantile (0..1) by linear interpolation, like numpy's default; null of nothing.
 * @param {number[]} values in any order
 */
export function percentile(values, q) {
  if (values.length === 0) return null;
  const sorted = Float64Array.from(values).sort();
  const at = q * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
}

export const median = (values) => percentile(values, 0.5);

/** One decimal is what a clock of 0.1 ms resolution (the browser's, unless isolated) can honestly show. */
export const tenth = (value) => (value === null ? null : Math.round(value * 10) / 10);

/** p50, p95, p99 and how many samples they rest on. */
export function summary(values) {
  return {
    p50: tenth(percentile(values, 0.5)),
    p95: tenth(percentile(values, 0.95)),
    p99: tenth(percentile(values, 0.99)),
    n: values.length,
  };
}

/** Timestamped values of the last `spanMs`; older ones are forgotten. */
export class SlidingWindow {
  #entries = [];

  constructor(spanMs = 10_000) {
    this.spanMs = spanMs;
  }

  add(nowMs, value) {
    this.#entries.push({ atMs: nowMs, value });
    this.#prune(nowMs);
  }

  values(nowMs) {
    this.#prune(nowMs);
    return this.#entries.map((entry) => entry.value);
  }

  /** Age of the oldest value kept, 0 of none. */
  ageMs(nowMs) {
    this.#prune(nowMs);
    return this.#entries.length ? nowMs - this.#entries[0].atMs : 0;
  }

  clear() {
    this.#entries = [];
  }

  #prune(nowMs) {
    let stale = 0;
    while (stale < this.#entries.length && this.#entries[stale].atMs < nowMs - this.spanMs) stale += 1;
    if (stale) this.#entries.splice(0, stale);
  }
}

/**
 * Events per second over the window, a stall at its end included (so a frozen picture reads as a falling
 * rate and not as the rate it once had).
 */
export class RateWindow {
  #window;

  constructor(spanMs = 10_000) {
    this.#window = new SlidingWindow(spanMs);
  }

  add(nowMs, count = 1) {
    this.#window.add(nowMs, count);
  }

  perSecond(nowMs) {
    const counts = this.#window.values(nowMs);
    const ageMs = this.#window.ageMs(nowMs);
    if (counts.length < 2 || ageMs <= 0) return 0;
    // the first entry opens the interval; what it counted lies before it
    const total = counts.slice(1).reduce((sum, count) => sum + count, 0);
    return (total * 1000) / ageMs;
  }

  clear() {
    this.#window.clear();
  }
}

/** Distance from `value` to the nearest of `candidates`; null of none. */
export function nearestDistance(candidates, value) {
  let best = null;
  for (const candidate of candidates) {
    const distance = Math.abs(candidate - value);
    if (best === null || distance < best) best = distance;
  }
  return best;
}

// Chromium takes rtpTimestamp through microseconds, and a third of the frames come out one tick off
const SLACK_TICKS = 2;
const SLACK_STEPS = [0, -1, 1, -2, 2];

/** Signed distance in ticks, the short way around the wrap. */
const ticksBetween = (a, b) => (a - b) | 0;

/**
 * The constant `rtp - pts` (mod 2^32, give or take a rounded tick) of a stream, or null while it cannot be
 * told.
 *
 * Every (frame, message) pair that reached the page within `horizonMs` of each other votes for its
 * difference. At a perfectly even frame rate the neighbours of the true constant (one frame interval more
 * or less) collect nearly as many votes, so all that come close are compared: 0 wins outright, because
 * senders that keep their timestamps use it and chance does not; else the one whose messages arrived
 * closest to their frames, because both leave the server together.
 *
 * @param {{rtp: number, receivedMs: number}[]} frames
 * @param {{pts: number, arrivedMs: number}[]} messages
 */
export function findOffset(frames, messages, { minVotes = 8, horizonMs = 400 } = {}) {
  const votes = [];
  for (const { rtp, receivedMs } of frames) {
    for (const { pts, arrivedMs } of messages) {
      const gapMs = receivedMs - arrivedMs;
      if (Math.abs(gapMs) <= horizonMs) votes.push({ difference: (rtp - pts) | 0, gapMs });
    }
  }
  const camps = gather(votes);
  const most = Math.max(0, ...camps.map((camp) => camp.length));
  if (most < minVotes || most < frames.length / 2) return null;
  // both ends of the two lists may lack a partner or two, and one in ten messages may be lost
  const enough = most - Math.max(2, 0.1 * most);
  let best = null;
  for (const camp of camps) {
    if (camp.length < enough) continue;
    const difference = camp[camp.length >> 1].difference;
    if (Math.abs(difference) <= SLACK_TICKS) return 0;
    const gapMs = Math.abs(median(camp.map((vote) => vote.gapMs)));
    if (best === null || gapMs < best.gapMs) best = { difference, gapMs };
  }
  return best.difference >>> 0;
}

/** Votes in camps of the same difference, each sorted. */
function gather(votes) {
  if (votes.length === 0) return [];
  // sorted relative to one of them, so that a stream's differences stay together at the wrap
  const origin = votes[0].difference;
  const place = (vote) => ticksBetween(vote.difference, origin);
  const sorted = [...votes].sort((a, b) => place(a) - place(b));
  const camps = [[sorted[0]]];
  for (const vote of sorted.slice(1)) {
    const camp = camps.at(-1);
    if (place(vote) - place(camp.at(-1)) <= 1) camp.push(vote);
    else camps.push([vote]);
  }
  return camps;
}

/**
 * Pairs shown frames with the server's messages about them. Either may come first, some never come (the
 * data channel does not resend). `message` and `frame` return the pairs that they complete.
 */
export class FrameMatcher {
  /** The stream's constant once known. */
  offset = null;
  #messages = new Map();
  #pending = new Map();
  #recent = [];
  // messages already paired still vote when the constant is checked
  #used = [];
  #rival = null;
  #sinceCheck = 0;

  constructor({ capacity = 300, recent = 60 } = {}) {
    this.capacity = capacity;
    this.recent = recent;
  }

  /** @param {{pts: number}} message @returns {{message: object, shownMs: number}[]} */
  message(message, arrivedMs) {
    const pts = message.pts >>> 0;
    this.#messages.set(pts, { pts, message, arrivedMs });
    trim(this.#messages, this.capacity);
    if (this.offset === null) return [];
    const rtp = nearKey(this.#pending, (pts + this.offset) % RTP_WRAP);
    return rtp === undefined ? [] : this.#pair(rtp);
  }

  /** @returns {{message: object, shownMs: number}[]} */
  frame(rtp, shownMs, receivedMs) {
    this.#pending.set(rtp, shownMs);
    trim(this.#pending, this.recent);
    this.#recent.push({ rtp, receivedMs });
    if (this.#recent.length > this.recent) this.#recent.shift();
    this.#sinceCheck += 1;
    if (this.offset !== null && this.#sinceCheck < this.recent / 2) return this.#pair(rtp);
    this.#sinceCheck = 0;
    this.#check();
    return this.offset === null ? [] : [...this.#pending.keys()].flatMap((key) => this.#pair(key));
  }

  reset() {
    this.offset = null;
    this.#rival = null;
    this.#messages.clear();
    this.#pending.clear();
    this.#recent = [];
    this.#used = [];
    this.#sinceCheck = 0;
  }

  #pair(rtp) {
    const entry = this.#messages.get(nearKey(this.#messages, (rtp - this.offset) >>> 0));
    const shownMs = this.#pending.get(rtp);
    if (entry === undefined || shownMs === undefined) return [];
    this.#messages.delete(entry.pts);
    this.#pending.delete(rtp);
    this.#used.push({ pts: entry.pts, arrivedMs: entry.arrivedMs });
    if (this.#used.length > this.recent) this.#used.shift();
    return [{ message: entry.message, shownMs }];
  }

  #check() {
    const found = findOffset(this.#recent, [...this.#used, ...this.#messages.values()]);
    const steady = this.offset !== null && found !== null && same(found, this.offset);
    if (found === null || steady) {
      this.#rival = null;
    } else if (this.offset === null || (this.#rival !== null && same(found, this.#rival))) {
      this.offset = found;
      this.#rival = null;
    } else {
      // one odd look must not move a constant that has served; two in a row may
      this.#rival = found;
    }
  }
}

const same = (a, b) => Math.abs(ticksBetween(a, b)) <= SLACK_TICKS;

/** The key of `map` that is `ticks`, give or take the slack. */
function nearKey(map, ticks) {
  for (const step of SLACK_STEPS) {
    const key = (ticks + step) >>> 0;
    if (map.has(key)) return key;
  }
  return undefined;
}

function trim(map, capacity) {
  while (map.size > capacity) map.delete(map.keys().next().value);
}
