"use strict";
(() => {
  const spoken = document.getElementById("spoken");

  // Sorting: numbers by data-value, texts by locale; what was not measured always comes last; equal rows keep their order.
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    if (cell.classList.contains("absent")) return null;
    return cell.dataset.value !== undefined ? Number(cell.dataset.value) : cell.textContent.trim();
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
  const sort = (table, header) => {
    const column = header.cellIndex;
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row, place) => ({ row, place, key: keyOf(row, column) }));
    rows.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
      return (down ? -1 : 1) * compare(a.key, b.key) || a.place - b.place;
    });
    body.append(...rows.map((entry) => entry.row));
    spoken.textContent = `${table.caption.textContent}: sorted by ${header.textContent.trim()}, ${down ? "descending" : "ascending"}`;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const header of table.tHead.rows[0].cells) header.querySelector("button").addEventListener("click", () => sort(table, header));
  }

  // Searching a sample by a part of its id.
  const held = document.getElementById("search-data");
  if (!held) return;
  const data = JSON.parse(held.textContent);
  const box = document.getElementById("search-box");
  const said = document.getElementById("search-said");
  const table = document.getElementById("table-found");
  const MOST = 50;
  const cell = (text, number) => {
    const made = document.createElement("td");
    made.textContent = text;
    if (number !== undefined) {
      made.className = number === null ? "number absent" : "number";
      if (number !== null) made.dataset.value = number;
    }
    return made;
  };
  const show = () => {
    const wanted = box.value.trim().toLowerCase();
    const found = wanted ? data.records.filter((record) => record[0].toLowerCase().includes(wanted)) : [];
    found.sort((a, b) => (b[0].toLowerCase() === wanted) - (a[0].toLowerCase() === wanted));
    table.tBodies[0].replaceChildren(...found.slice(0, MOST).map(([id, label, reason, score, suspicion]) => {
      const row = document.createElement("tr");
      const name = document.createElement("th");
      name.scope = "row";
      name.className = "id";
      name.textContent = id;
      row.append(name, cell(label < 0 ? "unlabelled" : data.classes ? data.classes[label] : `class ${label}`), cell(data.reasons[reason]));
      row.append(cell(score === null ? "not finite" : score, score), cell(suspicion, suspicion));
      return row;
    }));
    table.hidden = !found.length;
    if (!wanted) said.textContent = "";
    else if (!found.length) said.textContent = `No id in this list holds “${box.value.trim()}”.`;
    else said.textContent = `${found.length} found${found.length > MOST ? `, the first ${MOST} are shown` : ""}.`;
  };
  box.addEventListener("input", show);
  document.getElementById("search-form").addEventListener("submit", (event) => { event.preventDefault(); show(); });
})();
