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

[...document.querySelectorAll("table")].filter(table => table.tHead).forEach(makeSortable);
