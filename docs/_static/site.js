// What scrolls sideways can be reached and scrolled with the keyboard; players have a name.
(() => {
  "use strict";
  const SCROLL = "div.cell_output, .cell_output .text_html, .bd-article pre, mjx-container, .pst-scrollable-table-container";
  function reachable() {
    for (const at of document.querySelectorAll(SCROLL)) {
      if (at.scrollWidth > at.clientWidth + 1) at.tabIndex = 0;
    }
  }
  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("audio:not([aria-label])").forEach((player, i) => {
      player.setAttribute("aria-label", `Recording ${i + 1}`);
    });
    reachable();
  });
  addEventListener("load", reachable);
  addEventListener("resize", reachable);
})();
