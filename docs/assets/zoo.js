// Sorts and filters the table of the zoo. Without it the table is whole, and plain.

const numeric = (cell) => {
  const number = parseFloat(cell.textContent);
  return Number.isNaN(number) ? -Infinity : number;
};

const words = (cell) => cell.textContent.toLowerCase();

function enliven(place) {
  const table = place.querySelector("table"), body = table.tBodies[0], rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells], controls = place.querySelector(".zoo-controls");
  const [search, withWeights] = controls.querySelectorAll("input"), family = controls.querySelector("select");
  const count = controls.querySelector("output");
  const top1 = heads.findIndex((head) => head.textContent === "source");

  heads.forEach((head, column) => {
    const number = head.hasAttribute("data-number"), button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const compare = number
        ? (a, b) => numeric(a.cells[column]) - numeric(b.cells[column])
        : (a, b) => (words(a.cells[column]) < words(b.cells[column]) ? -1 : 1);
      body.append(...rows.toSorted((a, b) => (down ? -1 : 1) * compare(a, b)));
    });
  });
  for (const name of new Set(rows.map((row) => row.cells[0].textContent))) family.add(new Option(name, name));

  function filter() {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = wanted.every((word) => text.includes(word)) && (!family.value || row.cells[0].textContent === family.value)
        && (!withWeights.checked || row.cells[top1].textContent !== "");
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${rows.length}`;
  }
  for (const control of [search, family, withWeights]) control.addEventListener("input", filter);
  controls.hidden = false;
  filter();
}

document.querySelectorAll(".zoo").forEach(enliven);
