// Keeps a browser signed in. The refresh token stays in an HttpOnly cookie, the access token in memory.
// A refresh is repeated safely: two at once, or one whose answer was lost, get the same successor. So no lock
// here is needed for correctness; they only save requests, and none is waited for longer than 2 s.

const TRY_MS = 5000; // a try is given up after this
const LOCK_MS = 2000; // a frozen tab that holds the lock delays the others by no more
const HAND_OVER_MS = 100; // so long the lock is kept after a refresh, for the answer to reach the other tabs
const ASK_MS = 50; // so long a new tab waits for a token of another one
const ENDED = ["session_revoked", "session_expired", "invalid_refresh_token", "refresh_token_reused"];

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const hex = (byte) => byte.toString(16).padStart(2, "0");
const randomKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), hex).join("");

/** An answer of the service that is no success: `code`, `detail`, `reason`, `errors`, as its problem says. */
export class SessionError extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail || `The service answered ${status}.`);
    Object.assign(this, { name: "SessionError", status, retryAfter, errors: [] }, problem);
  }
}

/** See session-client.d.ts. */
export function createClient({ baseUrl = "", origins = [], warnBefore = 0 } = {}) {
  const base = new URL(baseUrl || "/", location.href).href.replace(/\/$/, "");
  const trusted = new Set([new URL(base).origin, location.origin, ...origins]);
  const name = `sessionapi:${base}`;
  const channel = new BroadcastChannel(name);
  const memory = new Map(); // in place of storage that the browser refuses
  const listeners = new Set();
  let user, token, reason, renewing, timer, warning, shown;
  let [fails, endings] = [0, 0];

  // Storage that all tabs share: the generation with its Idempotency-Key, and whether there was input.
  const stored = (item) => {
    try { return JSON.parse(localStorage.getItem(`${name}:${item}`)); } catch { return memory.get(item) ?? null; }
  };
  const store = (item, value) => {
    memory.set(item, value);
    try { localStorage.setItem(`${name}:${item}`, JSON.stringify(value)); } catch { /* memory has it */ }
  };

  // A token is old when either clock says so: the monotonic one stops while a laptop sleeps, the other may be set.
  const age = (it) => Math.max(performance.now() - it.at, Date.now() - it.date) / 1000;
  const left = () => (token ? token.expires_in - age(token) : 0);
  const secondsLeft = () => (token ? Math.max(0, Math.round(token.session_expires_in - age(token))) : 0);

  function tell() {
    const soon = user && warnBefore && secondsLeft() <= warnBefore;
    const state = { user, reason, secondsLeft: soon ? secondsLeft() : null };
    const text = JSON.stringify(state);
    if (text === shown) return;
    shown = text;
    for (const listener of [...listeners]) listener(state);
  }

  function plan() {
    clearTimeout(timer);
    clearInterval(warning);
    if (user === null) return;
    // At 5/6 of the lifetime, a little earlier by chance: no two clients keep step.
    const life = token ? token.expires_in * (5 / 6 - Math.random() / 12) - age(token) : 0;
    const wait = Math.max(life, fails ? Math.min(30, 2 ** fails) : 1);
    timer = setTimeout(() => renew().catch(() => {}), 1000 * wait);
    if (warnBefore) warning = setInterval(() => secondsLeft() <= warnBefore && tell(), 1000);
  }

  function take(tokens, old = 0) {
    token = { ...tokens, at: performance.now() - 1000 * old, date: Date.now() - 1000 * old };
    [user, reason, fails] = [tokens.user, null, 0];
    plan();
    tell();
  }

  function adopt(tokens, anew) {
    const { session_id: session, generation } = tokens;
    const known = stored("try");
    // The key belongs to the refresh token: an answer of an older generation makes no new one.
    if (anew || (known?.session && known.session !== session) || generation > known?.generation) {
      store("try", { session, generation, key: known?.session || anew ? randomKey() : known.key });
    }
    take(tokens);
    channel.postMessage({ tokens, date: Date.now() });
  }

  function end(why, quiet) {
    const was = user;
    [token, user, reason] = [null, null, why];
    endings += 1;
    plan();
    if (was && !quiet) channel.postMessage({ ended: why ?? "" });
    tell();
  }

  channel.onmessage = ({ data }) => {
    if (data.ask && left() > 2) channel.postMessage({ tokens: token, age: age(token), date: Date.now() });
    if ("ended" in data) end(data.ended || null, true);
    if (!data.tokens) return;
    const old = (data.age ?? 0) + Math.max(0, Date.now() - data.date) / 1000; // a frozen tab reads it late
    if (data.tokens.expires_in - old > Math.max(1, left())) take(data.tokens, old);
  };

  async function post(path, body, headers = {}) {
    const sends = body === undefined ? {} : { "Content-Type": "application/json" };
    const answer = await fetch(base + path, {
      method: "POST",
      credentials: "include",
      cache: "no-store",
      headers: { ...sends, ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(path === "/refresh" ? TRY_MS : 6 * TRY_MS),
    });
    const json = answer.status === 204 ? {} : await answer.json().catch(() => ({}));
    if (!answer.ok) throw new SessionError(answer.status, json, Number(answer.headers.get("Retry-After")) || null);
    return json;
  }

  async function refresh(active) {
    let known = stored("try");
    if (!known) store("try", (known = { session: null, generation: -1, key: randomKey() }));
    const there = active || stored("input") === true;
    const before = endings;
    store("input", false);
    try {
      const tokens = await post("/refresh", { active: there }, { "Idempotency-Key": known.key });
      if (endings === before) adopt(tokens); // else somebody signed out meanwhile, and that wins
    } catch (error) {
      if (there) store("input", true);
      throw Object.assign(error, { known });
    }
  }

  async function tries(active) {
    for (let count = 1; ; count++) {
      try {
        return await refresh(active);
      } catch (error) {
        if (ENDED.includes(error.code)) {
          // Somebody may have signed in anew meanwhile: then this answer is about a session of the past.
          if (stored("try").session !== error.known.session) continue;
          return end(user || error.reason ? (error.reason ?? error.code) : null);
        }
        if (count === 3 || error.status < 500) throw error;
        await pause(300 * count);
      }
    }
  }

  // The lock is waited for 2 s, then taken from a tab that doesn't move.
  async function alone(work) {
    if (!navigator.locks) return work();
    try {
      return await navigator.locks.request(name, { signal: AbortSignal.timeout(LOCK_MS) }, work);
    } catch (error) {
      if (error.name !== "TimeoutError") throw error;
      return navigator.locks.request(name, { steal: true }, work);
    }
  }

  function renew(active = false, force = false) {
    renewing ??= renewOnce(active, force).catch((error) => {
      fails += 1;
      plan();
      throw error;
    }).finally(() => (renewing = null));
    return renewing;
  }

  async function renewOnce(active, force) {
    const mine = token;
    if (user === undefined) {
      channel.postMessage({ ask: true });
      await pause(ASK_MS);
    }
    const done = () => !force && token !== mine && left() > 1;
    if (done()) return;
    await new Promise((resolve, reject) => {
      alone(async () => {
        if (done()) return resolve();
        await tries(active).then(resolve, reject);
        await pause(HAND_OVER_MS);
      }).catch((error) => (error.name === "AbortError" ? undefined : reject(error)));
    });
  }

  async function getToken() {
    if (left() <= 1 && user !== null) await renew();
    return user ? token.access_token : null;
  }

  async function authorized(input, init = {}) {
    const request = new Request(input instanceof Request ? input : new URL(input, `${base}/`), init);
    if (!trusted.has(new URL(request.url).origin)) return fetch(request); // nobody else is told the token
    const send = async () => {
      const access = await getToken();
      const again = request.clone();
      if (access) again.headers.set("Authorization", `Bearer ${access}`);
      return [await fetch(again), access];
    };
    const [answer, used] = await send();
    const challenge = answer.headers.get("WWW-Authenticate");
    if (answer.status !== 401 || !used || (challenge && !challenge.includes("invalid_token"))) return answer;
    if (token?.access_token === used) token = { ...token, expires_in: 0 };
    await getToken();
    return user ? (await send())[0] : answer;
  }

  const start = (path) => async (body) => {
    adopt(await post(path, { ...body, transport: "cookie" }), true);
    return user;
  };
  const confirm = (path) => async (body) => {
    const tokens = await post(path, body, { Authorization: `Bearer ${await getToken()}` });
    adopt({ ...token, ...tokens }, path === "/me/password");
  };

  const wake = () => {
    if (document.visibilityState === "visible" && user && left() < token.expires_in / 6) renew().catch(() => {});
  };
  for (const event of ["visibilitychange", "resume"]) document.addEventListener(event, wake);
  for (const event of ["online", "pageshow", "focus"]) addEventListener(event, wake);
  const input = () => stored("input") !== true && store("input", true);
  const often = { passive: true, capture: true };
  for (const event of ["pointerdown", "keydown", "wheel", "touchstart"]) addEventListener(event, input, often);
  if (document.visibilityState === "visible") input(); // to open a page is to be there

  return {
    get user() { return user; },
    getToken,
    fetch: authorized,
    signUp: start("/signup"),
    signIn: start("/login"),
    signOut: async () => {
      await post("/logout").catch((error) => error.status !== 401 && Promise.reject(error));
      end("logout");
    },
    reauthenticate: confirm("/sessions/current/reauthenticate"),
    changePassword: confirm("/me/password"),
    stay: async () => {
      await renewing?.catch(() => {});
      await renew(true, true);
    },
    onChange: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
