"use strict";
// Light, dark, or as the system has it. Runs before the first paint, so the page never changes colour while it loads.
(() => {
  const KEY = "rtc-dashboard-theme";
  const root = document.documentElement;
  const apply = (theme) => {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
  };
  const read = () => {
    try {
      const kept = localStorage.getItem(KEY);
      return kept === "light" || kept === "dark" ? kept : "auto";
    } catch {
      return "auto"; // storage is blocked
    }
  };
  const changed = () => document.dispatchEvent(new Event("themechange"));

  apply(read());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  document.addEventListener("DOMContentLoaded", () => {
    const select = document.getElementById("theme");
    select.value = read();
    select.addEventListener("change", () => {
      apply(select.value);
      try {
        localStorage.setItem(KEY, select.value);
      } catch {
        // It holds for this page.
      }
      changed();
    });
  });
})();
