// The account page. Each row opens a form.

import * as devices from "./devices.js";
import { ask, withPassword } from "./dialogs.js";
import { clear, onSubmit } from "./forms.js";
import { call, client, leave, ready, say, show } from "./session.js";

const opener = (form) => document.querySelector(`[aria-controls=${form.id}]`);

function open(form) {
  for (const other of document.querySelectorAll(".editor:not([hidden])")) close(other);
  form.reset();
  clear(form);
  form.hidden = false;
  opener(form).setAttribute("aria-expanded", "true");
  if (client.user) show(client.user); // fills the hidden username for password managers, which reset() has cleared
  form.querySelector("input:not(.hidden-name)").focus();
}

function close(form) {
  form.hidden = true;
  form.reset();
  opener(form).setAttribute("aria-expanded", "false");
  opener(form).focus();
}

/** Make a row editable. `save` returns a message to show, or nothing if it saved nothing. */
function editor(id, save, places = {}) {
  const form = document.getElementById(id);
  opener(form).addEventListener("click", () => (form.hidden ? open(form) : close(form)));
  form.querySelector("[value=cancel]").addEventListener("click", () => close(form));
  form.addEventListener("keydown", (event) => event.key === "Escape" && close(form));
  onSubmit(form, async (values) => {
    const said = await save(values);
    if (!said) return;
    close(form);
    say(said);
  }, places);
  return form;
}

async function change(members) {
  let user;
  const done = await withPassword(async () => (user = await call("/me", "PATCH", members)));
  if (done) show(user);
  return done && user;
}

editor("username-form", async ({ username }) => {
  const user = await change({ username });
  return user && `Your username is now ${user.username}.`; // as stored by the server, without surrounding spaces
}, {
  places: { username_taken: "username" },
});
editor("email-form", async ({ email }) => (await change({ email: email || null })) && "Your e-mail is saved.");
const password = editor("password-form", async (values) => {
  await client.changePassword(values);
  devices.load();
  return "Your password is changed. All other devices are signed out.";
}, { places: { invalid_credentials: "current_password" }, words: { invalid_credentials: "This is not your current password." } });

document.getElementById("delete").addEventListener("click", () => {
  ask({
    heading: "Delete your account?",
    text: "Your data is deleted and all your devices are signed out. This can't be undone.",
    button: "Delete permanently",
  }, async () => {
    const done = await withPassword(() => call("/me", "DELETE"));
    if (done) leave("/sign-in?reason=user_deleted");
    return done;
  });
});

// /.well-known/change-password leads here.
ready.then(() => location.hash === "#password" && open(password));
addEventListener("hashchange", () => location.hash === "#password" && open(password));
