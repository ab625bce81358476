"use strict";
// Gives every figure of the page its rows, lets Vega draw it, and tells all of them when the metric or the strategies
// in colour change. Vega runs its expressions through an interpreter (ast), so that the page needs no eval.
(async () => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const views = [];
  const isNumber = (value) => typeof value === "number";

  function everyScore() {
    const rows = [];
    for (const { strategy, title, kind, matrices } of page.strategies)
      for (const [metric, matrix] of Object.entries(matrices))
        matrix.forEach((row, after) => row.forEach((score, pair) => {
          if (isNumber(score)) rows.push({ strategy, title, kind, metric, after: after + 1, step: page.steps[after],
                                           pair_number: pair + 1, pair: page.steps[pair], score });
        }));
    return rows;
  }

  function learnedSoFar() {
    const rows = [];
    for (const { strategy, title, kind, matrices } of page.strategies)
      for (const [metric, matrix] of Object.entries(matrices))
        matrix.forEach((row, after) => {
          const known = row.slice(0, after + 1).filter(isNumber);
          const score = known.reduce((sum, value) => sum + value, 0) / known.length;
          if (known.length) rows.push({ strategy, title, kind, metric, after: after + 1, step: page.steps[after],
                                        pair: "mean of " + known.length, score });
        });
    return rows;
  }

  function summaries() {
    return page.strategies.flatMap(({ matrices, summary, ...strategy }) =>
      Object.entries(summary).map(([metric, figures]) => ({ ...strategy, metric, ...figures })));
  }

  const scores = everyScore();
  const rowsOf = {
    average: () => ({ learned: learnedSoFar() }),
    pair: (figure) => ({ pair: scores.filter((row) => row.pair_number === Number(figure.pair) + 1) }),
    matrix: (figure) => ({ matrix: scores.filter((row) => row.strategy === figure.strategy) }),
    stability: () => ({ summary: summaries() }),
    bytes: () => ({ summary: summaries() }),
    cost: () => ({ summary: summaries() }),
  };
  const top = (metric) => Math.max(1, ...scores.filter((row) => row.metric === metric).map((row) => row.score));

  const select = document.getElementById("metric");
  const boxes = [...document.querySelectorAll("#picked input")];

  function chosen() {
    const picked = boxes.filter((box) => box.checked).map((box) => box.value);
    return { metric: select.value, picked, top: top(select.value) };
  }
  const change = () => Promise.all(views.map((view) => {
    for (const [name, value] of Object.entries(chosen())) view.signal(name, value);
    return view.runAsync();
  }));
  select.addEventListener("change", change);
  boxes.forEach((box) => box.addEventListener("change", change));

  const params = Object.entries(chosen()).map(([name, value]) => ({ name, value }));
  const options = { renderer: "svg", actions: false, ast: true, defaultStyle: false, logLevel: 1 }; // 1: errors only
  for (const figure of document.querySelectorAll("[data-chart]")) {
    const { chart } = figure.dataset;
    const spec = { ...page.specs[chart], params, config: page.config, datasets: rowsOf[chart](figure.dataset) };
    const isPlane = "summary" in spec.datasets;
    const patch = (vega) => ({ ...vega, marks: isPlane ? [...vega.marks, page.labels] : vega.marks });
    views.push((await vegaEmbed(figure, spec, { ...options, patch })).view);
  }
  document.documentElement.dataset.drawn = String(views.length);
})();
