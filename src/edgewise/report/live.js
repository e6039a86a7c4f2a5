"use strict";
(() => {
  const { body } = document;
  let seen = "";
  // The contents are asked for again and again, and replaced where they have changed.
  const ask = async () => {
    try {
      const answer = await fetch("contents", { headers: { "If-None-Match": seen } });
      if (answer.status === 200) {
        seen = answer.headers.get("ETag") || "";
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
        document.querySelector("main").replaceWith(fresh);
        document.dispatchEvent(new CustomEvent("edgewise:contents", { detail: fresh }));
      }
      body.dataset.live = answer.ok || answer.status === 304 ? "on" : "failed";
    } catch {
      body.dataset.live = "ended";
    }
    setTimeout(ask, 2000);
  };
  ask();
})();
