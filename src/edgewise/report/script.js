"use strict";
(() => {
  const tip = document.getElementById("tip");
  const marked = (node) => node && node.closest && node.closest("[data-tip]");

  const place = (x, y) => {
    const { width, height } = tip.getBoundingClientRect();
    const left = Math.min(Math.max(x + 14, 8), innerWidth - width - 8);
    const top = y + 16 + height > innerHeight - 8 ? y - height - 12 : y + 16;
    tip.style.left = `${Math.max(left, 8)}px`;
    tip.style.top = `${Math.max(top, 8)}px`;
  };

  let current = null;
  const edges = new Map();
  const light = (node, on) => {
    node.classList.toggle("on", on);
    for (const edge of edges.get(node.dataset.id) || []) edge.classList.toggle("on", on);
  };
  const show = (node, x, y) => {
    if (current === node) return;
    if (current) light(current, false);
    current = node;
    tip.hidden = !node;
    if (!node) return;
    light(node, true);
    tip.textContent = node.dataset.tip;
    place(x, y);
  };
  document.addEventListener("pointerover", (event) => show(marked(event.target), event.clientX, event.clientY));
  document.addEventListener("focusin", ({ target }) => {
    if (!target.matches("abbr")) return;
    const { left, bottom } = target.getBoundingClientRect();
    show(target, left, bottom - 8);
  });
  document.addEventListener("focusout", ({ target }) => { if (target.matches("abbr")) show(null); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") show(null); });

  // What is open stays so when the contents of a live page are replaced.
  const folds = new Set();
  document.addEventListener("toggle", ({ target }) => {
    if (target.matches(".fold")) folds[target.open ? "add" : "delete"](target.id);
  }, true);

  const wake = (root) => {
  show(null);
  // Titles are the fallback without this script; with it they become one readable tooltip.
  for (const title of root.querySelectorAll(".network title")) {
    title.parentNode.dataset.tip = title.textContent;
    title.remove();
  }
  for (const word of root.querySelectorAll("abbr[title]")) {
    word.dataset.tip = word.title;
    word.removeAttribute("title");
  }
  for (const id of folds) {
    const section = root.querySelector(`#${id}`);
    if (section) section.open = true;
  }
  edges.clear();
  for (const edge of root.querySelectorAll("[data-ends]"))
    for (const end of new Set(edge.dataset.ends.split(" "))) {
      if (!edges.has(end)) edges.set(end, []);
      edges.get(end).push(edge);
    }
  // One stop for the keyboard in each figure; arrow keys walk over what is in it.
  for (const figure of root.querySelectorAll("[data-walk]")) {
    const stops = [...figure.querySelectorAll("g[data-tip], .mark[data-tip]")];
    let at = -1;
    figure.setAttribute("tabindex", "0");
    figure.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step || !stops.length) return;
      event.preventDefault();
      at = (at + step + stops.length) % stops.length;
      stops[at].scrollIntoView({ block: "nearest", inline: "nearest" });
      const { right, bottom } = stops[at].getBoundingClientRect();
      show(stops[at], right - 10, bottom - 12);
    });
    figure.addEventListener("blur", () => show(null));
  }

  for (const pane of root.querySelectorAll(".fold:has(.stage)")) {
    const stage = pane.querySelector(".stage");
    const svg = stage.querySelector("svg.network"), { width, height } = svg.viewBox.baseVal;
    let zoom = 1;
    const setZoom = (value, x = stage.clientWidth / 2, y = stage.clientHeight / 2) => {
      const next = Math.min(Math.max(value, 0.15), 4);
      const left = (stage.scrollLeft + x) / zoom, top = (stage.scrollTop + y) / zoom;
      zoom = next;
      svg.setAttribute("width", width * zoom);
      svg.setAttribute("height", height * zoom);
      stage.scrollLeft = left * zoom - x;
      stage.scrollTop = top * zoom - y;
    };
    const fit = () => setZoom((stage.clientWidth - 16) / width);
    pane.querySelector(".zoom").addEventListener("click", (event) => {
      const kind = event.target.dataset.zoom;
      if (kind === "fit") fit();
      else if (kind) setZoom(zoom * (kind === "in" ? 1.3 : 1 / 1.3));
    });
    stage.addEventListener("keydown", (event) => {
      const factor = { "+": 1.3, "=": 1.3, "-": 1 / 1.3 }[event.key];
      if (event.ctrlKey || event.metaKey) return;
      if (factor) setZoom(zoom * factor);
      else if (event.key === "0") fit();
    });
    // The wheel alone scrolls, so that the page does not get stuck here; with Ctrl it zooms.
    stage.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const box = stage.getBoundingClientRect();
      setZoom(zoom * Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    let held = null;
    stage.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "mouse" || event.button) return;
      held = { x: event.clientX + stage.scrollLeft, y: event.clientY + stage.scrollTop };
      stage.classList.add("held");
    });
    addEventListener("pointermove", (event) => {
      if (!held) return;
      stage.scrollLeft = held.x - event.clientX;
      stage.scrollTop = held.y - event.clientY;
    });
    addEventListener("pointerup", () => { held = null; stage.classList.remove("held"); });
    const begin = () => {
      if (!stage.clientWidth) return pane.addEventListener("toggle", begin, { once: true });
      if (width > stage.clientWidth - 16) setZoom(Math.max((stage.clientWidth - 16) / width, 0.75), 0, 0);
    };
    begin();
  }
  };
  document.addEventListener("edgewise:contents", (event) => wake(event.detail));
  wake(document);
})();
