// Sorts a table by a click on a header, and shows a row that a link leads to. The page is complete without it.
"use strict";
const compareTexts = new Intl.Collator("en", { numeric: true }).compare;
const isMissing = value => value === "" || Number.isNaN(value);

function valueOf(cell, isNumber) {
  const text = cell.dataset.value ?? cell.textContent.trim();
  if (isNumber) return parseFloat(text.replace(/\s/g, "").replaceAll("−", "-"));
  return text === "–" ? "" : text;
}

function sorted(rows, column, isNumber, sign) {
  const values = new Map(rows.map(row => [row, valueOf(row.cells[column], isNumber)]));
  const compare = isNumber ? (a, b) => a - b : compareTexts;
  return [...rows].sort((one, other) => {
    const [a, b] = [values.get(one), values.get(other)];
    return isMissing(a) || isMissing(b) ? isMissing(a) - isMissing(b) : sign * compare(a, b);
  });
}

function makeSortable(table) {
  const body = table.tBodies[0], rows = [...body.rows], headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.append(...header.childNodes);
    header.append(button);
    button.onclick = () => {
      const next = { ascending: "descending", descending: null }, before = header.getAttribute("aria-sort");
      const now = before ? next[before] : "ascending";
      headers.forEach(each => each.removeAttribute("aria-sort"));
      if (now) header.setAttribute("aria-sort", now);
      const sign = now === "descending" ? -1 : 1;
      body.append(...(now ? sorted(rows, column, header.classList.contains("n"), sign) : rows));
    };
  });
}

// Opens what hides the row: closed details, another tab, a choice of kernels that leaves it out.
function reveal(link) {
  const row = link?.startsWith("#") ? document.getElementById(link.slice(1)) : null;
  for (let box = row; (box = box?.parentElement.closest("details, .choices")); ) {
    const panels = [...box.querySelectorAll(":scope > .panel")];
    const choice = box.querySelectorAll(":scope > input")[Math.max(0, panels.findIndex(panel => panel.contains(row)))];
    if (choice) choice.checked = true;
    else box.open = true;
  }
  row?.scrollIntoView();
}

[...document.querySelectorAll("table")].filter(table => table.tHead).forEach(makeSortable);
addEventListener("click", event => reveal(event.target.closest("a")?.getAttribute("href")));
addEventListener("hashchange", () => reveal(location.hash));
reveal(location.hash);
