// The examples name the address at which this page was opened.
"use strict";

(() => {
  const here = new URL(".", location.href).href.replace(/\/$/, "");
  for (const code of document.querySelectorAll("code")) {
    code.textContent = code.textContent.replaceAll("HERE", here);
  }
})();
