// Forms: errors appear next to their fields, buttons show that they are busy, and passwords can be revealed.

const WORDS = {
  missing: "Fill this in.",
  string_too_long: "That is too long.",
  string_too_short: "Fill this in.",
  "email:string_pattern_mismatch": "Use an address such as ada@example.com.",
};
const EMPTY = {
  username: "Enter your username.",
  password: "Enter your password.",
  current_password: "Enter your current password.",
  new_password: "Enter a new password.",
};
const AWAY = "The service can't be reached. Check your connection, then try again.";

/** Return the message that explains an error to the user. */
export function inWords(error) {
  if (!error.status) return ["TypeError", "TimeoutError", "AbortError"].includes(error.name) ? AWAY : "Something went wrong. Reload the page.";
  if (error.status >= 500) return "The service is busy. Try again shortly.";
  if (error.status === 429) return `Too many attempts. Try again in ${span(error.retryAfter ?? 60)}.`;
  return error.detail || error.message;
}

/** Format a number of seconds as "40 seconds" or "5 minutes". */
export function span(seconds) {
  const [count, unit] = seconds < 90 ? [Math.ceil(seconds), "second"] : [Math.ceil(seconds / 60), "minute"];
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}

/** Pass the values of the form to `work` and show its errors next to their fields, or else above the form. */
export function onSubmit(form, work, { places = {}, words = {} } = {}) {
  const button = form.querySelector("[type=submit]");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.getAttribute("aria-busy") === "true") return;
    clear(form);
    if (!complete(form)) return;
    button.setAttribute("aria-busy", "true");
    try {
      await work(values(form));
    } catch (error) {
      refuse(form, error, places, words);
    } finally {
      button.removeAttribute("aria-busy");
    }
  });
  form.addEventListener("input", ({ target }) => target.name && unmark(target));
  for (const rule of form.querySelectorAll("[data-shortest]")) watchLength(form, rule);
  for (const reveal of form.querySelectorAll(".reveal")) reveal.addEventListener("click", () => toggle(reveal));
  button.disabled = false; // until now Enter would have sent the form without this script, and shown JSON to the user
}

/** Mark the rule on the length of a password while the user types. The server checks the other rules. */
function watchLength(form, rule) {
  const input = document.getElementById(rule.dataset.for);
  const show = () => {
    const met = length(input.value) >= Number(rule.dataset.shortest);
    if (met === rule.classList.contains("met")) return; // a screen reader announces each change of the text
    rule.classList.toggle("met", met);
    rule.querySelector(".spoken").textContent = met ? ": met" : "";
  };
  form.addEventListener("input", show);
  form.addEventListener("reset", () => setTimeout(show));
}

/** Focus the first input, unless the user has focused something before this script ran. */
export function begin(input) {
  if (document.activeElement === document.body) input.focus();
}

/** Remove the errors of an earlier attempt. */
export function clear(form) {
  tell(form, "");
  for (const input of form.querySelectorAll("[aria-invalid]")) unmark(input);
}

function values(form) {
  const inputs = [...form.elements].filter((input) => input.name && input.name !== "ignored");
  return Object.fromEntries(inputs.map((input) => [input.name, input.type === "checkbox" ? input.checked : input.value]));
}

/** Mark the fields that the server would refuse because they are empty or too long. */
function complete(form) {
  const wrong = [...form.elements].filter((input) => {
    const text = whyRefused(input);
    if (text) mark(input, text);
    return text;
  });
  wrong[0]?.focus();
  return wrong.length === 0;
}

function whyRefused(input) {
  const isPassword = input.parentElement.className === "secret";
  const value = isPassword ? input.value : (input.value ?? "").trim();
  if (input.required && !value) return EMPTY[input.name] ?? WORDS.missing;
  const longest = Number(input.dataset.longest || Infinity);
  const count = isPassword ? length(value) : [...value.normalize("NFKC")].length;
  return count > longest ? `Use at most ${longest} characters. This has ${count}.` : "";
}

/** Count the characters of a password as the server does: in code points, with an accented letter as one. */
export function length(password) {
  return Math.min([...password].length, [...password.normalize("NFC")].length);
}

/** Show an error next to its fields. `places` maps codes without fields to a field, `words` to another message. */
function refuse(form, error, places, words) {
  const whole = { field: places[error.code], message: words[error.code] ?? inWords(error) };
  const wrong = error.errors?.length ? error.errors : [whole];
  const fields = wrong.filter(({ field }) => field && form.elements[field]);
  if (fields.length === 0) return tell(form, wrong[0].message);
  for (const { field, code, message } of fields.reverse()) {
    mark(form.elements[field], WORDS[`${field}:${code}`] ?? WORDS[code] ?? message);
  }
  form.elements[fields.at(-1).field].focus();
}

function mark(input, text) {
  const place = document.getElementById(`${input.id}-wrong`);
  place.textContent = text;
  place.hidden = false;
  input.setAttribute("aria-invalid", "true");
}

function unmark(input) {
  const place = document.getElementById(`${input.id}-wrong`);
  if (!place) return;
  place.hidden = true;
  place.textContent = "";
  input.removeAttribute("aria-invalid");
}

/** Show a message above a form, or remove it if the text is empty. */
export function tell(form, text) {
  const place = form.querySelector(".alert");
  place.textContent = text;
  place.hidden = !text;
}

function toggle(reveal) {
  const input = document.getElementById(reveal.getAttribute("aria-controls"));
  const shown = input.type === "password";
  input.type = shown ? "text" : "password";
  reveal.setAttribute("aria-pressed", String(shown));
}
