/**
 * What this tab made its avatars from: the photo or the `.avatar` file, and the name of who agreed. In the memory of
 * the tab and nowhere else, so that an avatar which the server lost can be made again without asking twice.
 */

export class Origins {
  #of = new Map();

  /** @param {{file: File, consent: string | null}} origin `consent` null: the file is an avatar that holds its own */
  async remember(name, { file, consent }) {
    let copy = file;
    try {
      // a File is only a pointer to the disk: the photo may be moved or deleted while the call goes on
      copy = new File([await file.arrayBuffer()], file.name, { type: file.type });
    } catch {
      // unreadable by now: the pointer is all there is
    }
    this.#of.set(name, { file: copy, consent });
  }

  of(name) {
    return this.#of.get(name) ?? null;
  }

  renamed(from, to) {
    const origin = this.#of.get(from);
    if (!origin || from === to) return;
    this.#of.delete(from);
    this.#of.set(to, origin);
  }

  forget(name) {
    this.#of.delete(name);
  }
}
