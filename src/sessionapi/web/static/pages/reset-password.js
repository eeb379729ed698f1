import { begin, onSubmit } from "./forms.js";
import { SessionError } from "/session-client.js";

const form = document.getElementById("form");
const token = new URLSearchParams(location.hash.slice(1)).get("token");

async function reset({ new_password }) {
  const answer = await fetch("/password-reset", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token, new_password }),
  });
  const wait = Number(answer.headers.get("Retry-After")) || null;
  if (!answer.ok) throw new SessionError(answer.status, await answer.json().catch(() => ({})), wait);
  location.replace("/sign-in?reason=password_reset");
}

if (token) {
  history.replaceState(null, "", location.pathname); // remove the token from the URL and the history
  onSubmit(form, reset);
  begin(form.elements.new_password);
} else {
  form.hidden = true;
  document.getElementById("no-link").hidden = false;
}
// Opening another link in the same tab changes only the fragment, which does not load the page again.
addEventListener("hashchange", () => location.reload());
