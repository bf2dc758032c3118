const read = (id) => JSON.parse(document.getElementById(id).textContent);
const $ = (id) => document.getElementById(id);
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

// ---------------------------------------------------------------------------- charts

const charts = read("chart-data");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function vegaConfig() {
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

const views = new Map();
async function drawCharts() {
  for (const [name, spec] of Object.entries(charts)) {
    const element = $(`chart-${name}`);
    views.get(name)?.finalize();
    const fitted = structuredClone(spec);
    if (spec.columns) fitted.columns = element.clientWidth < 700 ? 2 : spec.columns;
    const actions = { export: true, source: false, compiled: false, editor: false };
    views.set(name, await vegaEmbed(element, fitted, {
      renderer: "svg", actions, config: vegaConfig(), downloadFileName: name,
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

const darkSystem = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (darkSystem.matches ? "dark" : "light")) === "dark";
$("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  drawCharts();
});
darkSystem.addEventListener("change", drawCharts);
drawCharts();

// ---------------------------------------------------------------------------- tables

for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead button").forEach((button, column) => {
    button.addEventListener("click", () => {
      const heading = button.parentElement, body = table.tBodies[0];
      const ascending = heading.getAttribute("aria-sort") === "descending";
      const value = (row) => {
        const text = row.cells[column].textContent.trim();
        const number = Number.parseFloat(text.replaceAll(",", "").replace("−", "-"));
        return column && !Number.isNaN(number) ? number : text;
      };
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if ((x === "") !== (y === "")) return x === "" ? 1 : -1;
        const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
        return ascending ? order : -order;
      });
      for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}

// ---------------------------------------------------------------------------- gallery

const cards = read("card-data");
const STEP = 24;
let chosen = [], limit = STEP, open = 0;

for (const name of [...new Set(cards.map((card) => card.name))].sort()) {
  $("g-class").append(make("option", { value: name }, name));
}

function rectangle(box, kind) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  const [x0, y0, x1, y1] = box;
  for (const [name, value] of Object.entries({ class: kind, x: x0, y: y0, width: x1 - x0, height: y1 - y0 })) {
    element.setAttribute(name, value);
  }
  return element;
}

function frame(card, method, height) {
  const [width, tall] = card.size, element = make("span", { class: "frame" });
  element.style.aspectRatio = `${width} / ${tall}`;
  element.style.display = "block";
  element.style.width = `min(100%, calc(${height} * ${width / tall}))`;
  if (card.image === null) {
    element.append(make("p", {}, `cannot be shown: ${card.problem}`));
    return element;
  }
  element.append(make("img", { src: card.image, alt: card.name }));
  const map = card.maps[$("g-map").value];
  if (map) element.append(make("img", { src: map, alt: "" }));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 1 1");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const predicted = card.predictions[method]?.box;
  for (const box of card.truth) svg.append(rectangle(box, "halo"), rectangle(box, "truth"));
  if (predicted) svg.append(rectangle(predicted, "halo"), rectangle(predicted, "predicted"));
  element.append(svg);
  return element;
}

const hitOrMiss = (prediction) => (prediction.correct ? "hit" : "miss");
const verdict = (card, method) => {
  const prediction = card.predictions[method];
  return prediction ? `IoU ${prediction.iou.toFixed(2)}, ${hitOrMiss(prediction)}` : "no box";
};

function showCards() {
  const method = $("g-method").value, name = $("g-class").value, wanted = $("g-hit").value;
  const iou = (card) => card.predictions[method]?.iou ?? -1;
  const hit = (card) => Boolean(card.predictions[method]?.correct);
  chosen = cards.filter((card) =>
    (!name || card.name === name) && (!wanted || hit(card) === (wanted === "hit")));
  const order = $("g-order").value;
  if (order !== "drawn") chosen.sort((a, b) => (order === "low" ? 1 : -1) * (iou(a) - iou(b)));
  const hits = chosen.filter(hit).length, boxless = chosen.filter((card) => !card.predictions[method]).length;
  $("g-count").textContent = `${chosen.length} images: ${hits} hits, ${chosen.length - hits} misses`
    + (boxless ? `, ${boxless} of these without a box` : "");
  $("cards").replaceChildren(...chosen.slice(0, limit).map((card, i) => {
    const button = make("button", { class: "card", type: "button" },
      make("span", { class: "window" }, frame(card, method, "var(--window)")),
      make("span", { class: "caption" }, make("b", {}, card.name), make("span", {}, verdict(card, method))));
    button.addEventListener("click", () => showCloser(i));
    return button;
  }));
  $("g-more").hidden = chosen.length <= limit;
}

function showCloser(i) {
  open = (i + chosen.length) % chosen.length;
  const card = chosen[open], method = $("g-method").value;
  const rows = Object.entries(card.predictions).map(([title, prediction]) =>
    make("tr", {}, make("th", { scope: "row" }, title), make("td", {}, prediction.iou.toFixed(2)), make("td", {}, hitOrMiss(prediction))));
  $("closer").querySelector(".inside").replaceChildren(
    frame(card, method, "62vh"),
    make("p", {}, make("b", {}, card.name), ` (${card.wnid}), ${card.size.join(" × ")} pixels, ${verdict(card, method)}. `,
      card.recognised ? "The classifier says so too." : `The classifier says: ${card.predicted}.`),
    make("details", {}, make("summary", {}, "every method on this image"), make("table", {}, make("tbody", {}, ...rows))),
    make("p", { class: "note" }, card.id));
  if (!$("closer").open) $("closer").showModal();
}

for (const id of ["g-method", "g-class", "g-hit", "g-order", "g-map"]) {
  $(id).addEventListener("input", () => { limit = STEP; showCards(); });
}
$("g-more").addEventListener("click", () => { limit += STEP; showCards(); });
$("previous").addEventListener("click", () => showCloser(open - 1));
$("next").addEventListener("click", () => showCloser(open + 1));
$("close").addEventListener("click", () => $("closer").close());
document.addEventListener("keydown", (event) => {
  if (!$("closer").open) return;
  if (event.key === "ArrowLeft") showCloser(open - 1);
  if (event.key === "ArrowRight") showCloser(open + 1);
});
showCards();
