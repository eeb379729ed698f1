import { client } from "./entrance.js";
import { onSubmit } from "./forms.js";

const form = document.getElementById("form");

onSubmit(form, ({ username, password, remember }) => client.signIn({ username, password, remember }), {
  places: { invalid_credentials: "password" },
});
form.elements.username.focus();
