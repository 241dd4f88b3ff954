/** Small things remembered in the browser. A private window may refuse storage: then nothing is remembered. */

/** @param {() => Storage} storage a function, because merely naming localStorage may throw */
const keeper = (storage) => ({
  read(key) {
    try {
      return JSON.parse(storage().getItem(`visavis.${key}`));
    } catch {
      return null;
    }
  },
  write(key, value) {
    try {
      storage().setItem(`visavis.${key}`, JSON.stringify(value));
    } catch {
      // the setting still holds for this page
    }
  },
});

/** For good. */
export const lasting = keeper(() => localStorage);
/** As long as the tab lives. */
export const passing = keeper(() => sessionStorage);
