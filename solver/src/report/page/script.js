"use strict";
(() => {
  const all = (selector, within = document) => Array.from(within.querySelectorAll(selector));
  const byId = (id) => document.getElementById(id);
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

  // A link to a step opens it.
  const show = (hash, moves) => {
    const step = /^#e\d+$/.test(hash) && byId(hash.slice(1));
    if (!step) return;
    step.hidden = false;
    step.open = true;
    all("details.chosen").forEach((other) => other.classList.remove("chosen"));
    step.classList.add("chosen");
    if (moves) {
      step.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
      step.querySelector("summary").focus({ preventScroll: true });
    }
  };
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element && event.target.closest("a");
    if (!link) return;
    const hash = link.getAttribute("href");
    if (!/^#e\d+$/.test(hash)) return;
    event.preventDefault();
    history.replaceState(null, "", hash);
    show(hash, true);
  });
  addEventListener("hashchange", () => show(location.hash, true));
  if (location.hash) show(location.hash, true);

  // The timeline.
  const lanes = byId("lanes");
  let zoom = 1;
  all("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
    const view = lanes.parentElement;
    const middle = (view.scrollLeft + view.clientWidth / 2) / lanes.clientWidth;
    zoom = { in: Math.min(zoom * 2, 64), out: Math.max(zoom / 2, 1), fit: 1 }[button.dataset.zoom];
    lanes.style.width = zoom * 100 + "%";
    view.scrollLeft = middle * lanes.clientWidth - view.clientWidth / 2;
  }));

  // The graph. It fits into the page, unless it could not be read then.
  const drawing = byId("drawing");
  if (drawing) {
    const picture = drawing.querySelector("svg");
    const natural = picture.viewBox.baseVal.width;
    const fit = () => Math.min(1, Math.max(drawing.clientWidth / natural, 0.5));
    let scale = fit();
    const apply = () => {
      picture.style.maxWidth = "none";
      picture.style.width = natural * scale + "px";
    };
    apply();
    all("[data-scale]").forEach((button) => button.addEventListener("click", () => {
      scale = { in: Math.min(scale * 1.25, 3), out: Math.max(scale / 1.25, 0.15), fit: fit() }[button.dataset.scale];
      apply();
    }));
  }

  // The table.
  const table = byId("table");
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim().toLowerCase() : Number(cell.dataset.value);
  };
  const heads = table ? all("th", table) : [];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const falls = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falls < 0 ? "descending" : "ascending");
    const rows = all("tbody tr", table).sort((a, b) => {
      const [x, y] = [value(a, column), value(b, column)];
      return falls * (x < y ? -1 : x > y ? 1 : 0);
    });
    table.tBodies[0].append(...rows);
  }));

  const filter = byId("filter");
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    all("tbody tr", table).forEach((row) => {
      const step = byId(row.dataset.for);
      const text = (row.textContent + " " + step.textContent).toLowerCase();
      const fits = words.every((word) => text.includes(word));
      row.hidden = !fits;
      step.hidden = !fits;
      found += fits ? 1 : 0;
    });
    byId("found").textContent = words.length ? found + (found === 1 ? " step" : " steps") : "";
  };
  if (filter) {
    filter.addEventListener("input", apply);
    if (filter.value) apply();
  }
  all("[data-all]").forEach((button) => button.addEventListener("click", () => {
    all("details.step").forEach((step) => { if (!step.hidden) step.open = button.dataset.all === "open"; });
  }));
})();
