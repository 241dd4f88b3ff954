/** What the page's address asks for. Unknown or broken values fall back silently: an address is typed by hand. */

const choice = (value, allowed, fallback) => (allowed.includes(value) ? value : fallback);

// what an offer may ask for
const LEAST_PX = 64;
const MOST_PX = 1024;

const MIRROR = new Map([["0", false], ["1", true]]);

const BACKGROUND = /^(keep|soft|blur|#[0-9a-f]{6}|b-[\w-]{8,40})$/;

/** @param {string} search the address from its question mark on */
export function parseAddress(search) {
  const query = new URLSearchParams(search);
  const sizePx = Number(query.get("size"));
  const bare = query.get("bare") === "1";
  return {
    drive: choice(query.get("drive"), ["webcam", "voice", "demo"], "demo"),
    avatar: query.get("avatar") || null,
    generator: query.get("generator") || null,
    tracker: query.get("tracker") || null,
    sizePx: Number.isInteger(sizePx) && sizePx >= LEAST_PX && sizePx <= MOST_PX ? sizePx : 512,
    mode: choice(query.get("mode"), ["avatar", "echo"], "avatar"),
    hud: query.has("hud") ? query.get("hud") !== "0" : null,
    bare,
    mirror: MIRROR.get(query.get("mirror")) ?? null,
    audio: choice(query.get("audio"), ["0", "raw"], "1"),
    token: query.get("token")?.replaceAll(" ", "+") || null, // a form's plus is a space, and a token holds none
    aspect: choice(query.get("aspect"), ["1:1", "16:9"], null),
    background: BACKGROUND.test(query.get("background") ?? "") ? query.get("background") : null,
  };
}

/** The same address without its token, which must not stay in the history or in a shared link. */
export function withoutToken(href) {
  const url = new URL(href);
  url.searchParams.delete("token");
  return url.pathname + url.search + url.hash;
}

/** The address that shows the avatar alone, for a browser source. */
export function bareAddress(base, { drive, avatar, sizePx, mode, generator, tracker, aspect, background }) {
  const url = new URL(base);
  const query = new URLSearchParams({ drive, avatar, size: String(sizePx), mode, bare: "1" });
  for (const [name, value] of Object.entries({ generator, tracker, aspect, background })) {
    if (value) query.set(name, value);
  }
  url.search = query.toString();
  url.hash = "";
  return url.href;
}
