const read = (id) => JSON.parse(document.getElementById(id).textContent);
const $ = (id) => document.getElementById(id);
const make = (tag, attributes = {}, ...inside) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...inside);
  return made;
};

// ---------------------------------------------------------------------------- charts

const charts = read("charts");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function look() {
  const [text, soft, grid, line] = ["--text", "--soft", "--grid", "--line"].map(colour);
  const dark = isDark();
  const category = dark
    ? ["#56b4e9", "#ff8a3c", "#2fd3a2", "#e79cc6", "#f2f2f2", "#e69f00", "#8fa8ff", "#c49a6c"]
    : ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#b87d00", "#56b4e9", "#7a5230"];
  const label = { labelColor: text, titleColor: soft, titleFontWeight: "normal" };
  return {
    background: null, font: getComputedStyle(document.body).fontFamily,
    view: { stroke: null }, range: { category },
    mark: { color: category[0] }, rule: { color: text }, text: { color: text }, line: { color: category[0] },
    bar: { color: category[0] }, point: { color: category[0] }, area: { color: category[0] },
    axis: { ...label, gridColor: grid, domainColor: line, tickColor: line, labelFontSize: 12, titleFontSize: 12 },
    legend: { ...label, labelFontSize: 12 }, header: { labelColor: text, labelFontSize: 13 },
  };
}

const drawn = new Map();
async function draw() {
  for (const [name, spec] of Object.entries(charts)) {
    const element = $(`chart-${name}`);
    drawn.get(name)?.finalize();
    const fitting = structuredClone(spec);
    if (spec.columns) fitting.columns = element.clientWidth < 700 ? 2 : spec.columns;
    const actions = { export: true, source: false, compiled: false, editor: false };
    drawn.set(name, await vegaEmbed(element, fitting, {
      renderer: "svg", actions, config: look(), downloadFileName: name,
    }));
    const svg = element.querySelector("svg.marks");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", element.dataset.label);
  }
  for (const id of ["class-search", "class-order", "class-method"]) {
    $(id).dispatchEvent(new Event("input"));
  }
  document.documentElement.dataset.ready = "yes";
}

const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
$("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  draw();
});
system.addEventListener("change", draw);
draw();

// ---------------------------------------------------------------------------- tables

for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead button").forEach((button, column) => {
    button.addEventListener("click", () => {
      const head = button.parentElement, body = table.tBodies[0];
      const up = head.getAttribute("aria-sort") === "descending";
      const value = (row) => {
        const text = row.cells[column].textContent.trim();
        const number = Number.parseFloat(text.replaceAll(",", "").replace("−", "-"));
        return column && !Number.isNaN(number) ? number : text;
      };
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if ((x === "") !== (y === "")) return x === "" ? 1 : -1;
        const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
        return up ? order : -order;
      });
      for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}

// ---------------------------------------------------------------------------- gallery

const images = read("images");
const STEP = 24;
let shown = [], limit = STEP, open = 0;

for (const name of [...new Set(images.map((one) => one.name))].sort()) {
  $("g-class").append(make("option", { value: name }, name));
}

function rect(box, kind) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  const [x0, y0, x1, y1] = box;
  for (const [name, value] of Object.entries({ class: kind, x: x0, y: y0, width: x1 - x0, height: y1 - y0 })) {
    element.setAttribute(name, value);
  }
  return element;
}

function frame(one, method, fit) {
  const [width, height] = one.size, made = make("span", { class: "frame" });
  made.style.aspectRatio = `${width} / ${height}`;
  made.style.display = "block";
  made.style.width = `min(100%, calc(${fit} * ${width / height}))`;
  if (one.image === null) {
    made.append(make("p", {}, `cannot be shown: ${one.lost}`));
    return made;
  }
  made.append(make("img", { src: one.image, alt: one.name }));
  if ($("g-map").checked) made.append(make("img", { src: one.map, alt: "" }));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 1 1");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const found = one.found[method]?.box;
  for (const box of one.truth) svg.append(rect(box, "halo"), rect(box, "truth"));
  if (found) svg.append(rect(found, "halo"), rect(found, "found"));
  made.append(svg);
  return made;
}

const said = (one, method) => {
  const found = one.found[method];
  return found ? `IoU ${found.iou.toFixed(2)}, ${found.correct ? "hit" : "miss"}` : "no box";
};

function fill() {
  const method = $("g-method").value, name = $("g-class").value, hit = $("g-hit").value;
  const iou = (one) => one.found[method]?.iou ?? -1;
  shown = images.filter((one) =>
    (!name || one.name === name) && (!hit || Boolean(one.found[method]?.correct) === (hit === "hit")));
  const order = $("g-order").value;
  if (order !== "drawn") shown.sort((a, b) => (order === "low" ? 1 : -1) * (iou(a) - iou(b)));
  const hits = shown.filter((one) => one.found[method]?.correct).length;
  $("g-count").textContent = `${shown.length} images: ${hits} hits, ${shown.length - hits} misses`;
  $("cards").replaceChildren(...shown.slice(0, limit).map((one, i) => {
    const card = make("button", { class: "card", type: "button" },
      make("span", { class: "window" }, frame(one, method, "var(--window)")),
      make("span", { class: "caption" }, make("b", {}, one.name), make("span", {}, said(one, method))));
    card.addEventListener("click", () => closer(i));
    return card;
  }));
  $("g-more").hidden = shown.length <= limit;
}

function closer(i) {
  open = (i + shown.length) % shown.length;
  const one = shown[open], method = $("g-method").value;
  const list = Object.entries(one.found).map(([name, found]) =>
    make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, found.iou.toFixed(2)), make("td", {}, found.correct ? "hit" : "miss")));
  $("closer").querySelector(".inside").replaceChildren(
    frame(one, method, "62vh"),
    make("p", {}, make("b", {}, one.name), ` (${one.wnid}), ${one.size.join(" × ")} pixels, ${said(one, method)}. `,
      one.recognised ? "The classifier says so too." : `The classifier says: ${one.says}.`),
    make("details", {}, make("summary", {}, "every method on this image"), make("table", {}, make("tbody", {}, ...list))),
    make("p", { class: "note" }, one.id));
  if (!$("closer").open) $("closer").showModal();
}

for (const id of ["g-method", "g-class", "g-hit", "g-order", "g-map"]) {
  $(id).addEventListener("input", () => { limit = STEP; fill(); });
}
$("g-more").addEventListener("click", () => { limit += STEP; fill(); });
$("previous").addEventListener("click", () => closer(open - 1));
$("next").addEventListener("click", () => closer(open + 1));
$("close").addEventListener("click", () => $("closer").close());
document.addEventListener("keydown", (event) => {
  if (!$("closer").open) return;
  if (event.key === "ArrowLeft") closer(open - 1);
  if (event.key === "ArrowRight") closer(open + 1);
});
fill();
