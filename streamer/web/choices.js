/** Which generator and which tracker the call asks for; a choice of one is not shown. */

import { el } from "./dom.js";

export class Choices {
  #chosen;

  /** @param {{asked: {generator: string | null, tracker: string | null}, onChange: () => void}} parts */
  constructor({ asked, onChange }) {
    this.#chosen = { generator: asked.generator, tracker: asked.tracker };
    for (const which of Object.keys(this.#chosen)) {
      el(which).addEventListener("change", () => {
        this.#chosen[which] = el(which).value;
        onChange();
      });
    }
  }

  /** As an offer has them: undefined leaves it to the server. */
  get asked() {
    const { generator, tracker } = this.#chosen;
    return { generator: generator ?? undefined, tracker: tracker ?? undefined };
  }

  /** What was chosen cannot be: the call stays with this generator. */
  stay({ generator }) {
    this.#chosen.generator = generator ?? null;
    el("generator").value = generator ?? el("generator").options[0]?.value ?? "";
  }

  /** @param {{generators: string[], trackers: string[]}} names what the server has */
  fill({ generators, trackers }) {
    this.#fill("generator", generators);
    this.#fill("tracker", trackers);
  }

  #fill(which, names) {
    const chosen = this.#chosen[which];
    el(which).replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
    el(`${which}-row`).hidden = names.length < 2;
  }
}
