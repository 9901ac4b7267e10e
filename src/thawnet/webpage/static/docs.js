// The examples name the address at which this page was opened.
"use strict";

for (const code of document.querySelectorAll("code")) {
  const here = new URL(".", location.href).href.replace(/\/$/, "");
  code.textContent = code.textContent.replaceAll("HERE", here);
}
