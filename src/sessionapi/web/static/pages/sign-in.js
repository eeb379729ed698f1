import { client } from "./entrance.js";
import { begin, onSubmit } from "./forms.js";

const form = document.getElementById("form");

onSubmit(form, ({ username, password, remember }) => client.signIn({ username, password, remember }), {
  places: { invalid_credentials: "password" },
});
begin(form.elements.username);
