// Shared by all pages that require a session: the client, the redirect when the session ends, the user menu.

import { createClient } from "/session-client.js";
import { inWords, span } from "./forms.js";

const { warnBefore, afterSignOut } = document.body.dataset;
const away = document.getElementById("away");
const toast = document.getElementById("toast");
let known = null;
let leaving = false;

export const client = createClient({ warnBefore: Number(warnBefore) });

/** Leave this page. It is hidden at once, and going back to it loads it from the server. */
export function leave(address) {
  if (leaving) return;
  leaving = true;
  document.documentElement.classList.add("leaving");
  location.replace(address);
}

/** Redirect a signed-out browser, with the reason and, unless the user signed out, the URL to return to. */
function toSignIn(reason) {
  if (reason === "logout") return leave(afterSignOut === "/sign-in" ? "/sign-in?reason=logout" : afterSignOut);
  const query = new URLSearchParams({ next: location.pathname + location.search });
  if (reason) query.set("reason", reason);
  leave(`/sign-in?${query}${location.hash}`);
}

/** Show a message that goes away by itself. */
export function say(text) {
  toast.textContent = text;
  toast.classList.add("shown");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => toast.classList.remove("shown"), 5000);
}

/** Send a request and return the JSON of the response, or throw its problem details. */
export async function call(path, method = "GET", body = undefined) {
  const sends = body === undefined ? {} : { "Content-Type": "application/json" };
  const answer = await client.fetch(path, { method, headers: sends, body: body && JSON.stringify(body) });
  const json = answer.status === 204 ? null : await answer.json().catch(() => ({}));
  if (answer.ok) return json;
  throw Object.assign(new Error(json.detail), json, { status: answer.status, retryAfter: Number(answer.headers.get("Retry-After")) || null });
}

/** Show the user's name and e-mail everywhere on the page. */
export function show(user) {
  known = user;
  for (const place of document.querySelectorAll("[data-user]")) {
    place.textContent = user[place.dataset.user] || place.dataset.none || "";
    place.classList.toggle("none", !user[place.dataset.user]);
  }
  for (const place of document.querySelectorAll(".initials")) place.textContent = initials(user.username);
  for (const name of document.querySelectorAll(".hidden-name")) name.value = user.username;
  const button = document.querySelector(".user-button");
  button.disabled = false;
  button.setAttribute("aria-label", `Account of ${user.username}`);
}

/** Return the initials of a name: AL for "ada.lovelace", AD for "ada". */
function initials(name) {
  const parts = name.split("@")[0].split(/[._+-]+/).filter(Boolean);
  const letters = parts.length > 1 ? [...parts[0]].slice(0, 1).concat([...parts.at(-1)].slice(0, 1)) : [...(parts[0] ?? name)].slice(0, 2);
  return letters.join("").toUpperCase();
}

function showAway(shown) {
  away.textContent = shown ? "The service can't be reached. Trying again…" : "";
  away.hidden = !shown;
}

export async function signOut() {
  try {
    await client.signOut();
  } catch (error) {
    say(`You are still signed in. ${inWords(error)}`);
  }
}

const ending = document.getElementById("ending");
const countdown = ending.querySelector(".countdown");

const WARNINGS = {
  idle: ["Are you still there?", "You will be signed out soon, because this device was not used for a while."],
  final: ["Your session is about to end", "It has reached its maximum duration. Finish what you are doing, then sign in again."],
};

/** Warn before the session ends. If the warning stays after "Stay signed in", it is the absolute end. */
function warn(secondsLeft) {
  if (secondsLeft === null) return ending.close();
  countdown.textContent = span(secondsLeft);
  if (ending.open) return;
  explain("idle");
  ending.showModal();
}

function explain(kind) {
  [ending.querySelector("h2").textContent, ending.querySelector("p").textContent] = WARNINGS[kind];
  ending.dataset.kind = kind;
}

async function stay() {
  try {
    await client.stay();
  } catch (error) {
    return say(inWords(error));
  }
  if (ending.open) explain("final");
}

ending.addEventListener("click", ({ target }) => {
  if (target.value === "stay") stay();
  if (target.value === "leave") signOut();
});
ending.addEventListener("cancel", (event) => {
  event.preventDefault(); // Escape also means that the user is present
  stay();
});
document.getElementById("sign-out").addEventListener("click", signOut);

client.onChange(({ user, reason, secondsLeft }) => {
  if (user === null) return toSignIn(reason);
  if (!user) return;
  showAway(false);
  if (known && known.id !== user.id) return location.reload();
  show(user);
  warn(secondsLeft);
});

/** Resolves when the user is loaded. The client retries by itself while the service is unavailable. */
export const ready = client.getToken().catch(() => showAway(true));

// The browser may keep this page in its back/forward cache. When it is restored, it is hidden and reloads.
addEventListener("pagehide", (event) => event.persisted && document.documentElement.classList.add("leaving"));
addEventListener("pageshow", (event) => event.persisted && location.reload());
