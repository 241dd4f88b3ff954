/** What one call was asked to be, from its offer on: what the server took, what it shows, what it could not do. */

/** What a running call can change; all else needs a new one. */
const CHANGEABLE = ["avatar", "background", "aspect", "generator", "voice_helps", "trim_ms"];
/** Of the sound nothing has to be made: it is never refused once it was taken. */
const OF_SOUND = ["voice_helps", "trim_ms"];

/**
 * What to ask of a call so that it becomes another: {} for nothing, null where only a new call can be that.
 * What is left out of a wish is as the server was started, which a change says as null.
 * @returns {Record<string, unknown> | null}
 */
export function changesBetween(before, after) {
  const changes = {};
  for (const name of new Set([...Object.keys(before), ...Object.keys(after)])) {
    const wanted = after[name] ?? null;
    if ((before[name] ?? null) === wanted) continue;
    if (!CHANGEABLE.includes(name)) return null;
    changes[name] = wanted;
  }
  return changes;
}

export class Wishes {
  #shown;
  #taken = [];

  /** @param {object} offered what the call began with */
  constructor(offered) {
    this.#shown = offered;
  }

  /** What the call will be when all that was taken is made. */
  get accepted() {
    return Object.assign({}, this.#shown, ...this.#taken.map((each) => each.changes));
  }

  /** The server took `changes` under that number. */
  take(number, changes) {
    this.#taken.push({ number, changes });
  }

  /** An avatar has another name by now. */
  renamed(from, to) {
    const named = (wish) => (wish.avatar === from ? { ...wish, avatar: to } : wish);
    this.#shown = named(this.#shown);
    this.#taken = this.#taken.map((each) => ({ ...each, changes: named(each.changes) }));
  }

  /** Pictures show the change of that number, and so all before it. */
  show(number) {
    if (!this.#taken.length || this.#taken[0].number > number) return;
    const made = this.#taken.filter((each) => each.number <= number);
    this.#taken = this.#taken.filter((each) => each.number > number);
    this.#shown = Object.assign({}, this.#shown, ...made.map((each) => each.changes));
  }

  /**
   * The server took it and could not make it: the call stays what it was with the change `kept`.
   * @returns {boolean} false where that is known already
   */
  refuse(number, kept) {
    this.show(kept);
    if (!this.#taken.some((each) => each.number === number)) return false;
    // those before it were given up for it
    const gone = this.#taken.filter((each) => each.number <= number);
    this.#taken = this.#taken.filter((each) => each.number > number);
    for (const { changes } of gone) {
      for (const name of OF_SOUND) if (name in changes) this.#shown = { ...this.#shown, [name]: changes[name] };
    }
    return true;
  }
}
