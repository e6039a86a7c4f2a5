"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const settings = {
    displaylogo: false, responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };

  // Charts name the page's colours as `var(--o-…)`; plotly wants the colours themselves.
  const probe = document.createElement("i");
  document.body.append(probe);
  const coloured = (value) => {
    if (typeof value === "string") {
      if (!value.startsWith("var(")) return value;
      probe.style.color = value;
      return getComputedStyle(probe).color;
    }
    if (Array.isArray(value)) return value.map(coloured);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, coloured(inner)]));
  };

  // What is folded away has no width yet: it is drawn when it is opened.
  const draw = (plot, size = {}) => {
    if (plot.closest(".fold:not([open])")) return;
    const canvas = plot.querySelector(".canvas");
    const { data, layout } = coloured(JSON.parse(plot.querySelector("script").textContent));
    if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false; // a finger scrolls the page
    Plotly.react(canvas, data, { ...layout, ...size }, settings);
  };

  const all = (size, root = document) => { for (const plot of root.querySelectorAll(".plot")) draw(plot, size); };
  dark.addEventListener("change", () => all());
  document.addEventListener("toggle", ({ target }) => {
    if (target.matches(".fold[open]")) all({}, target);
  }, true);

  // On paper all is open, in the colours and the width of a page.
  let shut = [];
  addEventListener("beforeprint", () => {
    shut = [...document.querySelectorAll(".fold:not([open])")];
    for (const section of shut) section.open = true;
    document.documentElement.style.colorScheme = "light";
    for (const plot of document.querySelectorAll(".plot"))
      draw(plot, { width: 660, height: plot.querySelector(".map") ? 600 : plot.querySelector(".square") ? 440 : 320 });
  });
  addEventListener("afterprint", () => {
    document.documentElement.style.colorScheme = "";
    for (const section of shut) section.open = false;
    all({ width: undefined, height: undefined });
  });
  document.addEventListener("edgewise:contents", () => all());
  all();
})();
