// The list of devices, with the current one first and then the most recently used ones.

import { ask } from "./dialogs.js";
import { inWords } from "./forms.js";
import { call, ready, say } from "./session.js";

const FIRST = 8; // the number of devices shown before "Show all"
const UNITS = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60]];
const PHONES = /android|ios|iphone|ipad|mobile/i;
const list = document.getElementById("devices");
const others = document.getElementById("others");
const all = document.getElementById("all-devices");
const problem = document.getElementById("devices-problem");
const template = document.getElementById("device").content;
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const day = new Intl.DateTimeFormat("en", { dateStyle: "medium" });
let devices = [];
let expanded = false;

export async function load() {
  try {
    const found = [];
    let cursor = "";
    do {
      const page = await call(`/sessions?limit=100${cursor}`);
      found.push(...page.items);
      cursor = page.next_cursor && `&cursor=${page.next_cursor}`;
    } while (cursor);
    devices = found.sort((a, b) => b.current - a.current || b.last_seen_at.localeCompare(a.last_seen_at));
    show();
  } catch (error) {
    tell(error);
  }
}

function show() {
  const shown = expanded ? devices : devices.slice(0, FIRST);
  list.replaceChildren(...shown.map(row));
  list.removeAttribute("aria-busy");
  document.getElementById("device-count").textContent = devices.length;
  others.hidden = devices.length < 2;
  all.hidden = shown.length === devices.length;
  all.textContent = `Show all ${devices.length} devices`;
  problem.hidden = true;
}

function row(device) {
  const item = template.cloneNode(true).firstElementChild;
  const part = (name) => item.querySelector(`[data-part=${name}]`);
  const name = device.device_name || "Unknown device";
  const seen = device.current ? "Active now" : `Active ${ago(device.last_seen_at)}`;
  part("name").textContent = name;
  part("seen").textContent = seen;
  if (device.ip) part("ip").textContent = device.ip;
  else part("ip").remove();
  part("since").textContent = `Signed in on ${day.format(new Date(device.created_at))}`;
  if (!device.current) part("current").remove();
  item.classList.toggle("is-phone", PHONES.test(name));
  const button = item.querySelector("button");
  button.hidden = device.current;
  button.setAttribute("aria-label", `Sign out ${name}, ${seen.toLowerCase()}`);
  button.addEventListener("click", () => signOut(device, item, button));
  return item;
}

function ago(moment) {
  const seconds = (Date.now() - new Date(moment)) / 1000;
  const [unit, size] = UNITS.find(([, least]) => seconds >= least) ?? ["minute", 60];
  return seconds < 60 ? "just now" : relative.format(-Math.floor(seconds / size), unit);
}

async function signOut(device, item, button) {
  button.setAttribute("aria-busy", "true");
  try {
    await call(`/sessions/${device.id}`, "DELETE").catch((error) => error.status !== 404 && Promise.reject(error));
  } catch (error) {
    button.removeAttribute("aria-busy");
    return tell(error);
  }
  const next = item.nextElementSibling?.querySelector("button") ?? document.getElementById("devices-heading");
  devices = devices.filter(({ id }) => id !== device.id);
  const place = [...list.children].indexOf(item);
  show();
  (list.children[place]?.querySelector("button:not([hidden])") ?? next).focus();
  say(`${device.device_name || "The device"} is signed out.`);
}

function tell(error) {
  problem.textContent = inWords(error);
  problem.hidden = false;
  list.removeAttribute("aria-busy");
}

others.addEventListener("click", async () => {
  const count = devices.length - 1;
  const done = await ask({
    heading: count === 1 ? "Sign out the other device?" : `Sign out ${count} other devices?`,
    text: "They have to sign in again. This device stays signed in.",
    button: "Sign out all others",
  }, async () => {
    await call("/sessions?keep_current=true", "DELETE");
    return true;
  });
  if (!done) return;
  await load();
  document.getElementById("devices-heading").focus();
  say("All other devices are signed out.");
});
all.addEventListener("click", () => {
  expanded = true;
  show();
  list.children[FIRST]?.querySelector("button")?.focus();
});
ready.then(load);
