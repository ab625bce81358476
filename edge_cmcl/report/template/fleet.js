"use strict";
// Draws the charts of a fleet and lets its tables be sorted and searched. Vega runs its expressions through an
// interpreter (ast), so that the page needs no eval. Texts reach the page as text only.
(async () => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  if (!page.devices.length) { root.dataset.drawn = "0"; return; }
  const words = { device: "the device's, of what it had in use", offer: "the device's, of what it was offered",
                  host: "the host's" };
  const minute = (time) => time.slice(0, 16).replace("T", " ");

  const told = (whose, device, counter, digest, time, [pair, metrics, n, gallery, origin]) =>
    metrics.flatMap((score, i) => score === null ? [] : [{
      pair, whose, device, counter, score, metric: page.metrics[i], series: device + "/" + origin, at: Date.parse(time),
      when: minute(time), generation: (counter === null ? "" : counter + " ") + digest,
      word: (device ? device + ": " : "") + words[whose],
      judged: (n ? n + " pairs among " + gallery + ", " : "") + page.origins[origin] }]);
  const scores = [
    ...page.devices.flatMap(({ id, history }) => history.flatMap(([counter, digest, time, , , rows]) =>
      rows.flatMap((row) => told("device", id, counter, digest, time, row)))),
    ...page.others.flatMap((other) => told(...other)),
  ];
  const moved = page.devices.flatMap(({ id, history }) => history.map(([counter, digest, time, action, score]) =>
    ({ device: id, series: id, counter, action, score, at: Date.parse(time), when: minute(time),
       generation: counter + " " + digest })));

  const metric = document.getElementById("metric");
  const axis = document.getElementById("axis");
  const device = document.getElementById("device");
  const places = (row) => axis.value === "time" || row.counter !== null;
  const rowsOf = {
    pair: (figure) => ({ pair: scores.filter((row) => row.pair === Number(figure.dataset.pair) && places(row)) }),
    moved: () => ({ moved }),
  };
  const options = { renderer: "svg", actions: false, ast: true, defaultStyle: false, logLevel: 1 }; // 1: errors only
  let views = [];

  // A chart without a mark of the chosen metric would be an empty frame.
  function hideUntold() {
    const told = new Set(scores.filter((row) => row.metric === metric.value && places(row)).map((row) => row.pair));
    const untold = page.pairs.filter((_, i) => !told.has(i));
    document.querySelectorAll("[data-chart=pair]").forEach((chart) => {
      chart.closest("figure").hidden = !told.has(Number(chart.dataset.pair));
    });
    const note = document.getElementById("untold");
    note.hidden = !untold.length;
    note.textContent = "Not drawn, since nobody has told this metric of them: " + untold.join(", ") + ".";
  }

  async function draw() {
    delete root.dataset.drawn;
    views.forEach((view) => view.finalize());
    views = [];
    document.querySelectorAll("figure[hidden]").forEach((figure) => { figure.hidden = false; }); // to have a width
    const chosen = { metric: metric.value, picked: device.value, needed: page.needed };
    const params = Object.entries(chosen).map(([name, value]) => ({ name, value }));
    for (const figure of document.querySelectorAll("[data-chart]")) {
      const spec = { ...page.specs[axis.value][figure.dataset.chart], params, config: page.config,
                     datasets: rowsOf[figure.dataset.chart](figure) };
      views.push((await vegaEmbed(figure, spec, options)).view);
    }
    hideUntold();
    root.dataset.drawn = String(views.length);
  }

  function cell(tag, text, kind) {
    const made = document.createElement(tag);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  }

  function historyOf(id) {
    const section = document.getElementById("history");
    const found = page.devices.find((each) => each.id === id);
    section.hidden = !found;
    document.querySelectorAll("tr[data-device]").forEach((row) => row.classList.toggle("picked", row.dataset.device === id));
    if (!found) return;
    document.getElementById("one").textContent = "Device " + id;
    const rows = [...found.history].reverse().map(([counter, digest, time, action, worst, judged]) => {
      const own = judged.map(([pair, [mrr]]) => page.pairs[pair] + " " + mrr.toFixed(1)).join(", ");
      const row = document.createElement("tr");
      const head = cell("th", counter + " ");
      head.scope = "row";
      head.append(cell("span", digest, "digest"));
      row.append(head, cell("td", action, "text"), cell("td", minute(time), "text"), cell("td", worst.toFixed(2)),
                 cell("td", own || "-", "text wrap"));
      return row;
    });
    section.querySelector("tbody").replaceChildren(...rows);
  }

  async function pick(id) {
    device.value = id;
    historyOf(id);
    await Promise.all(views.map((view) => view.signal("picked", id).runAsync()));
  }
  metric.addEventListener("change", async () => {
    hideUntold();
    await Promise.all(views.map((view) => view.signal("metric", metric.value).runAsync()));
  });
  axis.addEventListener("change", draw);
  device.addEventListener("change", () => pick(device.value));
  document.addEventListener("click", ({ target }) => {
    const chosen = target.closest(".pick");
    if (!chosen) return;
    const id = chosen.dataset.device ?? chosen.closest("tr").dataset.device;
    pick(device.value === id ? "" : id);
  });

  const keyOf = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  for (const table of document.querySelectorAll("table.sortable"))
    table.querySelectorAll("thead button").forEach((button) => button.addEventListener("click", () => {
      const head = button.closest("th");
      const down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const order = (a, b) => keyOf(a, head.cellIndex).localeCompare(keyOf(b, head.cellIndex), "en", { numeric: true });
      const byNumber = (a, b) => Number(keyOf(a, head.cellIndex)) - Number(keyOf(b, head.cellIndex));
      const rows = [...body.rows];
      const numbers = rows.every((row) => keyOf(row, head.cellIndex) !== "" && !isNaN(keyOf(row, head.cellIndex)));
      rows.sort(numbers ? byNumber : order);
      body.append(...(down ? rows.reverse() : rows));
    }));

  const find = document.getElementById("find");
  function search() {
    const wanted = find.value.trim().toLowerCase();
    const rows = [...document.querySelectorAll("tr[data-device]")];
    rows.forEach((row) => { row.hidden = !row.textContent.toLowerCase().includes(wanted); });
    document.getElementById("found").textContent = wanted ? rows.filter((row) => !row.hidden).length + " of " + rows.length : "";
  }
  find.addEventListener("input", search);
  document.querySelectorAll("form").forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));

  await draw();
})();
