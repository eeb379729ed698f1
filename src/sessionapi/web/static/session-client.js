// Keeps a browser signed in. The refresh token stays in an HttpOnly cookie, the access token in memory.
// Concurrent refreshes, or one whose response was lost, get the same successor. So the lock is not needed for
// correctness. It saves requests, and no tab waits long for it.

const TRY_MS = 5000; // timeout of a refresh
const LOCK_MS = 1300; // maximum silence of the lock's holder
const ASK_MS = 50; // time for another tab to share its token
const ENDED = /^(session_(revoked|expired)|invalid_refresh_token|refresh_token_reused)$/;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** An error response, with the fields of its problem details. */
export class SessionError extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail || `The service returned ${status}.`);
    Object.assign(this, { name: "SessionError", errors: [], ...problem, status, retryAfter });
  }
}

/** See session-client.d.ts. */
export function createClient({ baseUrl = "", origins = [], warnBefore = 0 } = {}) {
  const base = new URL(baseUrl || "/", location.href).href.replace(/\/$/, "");
  const trusted = new Set([new URL(base).origin, location.origin, ...origins]);
  const name = `sessionapi:${base}`;
  const channel = globalThis.BroadcastChannel ? new BroadcastChannel(name) : { postMessage() {} };
  const memory = new Map(); // if the browser refuses storage
  const listeners = new Set();
  let user, token, reason, renewing, timer, warning, shown, endedSessionId, refusal, answered;
  let [fails, changes, quietUntil, lastHeartbeat, asked, inputStoredAt] = [0, 0, 0, 0, -Infinity, -Infinity];

  // Shared by all tabs: the generation with its Idempotency-Key, and the last input.
  const stored = (item) => {
    try {
      return JSON.parse(localStorage.getItem(`${name}:${item}`)) ?? memory.get(item);
    } catch {
      return memory.get(item);
    }
  };
  const store = (item, value) => {
    memory.set(item, value);
    try { localStorage.setItem(`${name}:${item}`, JSON.stringify(value)); } catch { /* memory has it */ }
  };

  // Use the larger age: the monotonic clock stops while a laptop sleeps, the other one may be set.
  const age = (it) => Math.max(performance.now() - it.at, Date.now() - it.date) / 1000;
  const left = () => (token ? token.expires_in - age(token) : 0);
  const secondsLeft = () => Math.max(0, Math.round(token.session_expires_in - age(token)));

  function notify() {
    const soon = token && warnBefore && secondsLeft() <= warnBefore;
    const state = { user, reason, secondsLeft: soon ? secondsLeft() : null };
    const text = JSON.stringify(state);
    if (text === shown) return;
    shown = text;
    for (const listener of listeners) queueMicrotask(() => listener(state)); // isolates its errors
  }

  function scheduleRenewal() {
    clearTimeout(timer);
    clearInterval(warning);
    if (user === null) return;
    // At a random time before 5/6 of the lifetime, so that clients do not refresh in step.
    const due = token ? token.expires_in * (5 / 6 - Math.random() / 12) - age(token) : 0;
    const again = fails ? Math.min(30, 2 ** fails) * (1 - Math.random() / 4) : 1;
    const wait = Math.max(due, again, (quietUntil - performance.now()) / 1000);
    timer = setTimeout(() => renew().catch(() => {}), 1000 * wait);
    if (warnBefore && token) warning = setInterval(notify, 1000);
  }

  function setToken(tokens, old) {
    if (token && token.session_id !== tokens.session_id) changes += 1;
    token = { ...tokens, at: performance.now() - 1000 * old, date: Date.now() - 1000 * old };
    [user, reason, fails] = [tokens.user, null, 0];
    scheduleRenewal();
    notify();
  }

  const share = () =>
    channel.postMessage({ tokens: token, age: age(token), date: Date.now(), known: stored("try") });

  /** Stores a response. Its age counts from the request, because the token was created after that. */
  function acceptResponse({ tokens, began }, hasNewSecret) {
    const { session_id: session, generation } = tokens;
    const known = stored("try");
    // The key belongs to the refresh token, so a response of an older generation keeps it.
    if (hasNewSecret || session !== known.session || generation > known.generation) {
      store("try", { session, generation, key: known?.key ?? crypto.randomUUID(), used: true });
    }
    if (hasNewSecret) changes += 1;
    setToken(tokens, (performance.now() - began) / 1000);
    share();
  }

  function end(why, session, quiet) {
    changes += 1;
    [token, user, reason, endedSessionId] = [null, null, why, session];
    scheduleRenewal();
    if (!quiet) channel.postMessage({ ended: why ?? "", session });
    notify();
  }

  channel.onmessage = ({ data }) => {
    if (data.busy) lastHeartbeat = performance.now();
    if (left() > Math.max(2, data.ask + 1)) share();
    if ("ended" in data) {
      endedSessionId = data.session;
      const isOurs = token && (!endedSessionId || token.session_id === endedSessionId);
      if (isOurs) end(data.ended || null, endedSessionId, true);
    }
    if (!data.tokens || data.tokens.session_id === endedSessionId) return;
    if (data.known) memory.set("try", data.known);
    const { session_id: session, access_token: access, expires_in: life } = data.tokens;
    const old = data.age + Math.max(0, Date.now() - data.date) / 1000; // a frozen tab reads it late
    const later = performance.now() - 1000 * old > token?.at && access !== token.access_token;
    // Session ids sort by time.
    if (life - old > 1 && (!token || session > token.session_id || (session === token.session_id && later))) {
      setToken(data.tokens, old);
      answered?.();
    }
  };

  async function post(path, body, headers = {}) {
    const began = performance.now();
    const answer = await fetch(base + path, {
      method: "POST",
      credentials: "include",
      cache: "no-store",
      headers: body ? { "Content-Type": "application/json", ...headers } : headers,
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(path === "/refresh" ? TRY_MS : 6 * TRY_MS),
    });
    if (!answer.ok) {
      const problem = await answer.json().catch(() => ({}));
      throw new SessionError(answer.status, problem, Number(answer.headers.get("Retry-After")) || null);
    }
    return { began, tokens: answer.status === 204 ? null : await answer.json() };
  }

  async function refresh(active) {
    const before = changes;
    const kept = stored("try") ?? { session: null, generation: -1, key: crypto.randomUUID() };
    // A key of the previous token is replaced only when this tab has had the new one for 30 s. Until then a crash
    // can restore the old cookie (Chromium writes it that late), which needs the old key.
    const saw = token?.session_id === kept.session && token.generation === kept.generation;
    const fresh = kept.used && saw && age(token) > Math.min(30, 0.7 * (token.expires_in || 60));
    const known = { ...kept, used: false, key: fresh ? crypto.randomUUID() : kept.key };
    store("try", known);
    const input = stored("input");
    let answer;
    try {
      const there = active || input !== stored("told");
      answer = await post("/refresh", { active: there }, { "Idempotency-Key": known.key });
    } catch (error) {
      if (!ENDED.test(error.code)) throw error;
      // If another tab has signed in or renewed the secret, this error is about an old token. Without the lock, the
      // response to that tab may still be on its way.
      const outdated = () => {
        const { session, generation } = stored("try");
        return session !== known.session || generation > known.generation;
      };
      if (user && error.code === "invalid_refresh_token" && !outdated()) await pause(300);
      if (outdated()) return refresh(active);
      const why = user || error.reason ? (error.reason ?? error.code) : null;
      if (changes === before) end(why, known.session, !user);
      return;
    }
    if (changes !== before) return; // a sign-out or sign-in in the meantime wins
    if (answer.tokens.session_id === endedSessionId) {
      endedSessionId = null; // another tab reported its end: check again
      return refresh(active);
    }
    store("told", input);
    acceptResponse(answer);
  }

  /** Does the work under the lock of all tabs. The lock is stolen from a silent tab, because it is frozen. */
  function withLock(work) {
    return new Promise((resolve, reject) => {
      const began = performance.now();
      const patience = LOCK_MS + Math.random() * 200;
      const wait = new AbortController();
      wait.signal.onabort = () => setTimeout(run, LOCK_MS); // if the browser never answers
      const looking = setInterval(() => {
        if (performance.now() - Math.max(began, lastHeartbeat) > patience) wait.abort();
      }, 50);
      let beating;
      const beat = () => {
        lastHeartbeat = performance.now(); // a tab doesn't receive its own messages
        channel.postMessage({ busy: true });
      };
      const run = () => {
        if (beating) return;
        clearInterval(looking);
        beating = setInterval(beat, LOCK_MS / 3);
        beat();
        return work().then(resolve, reject).finally(() => clearInterval(beating));
      };
      if (!navigator.locks) return run();
      navigator.locks
        .request(name, { signal: wait.signal }, run)
        .catch(() => beating || navigator.locks.request(name, { steal: true }, run))
        .catch(run);
    });
  }

  /** Requests a newer token from the other tabs. */
  function askOtherTabs() {
    asked = performance.now();
    channel.postMessage({ ask: left() });
    return Promise.race([pause(ASK_MS), new Promise((done) => (answered = done))]);
  }

  function renew(active, force) {
    if (performance.now() < quietUntil) return Promise.reject(refusal);
    renewing ??= renewWithRetries(active, force).catch((error) => {
      fails += 1;
      refusal = error;
      if (error.retryAfter) quietUntil = performance.now() + 1000 * Math.min(60, error.retryAfter);
      scheduleRenewal();
      throw error;
    }).finally(() => (renewing = null));
    return renewing;
  }

  async function renewWithRetries(active, force) {
    const mine = token;
    const needless = () => !force && (user === null || (token !== mine && left() > 1));
    if (user === undefined) await askOtherTabs();
    for (let count = 1; !needless(); count++) {
      try {
        return await withLock(async () => {
          // the last holder's message may be on its way
          if (performance.now() - asked > 2 * ASK_MS) await askOtherTabs();
          if (!needless()) await refresh(active);
        });
      } catch (error) {
        const passing = !error.status || error.status === 409 || error.status >= 500;
        if (!passing || error.retryAfter || count === 3) throw error;
        await pause(300 * count);
      }
    }
  }

  async function getToken() {
    if (left() <= 1 && user !== null) await renew();
    return token ? token.access_token : null;
  }

  async function authorized(input, init = {}) {
    const request = new Request(input instanceof Request ? input : new URL(input, `${base}/`), init);
    if (!trusted.has(new URL(request.url).origin)) return fetch(request); // without the token
    const send = (access) => {
      const again = request.clone();
      if (access) again.headers.set("Authorization", `Bearer ${access}`);
      return fetch(again);
    };
    const used = await getToken();
    const id = user?.id;
    const answer = await send(used);
    const challenge = answer.headers.get("WWW-Authenticate");
    if (answer.status !== 401 || !used || (challenge && !challenge.includes("invalid_token"))) return answer;
    if (token?.access_token === used) token = { ...token, expires_in: 0 };
    const access = await getToken();
    return access && user.id === id ? send(access) : answer; // never send it as another user
  }

  const start = (path) => async (body) => {
    await withLock(async () => acceptResponse(await post(path, { ...body, transport: "cookie" }), true));
    return user;
  };
  // This invalidates the old cookie, so the lock keeps out refreshes.
  const renewSecret = (path) => async (body) => {
    const headers = { Authorization: `Bearer ${await getToken()}` };
    await withLock(async () => acceptResponse(await post(path, body, headers), true));
  };

  const wake = (event) => {
    const missed = event.persisted; // from the back/forward cache, where no message arrives
    if (document.visibilityState !== "visible" || (user === null && !missed)) return;
    if (missed || !token || left() < token.expires_in / 6) renew(false, missed).catch(() => {});
  };
  for (const event of ["visibilitychange", "resume"]) document.addEventListener(event, wake);
  for (const event of ["online", "pageshow", "focus"]) addEventListener(event, wake);
  const input = () => {
    if (performance.now() - inputStoredAt < 1000) return;
    inputStoredAt = performance.now();
    store("input", Date.now());
  };
  const often = { passive: true, capture: true };
  for (const event of ["pointerdown", "keydown", "wheel", "touchstart"]) addEventListener(event, input, often);
  if (document.visibilityState === "visible") input(); // opening a page is an input
  queueMicrotask(() => renew().catch(() => {}));

  return {
    get user() { return user; },
    getToken,
    fetch: authorized,
    signUp: start("/signup"),
    signIn: start("/login"),
    signOut: () => withLock(async () => {
      const session = token?.session_id ?? stored("try")?.session;
      const headers = token ? { Authorization: `Bearer ${token.access_token}` } : {};
      await post("/logout", null, headers).catch((error) => error.status !== 401 && Promise.reject(error));
      end("logout", session);
    }),
    reauthenticate: renewSecret("/sessions/current/reauthenticate"),
    changePassword: renewSecret("/me/password"),
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
