// Shared by the sign-in and sign-up pages. A browser that is signed in, here or in another tab, is redirected.

import { createClient } from "/session-client.js";
import { tell } from "./forms.js";
import { ELSEWHERE, NOT_KEPT, obstacle } from "./obstacles.js";

export const client = createClient();
export const words = { csrf_rejected: ELSEWHERE };

/** Return whether this browser can stay signed in. If not, the form shows the reason and stays disabled. */
export function usable(form) {
  const text = obstacle();
  if (text) tell(form, text);
  return !text;
}

/** Go to the page that the server has chosen for after a sign-in. The fragment comes from this page's URL. */
async function goOn() {
  if (!(await isSignedIn())) return refuse();
  const { next } = document.body.dataset;
  location.replace(next.startsWith("/") && !next.includes("#") ? next + location.hash : next);
}

/** Return whether the browser kept the cookie. If it did, the server redirects from this page. */
async function isSignedIn() {
  try {
    const answer = await fetch("/sign-in", { redirect: "manual", cache: "no-store" });
    return answer.status !== 200;
  } catch {
    return true; // if the server is not reachable, the next page reports it
  }
}

/** End the session, which no other page could use without the cookie, and show why. */
async function refuse() {
  await client.signOut().catch(() => {});
  tell(document.getElementById("form"), NOT_KEPT);
}

client.onChange(({ user }) => user && goOn());

// The browser may restore this page from its back/forward cache, when the user may be signed in already.
addEventListener("pageshow", (event) => event.persisted && location.reload());
