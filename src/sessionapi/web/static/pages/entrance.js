// What the sign-in and the sign-up page share: whoever is signed in, here or in another tab, is led on.

import { createClient } from "/session-client.js";

export const client = createClient();

/** Go where the server says that a sign-in leads; the part behind `#` came along with the address. */
export function goOn() {
  const { next } = document.body.dataset;
  location.replace(next.startsWith("/") && !next.includes("#") ? next + location.hash : next);
}

client.onChange(({ user }) => user && goOn());

// A page that comes back from the browser's memory is asked for anew: somebody may be signed in by now.
addEventListener("pageshow", (event) => event.persisted && location.reload());
