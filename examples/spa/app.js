// The whole app. The page shows the state of the client, which calls `show` in every tab at every change.
const api = document.querySelector("meta[name=api]").content;
const { createClient } = await import(`${api}/session-client.js`);
const client = createClient({ baseUrl: api, warnBefore: 120 });
const id = (name) => document.getElementById(name);
// The reason of an ended session, or the code of an error without a reason, as a sentence.
const WORDS = {
  logout: "You are signed out.",
  revoked_by_user: "This device was signed out from another one.",
  revoked_by_admin: "An administrator ended your session.",
  password_changed: "Your password was changed on another device. Sign in with the new one.",
  password_reset: "Your password was reset. Sign in with the new one.",
  user_disabled: "Your account is disabled. Ask an administrator.",
  user_deleted: "The account was deleted.",
  session_limit: "You signed in on too many devices, and this one was unused for longest.",
  replaced: "Another sign-in in this browser ended this session.",
  refresh_reuse: "Your session was ended for your safety: a copy of it was in use elsewhere. Sign in again.",
  idle: "You were signed out because this device was not used for a while.",
  absolute: "Your session has reached its end. Sign in again to go on.",
  unknown: "Your session has ended. Sign in again to go on.",
  session_revoked: "Your session has ended. Sign in again to go on.",
};

function show({ user, reason, secondsLeft }) {
  id("welcome").hidden = Boolean(user);
  id("inside").hidden = !user;
  id("name").textContent = user?.username ?? "";
  id("warning").hidden = secondsLeft === null;
  id("seconds").textContent = secondsLeft;
  id("said").textContent = reason ? (WORDS[reason] ?? WORDS.session_revoked) : "";
  if (!user) id("answer").textContent = "";
}

/** Run the action of a button, and show the error if it fails. */
async function attempt(work) {
  try {
    id("said").textContent = "";
    await work();
  } catch (error) {
    id("said").textContent = error.code ? error.message : "The service can't be reached. Try again.";
  }
}

client.onChange(show);
id("welcome").addEventListener("submit", (event) => {
  event.preventDefault();
  const { username, password, remember } = Object.fromEntries(new FormData(event.target));
  attempt(() => client[event.submitter.value]({ username, password, remember: Boolean(remember) }));
});
id("leave").addEventListener("click", () => attempt(client.signOut));
id("stay").addEventListener("click", () => attempt(client.stay));
id("ask").addEventListener("click", () =>
  attempt(async () => {
    const answer = await client.fetch("/protected");
    if (answer.ok) id("answer").textContent = (await answer.json()).data;
  }),
);
