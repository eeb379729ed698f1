import { client, usable, words } from "./entrance.js";
import { begin, onSubmit } from "./forms.js";

const form = document.getElementById("form");

if (form && usable(form)) {
  onSubmit(form, ({ email, ...account }) => client.signUp(email ? { ...account, email } : account), {
    places: { username_taken: "username" },
    words,
  });
  begin(form.elements.username);
}
