import { inWords } from "./forms.js";
import { call, ready } from "./session.js";

const again = document.getElementById("again");
const refused = document.getElementById("refused");

async function ask() {
  again.setAttribute("aria-busy", "true");
  refused.hidden = true;
  try {
    const answer = { ...(await call("/protected")), asked: new Date().toLocaleTimeString() };
    for (const place of document.querySelectorAll("[data-member]")) place.textContent = answer[place.dataset.member];
  } catch (error) {
    refused.textContent = inWords(error);
    refused.hidden = false;
  } finally {
    again.removeAttribute("aria-busy");
  }
}

again.addEventListener("click", ask);
ready.then(ask);
