// What every page behind the sign-in shares: the client, the way out when the session ends, the user button.

import { createClient } from "/session-client.js";
import { inWords, span } from "./forms.js";

const { warnBefore, afterSignOut } = document.body.dataset;
const away = document.getElementById("away");
const toast = document.getElementById("toast");
let known = null;
let leaving = false;

export const client = createClient({ warnBefore: Number(warnBefore) });

/** Leave for good: nothing of the user stays in sight, and the way back leads over the server. */
export function leave(address) {
  if (leaving) return;
  leaving = true;
  document.documentElement.classList.add("leaving");
  location.replace(address);
}

/** Lead to where a signed-out browser belongs, with the reason, and the way back if nobody asked to leave. */
function toSignIn(reason) {
  if (reason === "logout") return leave(afterSignOut === "/sign-in" ? "/sign-in?reason=logout" : afterSignOut);
  const query = new URLSearchParams({ next: location.pathname + location.search });
  if (reason) query.set("reason", reason);
  leave(`/sign-in?${query}${location.hash}`);
}

/** Say something that needs no answer. */
export function say(text) {
  toast.textContent = text;
  toast.classList.add("shown");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => toast.classList.remove("shown"), 5000);
}

/** Call with the service's JSON at success; else throw its problem. */
export async function call(path, method = "GET", body = undefined) {
  const sends = body === undefined ? {} : { "Content-Type": "application/json" };
  const answer = await client.fetch(path, { method, headers: sends, body: body && JSON.stringify(body) });
  const json = answer.status === 204 ? null : await answer.json().catch(() => ({}));
  if (answer.ok) return json;
  throw Object.assign(new Error(json.detail), json, { status: answer.status, retryAfter: Number(answer.headers.get("Retry-After")) || null });
}

/** Show a user's name in all places of the page that are for it. */
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

/** "ada.lovelace" is AL, "ada" is AD. */
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
  idle: ["Are you still there?", "You will be signed out soon, because nobody used this device for a while."],
  final: ["Your session is about to end", "It has reached its longest life. Finish what you are doing, then sign in again."],
};

/** Warn of the end; whoever stayed and is warned all the same has met the end that nothing moves. */
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
  event.preventDefault(); // Escape is an answer too: somebody is there
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

/** Ask who is signed in; the client goes on trying by itself when the service is away. */
export const ready = client.getToken().catch(() => showAway(true));

// The browser may keep a left page in memory. It shows nothing when it comes back, and is asked for anew.
addEventListener("pagehide", (event) => event.persisted && document.documentElement.classList.add("leaving"));
addEventListener("pageshow", (event) => event.persisted && location.reload());
