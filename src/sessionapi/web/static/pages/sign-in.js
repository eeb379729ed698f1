import { client, usable, words } from "./entrance.js";
import { begin, onSubmit } from "./forms.js";

const form = document.getElementById("form");

if (usable(form)) {
  onSubmit(form, ({ username, password, remember }) => client.signIn({ username, password, remember }), {
    places: { invalid_credentials: "password" },
    words,
  });
  begin(form.elements.username);
}
