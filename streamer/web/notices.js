/** Short messages beside the avatar: errors stay until dismissed, information leaves by itself. */

const INFO_STAYS_MS = 9000;
const MOST = 3;

export class Notices {
  #root;

  /** @param {HTMLElement} root */
  constructor(root) {
    this.#root = root;
  }

  clear() {
    this.#root.replaceChildren();
  }

  /** @param {"info" | "error"} level */
  show(text, level = "info") {
    // a fault that repeats is one message
    for (const old of this.#root.children) if (old.dataset.text === text) old.remove();
    while (this.#root.children.length >= MOST) this.#root.firstElementChild.remove();
    const notice = document.createElement("div");
    notice.className = "notice";
    notice.dataset.level = level;
    notice.dataset.text = text;
    if (level === "error") notice.setAttribute("role", "alert");
    const words = document.createElement("p");
    words.textContent = text;
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "×";
    close.setAttribute("aria-label", "Dismiss this message");
    close.addEventListener("click", () => notice.remove());
    notice.append(words, close);
    this.#root.append(notice);
    if (level !== "error") setTimeout(() => notice.remove(), INFO_STAYS_MS);
  }
}
