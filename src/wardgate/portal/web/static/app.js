// What pages need beyond htmx. Everything works without it; nothing is fetched from elsewhere, nothing is kept in the browser.
"use strict";

const on = (type, selector, act) =>
  document.addEventListener(type, (event) => {
    const found = event.target instanceof Element && event.target.closest(selector);
    if (found) act(found, event);
  });

// Copy buttons: <button data-copy="#id">; the text is that element's.
on("click", "[data-copy]", async (button) => {
  const label = button.querySelector("span");
  const before = label.textContent;
  await navigator.clipboard.writeText(document.querySelector(button.dataset.copy).textContent.trim());
  label.textContent = button.dataset.done;
  setTimeout(() => { label.textContent = before; }, 2000);
});

// Selects of a filter bar apply at once; without script there is a button, which is hidden here.
on("change", "form[data-auto] select", (select) => select.form.requestSubmit());
for (const button of document.querySelectorAll("form[data-auto] button[data-without-script]")) button.hidden = true;

// A name that follows the address until somebody edits it.
on("input", "[data-names]", (field) => {
  const name = document.querySelector(field.dataset.names);
  if (name && !name.dataset.edited) name.value = field.value;
});
on("input", "[data-named]", (field) => { field.dataset.edited = "yes"; });

// Parts of a form that depend on a choice: <div data-for="type" data-is="dns ip">.
const choose = (form) => {
  for (const part of form.querySelectorAll("[data-for]")) {
    const chosen = form.querySelector(`[name="${part.dataset.for}"]:checked, select[name="${part.dataset.for}"]`);
    part.hidden = !(chosen && part.dataset.is.split(" ").includes(chosen.value));
  }
};
on("change", "form", (form) => choose(form));
for (const form of document.querySelectorAll("form")) choose(form);

// Dialogs: <a data-dialog="#id" href="a page that asks the same">.
on("click", "[data-dialog]", (opener, event) => {
  const dialog = document.querySelector(opener.dataset.dialog);
  if (!dialog) return;
  event.preventDefault();
  dialog.showModal();
});
on("click", "dialog [data-close]", (button, event) => {
  event.preventDefault();
  button.closest("dialog").close();
});

// Menus close when something else is clicked, or Escape is pressed.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    for (const menu of document.querySelectorAll("details.menu[open]")) { menu.open = false; menu.querySelector("summary").focus(); }
  }
  const typing = event.target instanceof Element && event.target.closest("input, textarea, select, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const field = { "/": "#jump", f: "#filter" }[event.key];
  const target = field && document.querySelector(field);
  if (target) { event.preventDefault(); target.focus(); }
});

// Times in the reader's zone: <time datetime="…" data-local>.
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
const localize = (root) => {
  for (const time of root.querySelectorAll("time[datetime]")) time.title = exact.format(new Date(time.dateTime));
};
localize(document);
document.addEventListener("htmx:afterSettle", (event) => { localize(event.target); });

// The stream of changes: green while it is up, amber after five seconds without.
const live = document.querySelector("#live");
let lost;
document.addEventListener("htmx:sseOpen", () => {
  clearTimeout(lost);
  if (live) live.hidden = true;
});
document.addEventListener("htmx:sseError", () => {
  clearTimeout(lost);
  lost = setTimeout(() => { if (live) live.hidden = false; }, 5000);
});
