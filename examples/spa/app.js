// The whole app. The page shows the state of the client, which calls `show` in every tab at every change.
const api = document.querySelector("meta[name=api]").content;
const { createClient } = await import(`${api}/session-client.js`);
const client = createClient({ baseUrl: api, warnBefore: 120 });
const id = (name) => document.getElementById(name);
const WORDS = {
  logout: "You have signed out.",
  idle: "You were signed out due to inactivity.",
  absolute: "Your session has reached its end.",
  password_changed: "Your password was changed on another device.",
  replaced: "Another user signed in in this browser.",
};

function show({ user, reason, secondsLeft }) {
  id("welcome").hidden = Boolean(user);
  id("inside").hidden = !user;
  id("name").textContent = user?.username ?? "";
  id("warning").hidden = secondsLeft === null;
  id("seconds").textContent = secondsLeft;
  id("said").textContent = reason ? (WORDS[reason] ?? "Your session was ended from another device.") : "";
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
