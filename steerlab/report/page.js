"use strict";
(() => {
  const all = (what, where = document) => [...where.querySelectorAll(what)];
  const tip = document.getElementById("tip");

  // Tables: a text and, for the samples, choices say which rows are there; a click on a heading orders them.
  const rows = (table) => [...table.tBodies[0].rows];
  const bars = all(".filterbar").map((bar) => {
    const find = bar.querySelector(".find");
    const table = document.getElementById(find.getAttribute("aria-controls"));
    const choices = all(".choose", bar);
    const update = () => {
      const words = find.value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows(table)) {
        const text = row.textContent.toLocaleLowerCase();
        const fits = words.every((word) => text.includes(word)) &&
          choices.every((one) => !one.value || row.dataset[one.dataset.name] === one.value);
        row.hidden = !fits;
        shown += fits;
      }
      bar.querySelector(".count").textContent = `${shown} of ${rows(table).length} rows`;
    };
    find.addEventListener("input", update);
    choices.forEach((one) => one.addEventListener("change", update));
    update();
    return { bar, find, choices, update };
  });
  const samples = bars.find((one) => one.bar.id === "filters");
  const clear = document.getElementById("clear");
  if (clear) {
    clear.addEventListener("click", () => {
      samples.find.value = "";
      samples.choices.forEach((one) => { one.value = ""; });
      samples.update();
      samples.find.focus();
    });
  }

  const number = (text) => (/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?( =)?$/i.test(text) ? parseFloat(text) : NaN);
  all(".sort").forEach((button) => button.addEventListener("click", () => {
    const head = button.closest("th");
    const table = head.closest("table");
    const up = head.getAttribute("aria-sort") !== "ascending";
    all("thead th", table).forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const keyed = rows(table).map((row) => {
      const text = row.cells[head.cellIndex].textContent.trim();
      return { row, text, value: number(text) };
    });
    keyed.sort((a, b) => {
      const numbers = !Number.isNaN(a.value) && !Number.isNaN(b.value);
      if (!numbers && Number.isNaN(a.value) !== Number.isNaN(b.value)) return Number.isNaN(a.value) ? 1 : -1;
      const order = numbers ? a.value - b.value : a.text.localeCompare(b.text);
      return up ? order : -order;
    });
    table.tBodies[0].append(...keyed.map((one) => one.row));
  }));

  // Charts: one of them or all; a mark says its numbers and leads to its samples.
  const metric = document.getElementById("metric");
  const charts = all(".chart");
  if (metric) {
    const choose = () => charts.forEach((one) => { one.hidden = Boolean(metric.value) && one.dataset.metric !== metric.value; });
    metric.addEventListener("change", choose);
    metric.value = charts.length ? charts[0].dataset.metric : "";
    choose();
  }
  const say = (mark) => {
    const place = mark.querySelector(".hit").getBoundingClientRect();
    tip.textContent = mark.getAttribute("aria-label");
    tip.hidden = false;
    tip.style.left = `${Math.max(4, Math.min(place.right + 6, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, place.top - tip.offsetHeight - 4)}px`;
  };
  const quiet = () => { tip.hidden = true; };
  const open = (mark) => {
    if (!samples) return;
    samples.find.value = "";
    samples.choices.forEach((one) => {
      const wanted = mark.dataset[one.dataset.name] || "";
      one.value = [...one.options].some((option) => option.value === wanted) ? wanted : "";
    });
    samples.update();
    quiet();
    document.getElementById("samples").scrollIntoView();
    samples.find.focus({ preventScroll: true });
  };
  charts.forEach((chart) => {
    const marks = all(".mark", chart);
    marks.forEach((mark, i) => {
      mark.addEventListener("mouseenter", () => say(mark));
      mark.addEventListener("mouseleave", quiet);
      mark.addEventListener("focus", () => say(mark));
      mark.addEventListener("blur", quiet);
      mark.addEventListener("click", () => open(mark));
      mark.addEventListener("keydown", (event) => {
        const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          open(mark);
        } else if (event.key === "Escape") {
          quiet();
        } else if (step) {
          event.preventDefault();
          const next = marks[(i + step + marks.length) % marks.length];
          marks.forEach((one) => { one.tabIndex = one === next ? 0 : -1; });
          next.focus();
        }
      });
    });
  });
  addEventListener("scroll", quiet, { passive: true });
})();
