// Sorts and filters the table of the zoo, names the points of its plot, and adds buttons that copy names. Without it all of it is plain.

const numeric = (cell) => {
  const number = parseFloat(cell.textContent);
  return Number.isNaN(number) ? -Infinity : number;
};

const words = (cell) => cell.textContent.toLowerCase();

function enliven(place) {
  const table = place.querySelector(".zoo-full"), body = table.tBodies[0], rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells], controls = place.querySelector(".zoo-controls");
  const [search, withWeights] = controls.querySelectorAll("input"), family = controls.querySelector("select");
  const count = controls.querySelector("output"), points = place.querySelectorAll("circle");
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
    const names = new Set();
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = wanted.every((word) => text.includes(word)) && (!family.value || row.cells[0].textContent === family.value)
        && (!withWeights.checked || row.cells[top1].textContent !== "");
      row.hidden = !fits;
      if (fits) names.add(row.cells[1].textContent);
    }
    count.textContent = `${names.size} of ${rows.length}`;
    for (const point of points) point.classList.toggle("off", !names.has(point.dataset.name));
  }
  for (const control of [search, family, withWeights]) control.addEventListener("input", filter);
  controls.hidden = false;
  filter();
}

/** Names the nearest point under the pointer; a click filters the table by its name. */
function namePoints(figure) {
  const picture = figure.querySelector("svg"), name = figure.querySelector(".zoo-point"), near = 24; // pixels
  const search = figure.parentElement.querySelector("input[type=search]");
  const points = [...figure.querySelectorAll("circle")];
  let current = null;
  function look(event) {
    let distance = near;
    current?.classList.remove("here");
    current = null;
    for (const point of points) {
      const box = point.getBoundingClientRect();
      const apart = Math.hypot(event.clientX - box.x - box.width / 2, event.clientY - box.y - box.height / 2);
      if (apart < distance && !point.classList.contains("off")) [distance, current] = [apart, point];
    }
    current?.classList.add("here");
    name.textContent = current?.querySelector("title").textContent ?? "";
  }
  picture.addEventListener("pointermove", look);
  picture.addEventListener("click", (event) => {
    look(event);
    if (!current) return;
    search.value = current.dataset.name;
    search.dispatchEvent(new Event("input"));
  });
}

/** Adds a button to each name in the tables that copies it, and lets long names break at dots and underscores. */
function addCopyButtons() {
  const names = document.querySelectorAll(".zoo-table td > code");
  if (!names.length) return;
  const status = document.createElement("div");
  status.className = "zoo-status";
  status.setAttribute("role", "status");
  document.querySelector(".md-content__inner").append(status);
  for (const code of names) {
    const button = document.createElement("button"), name = code.textContent;
    code.replaceChildren(...name.split(/(?<=[._])/).flatMap((part) => [part, document.createElement("wbr")]));
    if (!navigator.clipboard) continue; // pages without https cannot copy
    button.type = "button";
    button.className = "zoo-copy";
    button.title = `Copy ${name}`;
    button.setAttribute("aria-label", `Copy ${name}`);
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(name);
      status.textContent = `Copied ${name}`;
      button.classList.add("zoo-copied");
      setTimeout(() => button.classList.remove("zoo-copied"), 1500);
    });
    code.after(button);
  }
}

document.querySelectorAll(".zoo").forEach(enliven);
document.querySelectorAll(".zoo-plot").forEach(namePoints);
addCopyButtons();
