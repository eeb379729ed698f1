// Modal dialogs: a confirmation, and a prompt for the password.

import { clear, inWords, onSubmit } from "./forms.js";
import { client } from "./session.js";

/** Open a dialog. The promise resolves when it closes, to true if it was confirmed. */
function closed(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "ok"), { once: true }));
}

const password = document.getElementById("confirm-password");
const form = password.querySelector("form");
onSubmit(form, async (values) => {
  await client.reauthenticate(values);
  password.close("ok");
}, { places: { invalid_credentials: "password" }, words: { invalid_credentials: "This is not your password." } });
form.querySelector("[value=cancel]").addEventListener("click", () => password.close(""));

/** Run `work`, which needs a recent login, and prompt for the password if necessary. Return whether it was done. */
export async function withPassword(work) {
  try {
    await work();
  } catch (error) {
    if (error.code !== "reauthentication_required") throw error;
    form.reset();
    clear(form);
    if (!(await closed(password))) return false;
    await work();
  }
  return true;
}

const question = document.getElementById("question");
const problem = question.querySelector(".alert");
const ok = question.querySelector("[value=ok]");
let confirmed;
question.querySelector("[value=cancel]").addEventListener("click", () => question.close(""));
ok.addEventListener("click", async () => {
  if (ok.getAttribute("aria-busy") === "true") return;
  ok.setAttribute("aria-busy", "true");
  problem.hidden = true;
  try {
    if (await confirmed()) question.close("ok");
  } catch (error) {
    problem.textContent = inWords(error);
    problem.hidden = false;
  } finally {
    ok.removeAttribute("aria-busy");
  }
});

/** Ask for confirmation of an action that can't be undone. `work` returns whether it was done. */
export function ask({ heading, text, button }, work) {
  question.querySelector("h2").textContent = heading;
  document.getElementById("question-text").textContent = text;
  ok.textContent = button;
  problem.hidden = true;
  confirmed = work;
  return closed(question);
}
