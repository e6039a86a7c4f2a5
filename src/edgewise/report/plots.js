"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const settings = {
    displaylogo: false, responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };

  // Charts name the page's colours as `var(--o-…)`; plotly wants the colours themselves.
  const coloured = (value, css) => {
    if (typeof value === "string") {
      const name = /^var\((--[\w-]+)\)$/.exec(value);
      return name ? coloured(css.getPropertyValue(name[1]).trim(), css) : value;
    }
    if (Array.isArray(value)) return value.map((inner) => coloured(inner, css));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, coloured(inner, css)]));
  };

  const draw = (plot) => {
    const { data, layout } = coloured(
      JSON.parse(plot.querySelector("script").textContent), getComputedStyle(document.documentElement));
    if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false; // a finger scrolls the page
    return Plotly.react(plot.querySelector(".canvas"), data, layout, settings);
  };

  const choose = (section, number) => {
    for (const card of section.querySelectorAll("[data-point]"))
      card.hidden = card.dataset.point !== number;
  };

  const wake = (root) => {
    for (const plot of root.querySelectorAll(".plot")) {
      draw(plot);
      plot.querySelector(".canvas").on("plotly_click", (event) => {
        const select = plot.parentNode.querySelector("[data-choose]");
        const key = event.points[0].customdata;
        if (!select || key === undefined) return;
        select.value = key;
        choose(plot.parentNode, select.value);
      });
    }
    for (const select of root.querySelectorAll("[data-choose]"))
      select.addEventListener("change", () => choose(select.closest("section"), select.value));
  };

  const all = () => document.querySelectorAll(".plot").forEach(draw);
  dark.addEventListener("change", all);
  document.addEventListener("edgewise:contents", (event) => wake(event.detail));
  wake(document);
})();
