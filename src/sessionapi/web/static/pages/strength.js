// An estimate of a password's strength. The server decides; this only shows early what it would decide.

import { length } from "./forms.js";

const LEAST = 8;
const WORDS = ["Too short: at least 8 characters", "Weak: add words", "Fair: another word makes it good", "Good", "Strong"];
const ROWS = ["abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm"];

/** Return the strength in bits. Characters that repeat, or continue a row of keys or letters, do not count. */
function bits(password) {
  const kinds = [[/\p{Ll}/u, 26], [/\p{Lu}/u, 26], [/\d/, 10], [/[^\p{L}\d]/u, 24]];
  const pool = kinds.reduce((sum, [kind, size]) => sum + (kind.test(password) ? size : 0), 0);
  const letters = [...password.toLowerCase()];
  const dull = (letter, before) =>
    letter === before || ROWS.some((row) => row.includes(before + letter) || row.includes(letter + before));
  const fresh = letters.filter((letter, place) => place === 0 || !dull(letter, letters[place - 1])).length;
  return Math.min(fresh, 2.2 * new Set(letters).size) * Math.log2(pool || 1) * 0.6;
}

/** Return a score of 0 to 4 with its text. `known` are names that a password should not contain. */
export function strength(password, known = []) {
  const fold = (text) => text.normalize("NFKC").toLowerCase();
  const folded = fold(password);
  const held = known.flatMap((name) => [name, name.split("@")[0]]).map((name) => fold(name.trim()));
  if (length(password) < LEAST) return { score: 0, text: WORDS[0] };
  if (held.some((name) => [...name].length >= 4 && folded.includes(name))) return { score: 1, text: "It contains your name: use unrelated words" };
  const score = 1 + [28, 42, 60].filter((least) => bits(password) >= least).length;
  return { score, text: WORDS[score] };
}

/** Show the strength of the new password while the user types it. */
export function watchStrength(form, known = () => []) {
  const meter = form.querySelector(".meter");
  const text = meter.querySelector("p");
  const hint = text.textContent;
  const show = () => {
    const { value } = document.getElementById(meter.dataset.for);
    const found = value ? strength(value, known()) : { score: 0, text: hint };
    meter.dataset.score = value && found.score === 0 ? "short" : found.score;
    if (text.textContent !== found.text) text.textContent = found.text;
  };
  form.addEventListener("input", show);
  form.addEventListener("reset", () => setTimeout(show));
}
