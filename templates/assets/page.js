// Keeps a page fresh: fetches it again and swaps what is in <main>. Everything works without this file, by reloading.
const SECONDS = 5;
const main = () => document.querySelector("main");

// Somebody who writes, chooses or marks text is not interrupted.
function isBusy() {
  const at = document.activeElement;
  if (at && at.closest("main") && at.matches("input, textarea, select")) return true;
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed) return true;
  return [...document.querySelectorAll("main input, main textarea")].some((f) => f.type !== "hidden" && f.value !== f.defaultValue);
}

function place(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  const next = fresh.querySelector("main");
  if (!next) return;
  const open = [...document.querySelectorAll("main details[open][id]")].map((d) => d.id);
  const at = document.activeElement && document.activeElement.closest("main") ? document.activeElement : null;
  const key = at && (at.id ? `#${CSS.escape(at.id)}` : at.matches("a[href]") ? `a[href="${CSS.escape(at.getAttribute("href"))}"]` : null);
  main().replaceWith(document.adoptNode(next));
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (key) main().querySelector(key)?.focus({ preventScroll: true });
  document.title = fresh.title;
  localTimes();
}

function localTimes() {
  for (const t of document.querySelectorAll("time[datetime]")) {
    const at = new Date(t.dateTime);
    if (!Number.isNaN(at.getTime())) t.title = `${at.toLocaleString()} here`;
  }
}

function reachable(yes) {
  document.getElementById("away").hidden = yes;
}

async function refresh() {
  if (document.hidden || isBusy() || !main().hasAttribute("data-refresh")) return;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.ok && !isBusy()) place(await answer.text());
    reachable(true);
  } catch {
    reachable(false);
  }
}

// Forms marked so are sent without leaving the page.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("form[data-stay]")) return;
  event.preventDefault();
  try {
    const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
    place(await answer.text());
    reachable(true);
  } catch {
    reachable(false);
  }
});

localTimes();
setInterval(refresh, SECONDS * 1000);
document.addEventListener("visibilitychange", refresh);
