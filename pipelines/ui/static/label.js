// Labelling by keyboard. Everything works without this file, by the same buttons.
// The page waits for it before it shows the picture: no key is lost that answers a picture.
"use strict";
const by = (selector) => document.querySelector(selector);
let digits = "";
let sent = false; // one picture gets one label, however fast the keys come

document.addEventListener("submit", () => { sent = true; });
window.addEventListener("pageshow", () => { sent = false; });

function show() {
  by("#typed").textContent = digits;
}

function press(element) {
  digits = "";
  show();
  if (element && !sent) element.click();
}

function choose(key) {
  const option = by(`option[data-key="${key}"]`);
  const button = by(`button[data-key="${key}"]`);
  if (!button && option) option.selected = true;
  press(button ?? by("#other button"));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.closest("input, select, textarea")) return;
  if (event.key === "u") press(by("#undo button"));
  else if (event.key === "n") press(by("#skip"));
  else if (event.key === "-") press(by('button[value="-"]'));
  else if (event.key === "Escape" || event.key === "Backspace") { digits = ""; show(); }
  else if (/^[0-9]$/.test(event.key)) {
    digits += event.key;
    const keys = [...document.querySelectorAll("[data-key]")].map((element) => element.dataset.key);
    if (keys.includes(digits)) choose(digits);
    else { if (!keys.some((key) => key.startsWith(digits))) digits = ""; show(); }
  } else return;
  event.preventDefault();
});
