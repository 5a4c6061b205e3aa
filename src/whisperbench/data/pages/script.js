"use strict";
if (window !== window.parent) document.documentElement.classList.add("framed");

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const sort = () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = [...body.rows].map((row) => [row.cells[column].dataset.value ?? row.cells[column].textContent, row]);
      const numeric = head.classList.contains("number");
      keyed.sort(([a], [b]) => {
        if (a === "" || b === "") return (a === "") - (b === ""); // what was not measured comes last, either way
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
  const table = document.getElementById(tools.dataset.table);
  const board = tools.closest(".board");
  const [words, gpu, count] = ["input", "select", "output"].map((name) => tools.querySelector(name));
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = new Set();
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !((!gpu.value || row.dataset.gpu === gpu.value) && wanted.every((word) => text.includes(word)));
      if (!row.hidden) shown.add(row.dataset.run);
    }
    for (const point of board.querySelectorAll("svg [data-run]")) {
      point.toggleAttribute("hidden", !shown.has(point.dataset.run));
    }
    for (const front of board.querySelectorAll("svg [data-runs]")) {
      front.toggleAttribute("hidden", !front.dataset.runs.split(" ").every((run) => shown.has(run)));
    }
    for (const label of board.querySelectorAll("svg .label")) label.toggleAttribute("hidden", !shown.has(label.dataset.of));
    for (const bars of board.querySelectorAll(".bars")) {
      let room = Number(bars.dataset.most);
      for (const bar of bars.children) bar.hidden = !shown.has(bar.dataset.run) || room-- <= 0;
    }
    count.textContent = `${shown.size} of ${table.tBodies[0].rows.length}`;
  };
  words.addEventListener("input", filter);
  gpu.addEventListener("change", filter);
  filter();
}

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);
for (const point of document.querySelectorAll("svg.pareto .point")) {
  const title = point.querySelector("title");
  const text = title.textContent;
  title.remove();
  point.setAttribute("aria-label", text);
  const show = () => {
    const box = point.querySelector("g").getBoundingClientRect();
    tip.textContent = text;
    tip.hidden = false;
    tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${box.top - tip.offsetHeight - 8 > 0 ? box.top - tip.offsetHeight - 8 : box.bottom + 8}px`;
  };
  const hide = () => { tip.hidden = true; };
  for (const name of ["pointerenter", "focus"]) point.addEventListener(name, show);
  for (const name of ["pointerleave", "blur"]) point.addEventListener(name, hide);
}
