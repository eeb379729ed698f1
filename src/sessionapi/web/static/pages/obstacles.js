// The reasons why this browser can't stay signed in here. They are checked before a password is sent.

const { home, origins, loopback, secure } = document.body.dataset;
const LOOPBACK_NAMES = ["localhost", "127.0.0.1", "[::1]"];

/** Shown if the session cookie is missing after a sign-in, although the check before it had passed. */
export const NOT_KEPT =
  "You are signed out again, because this browser did not keep the cookie that keeps you signed in. " +
  "Allow cookies for this site, then reload the page.";

/** Shown when the server refuses this page's origin. */
export const ELSEWHERE =
  `You can sign in only at ${home}, not at ${location.origin}. ` +
  "If that is the wrong address, the operator of this service has to change PUBLIC_URL.";

const BLOCKED =
  "Cookies are blocked in this browser, and signing in needs them. " +
  "Allow cookies for this site, then reload the page.";

const ONLY_OVER_HTTPS =
  "You can't sign in here, because this page was loaded over http and this browser keeps the cookie only over https. " +
  "The operator of this service has to serve it over https.";

/** Return the message about the first obstacle, or null. */
export function obstacle() {
  if (location.protocol === "http:" && !isOwn()) return ELSEWHERE;
  if (keepsCookies(secure)) return null;
  return secure && keepsCookies(false) ? ONLY_OVER_HTTPS : BLOCKED;
}

function isOwn() {
  return origins.split(" ").includes(location.origin) || (loopback && LOOPBACK_NAMES.includes(location.hostname));
}

/** Set a cookie as the server would, check that the browser has it, and delete it. */
function keepsCookies(asSecure) {
  const name = asSecure ? "__Host-sessionapi-probe" : "sessionapi-probe";
  const attributes = `; path=/; samesite=lax${asSecure ? "; secure" : ""}`;
  document.cookie = `${name}=1${attributes}`;
  const kept = document.cookie.includes(`${name}=1`);
  document.cookie = `${name}=; max-age=0${attributes}`;
  return kept;
}
