/**
 * Short messages beside the avatar. Errors stay until dismissed, information leaves by itself; both end with what
 * they are about, if that is told.
 */

const INFO_STAYS_MS = 9000;
const MOST = 3;

/** The server's phrase as a sentence: a great letter, a full stop. */
export function sentence(text) {
  const words = text.trim();
  const whole = words.charAt(0).toUpperCase() + words.slice(1);
  return /[\w)’”"']$/u.test(whole) ? `${whole}.` : whole;
}

export class Notices {
  #root;

  /** @param {HTMLElement} root */
  constructor(root) {
    this.#root = root;
  }

  clear() {
    this.#root.replaceChildren();
  }

  /** What these were about is over. */
  end(about) {
    for (const old of [...this.#root.children]) {
      if (old.dataset.topic === about || old.dataset.of === about) old.remove();
    }
  }

  /**
   * @param {"info" | "error"} level
   * @param {{topic?: string, of?: string, staysMs?: number, action?: {label: string, go: () => void}}} more
   *   `topic`: it takes the place of the one before and stays until `end`, unless `staysMs` says how long;
   *   `of`: it does not outlast that; `action`: a button of its own
   */
  show(text, level = "info", { topic, of, staysMs, action } = {}) {
    if (topic) this.end(topic);
    // a fault that repeats is one message
    for (const old of [...this.#root.children]) if (old.dataset.text === text) old.remove();
    while (this.#root.children.length >= MOST) this.#root.firstElementChild.remove();
    const notice = document.createElement("div");
    notice.className = "notice";
    notice.dataset.level = level;
    notice.dataset.text = text;
    if (topic) notice.dataset.topic = topic;
    if (of) notice.dataset.of = of;
    if (level === "error") notice.setAttribute("role", "alert");
    const words = document.createElement("p");
    words.textContent = sentence(text);
    notice.append(words);
    if (action) notice.append(this.#button("notice-action", action.label, () => (notice.remove(), action.go())));
    const close = this.#button("notice-close", "×", () => notice.remove());
    close.setAttribute("aria-label", "Dismiss this message");
    notice.append(close);
    this.#root.append(notice);
    const leavesMs = staysMs ?? (level === "error" || topic ? null : INFO_STAYS_MS);
    if (leavesMs !== null) setTimeout(() => notice.remove(), leavesMs);
  }

  #button(className, text, go) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = className;
    button.textContent = text;
    button.addEventListener("click", go);
    return button;
  }
}
