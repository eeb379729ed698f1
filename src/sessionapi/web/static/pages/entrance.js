// What the sign-in and the sign-up page share: a browser that is signed in, here or in another tab, is led on.

import { createClient } from "/session-client.js";
import { tell } from "./forms.js";
import { ELSEWHERE, NOT_KEPT, obstacle } from "./obstacles.js";

export const client = createClient();
export const words = { csrf_rejected: ELSEWHERE };

/** Return whether this browser can stay signed in; if not, the form shows why and stays locked. */
export function usable(form) {
  const text = obstacle();
  if (text) tell(form, text);
  return !text;
}

/** Go where the server says that a sign-in leads; the part behind `#` came along with the address. */
async function goOn() {
  if (!(await isSignedIn())) return refuse();
  const { next } = document.body.dataset;
  location.replace(next.startsWith("/") && !next.includes("#") ? next + location.hash : next);
}

/** Return whether the cookie was kept: the server redirects a signed-in browser from here. */
async function isSignedIn() {
  try {
    const answer = await fetch("/sign-in", { redirect: "manual", cache: "no-store" });
    return answer.status !== 200;
  } catch {
    return true; // not reachable: the next page shows that
  }
}

/** End the session that only this page could use, and say why. */
async function refuse() {
  await client.signOut().catch(() => {});
  tell(document.getElementById("form"), NOT_KEPT);
}

client.onChange(({ user }) => user && goOn());

// The browser may show this page again from its memory; the user may be signed in by then.
addEventListener("pageshow", (event) => event.persisted && location.reload());
