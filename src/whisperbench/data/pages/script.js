"use strict";
if (window !== window.parent) document.documentElement.classList.add("framed");

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const sort = () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = [...body.rows].map((row) => [row.cells[column].dataset.value, row]);
      const numeric = head.classList.contains("number");
      keyed.sort(([a], [b]) => {
        if (a === "" || b === "") return (a === "") - (b === ""); // cells without a value come last in both orders
        const order = numeric ? a - b : a.localeCompare(b, undefined, { numeric: true });
        return down ? -order : order;
      });
      body.append(...keyed.map(([, row]) => row));
    };
    head.tabIndex = 0;
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort();
    });
  });
}

for (const tools of document.querySelectorAll(".tools")) {
  const { rows } = document.getElementById(tools.dataset.table).tBodies[0];
  const [words, gpu, count] = ["input", "select", "output"].map((name) => tools.querySelector(name));
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !((!gpu.value || row.dataset.gpu === gpu.value) && wanted.every((word) => text.includes(word)));
    }
    count.textContent = `${[...rows].filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  words.addEventListener("input", filter);
  gpu.addEventListener("change", filter);
  filter();
}
