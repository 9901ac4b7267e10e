// What the report does beyond being read: sort and search the classes, show maps, read a cell.
"use strict";

(() => {
  for (const each of document.querySelectorAll(".script")) each.hidden = false;

  // ---- class-activation maps over the pictures
  const buttons = [...document.querySelectorAll(".maps")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const shown = document.body.classList.toggle("mapped");
      for (const each of buttons) each.setAttribute("aria-pressed", String(shown));
    });
  }

  // ---- the cell of the confusion matrix that is pointed at
  const said = document.getElementById("cell");
  const cells = document.querySelector(".matrix .cells");
  if (said && cells) {
    const [rows, columns] = [".rows", ".columns"].map((names) =>
      document.querySelectorAll(`.matrix ${names} text`),
    );
    let lit = [];
    const read = (event) => {
      const title = event.target.querySelector("title");
      const place = event.target.getAttribute("d")?.match(/\d+/g);
      if (!title || !place) return;
      said.textContent = title.textContent;
      for (const name of lit) name.classList.remove("lit");
      lit = [columns[place[0]], rows[place[1]]];
      for (const name of lit) name.classList.add("lit");
    };
    cells.addEventListener("pointerover", read);
    cells.addEventListener("click", read);
  }

  // ---- the table of classes
  const table = document.getElementById("per-class");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  // A cell's number; what is none, such as "never predicted", comes after all numbers.
  const figure = (cell) => {
    const value = parseFloat(cell.textContent.replaceAll(",", ""));
    return Number.isNaN(value) ? Infinity : value;
  };

  function sort(place, down) {
    const numbers = heads[place].classList.contains("number");
    const compare = numbers
      ? (a, b) => figure(a.cells[place]) - figure(b.cells[place])
      : (a, b) => order.compare(a.cells[place].textContent, b.cells[place].textContent);
    const sorted = rows.toSorted?.(compare) ?? [...rows].sort(compare);
    body.append(...(down ? sorted.reverse() : sorted));
    heads.forEach((head, at) => {
      if (at === place) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }

  heads.forEach((head, place) => {
    if (head.tagName !== "TH") return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      sort(place, head.getAttribute("aria-sort") === "ascending");
    });
  });

  const search = document.getElementById("search");
  const matches = document.getElementById("matches");
  const names = rows.map((row) => row.cells[0].textContent.toLowerCase());
  search.addEventListener("input", () => {
    const wanted = search.value.trim().toLowerCase();
    rows.forEach((row, at) => {
      row.hidden = !names[at].includes(wanted);
    });
    const found = rows.filter((row) => !row.hidden).length;
    matches.textContent = wanted ? `${found} of ${rows.length} classes` : "";
  });
})();
