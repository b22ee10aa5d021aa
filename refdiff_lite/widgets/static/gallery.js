// Gallery: a wall of results, and a panel that tells one result's whole story.

function render(context) {
  return mount(context, (view) => {
    const { root, get, set } = view;
    const meta = get("_meta");
    const arrays = unpack(view.model);
    const { entries } = meta;
    const rim = () => getComputedStyle(root).getPropertyValue("--rim");
    const urls = Object.fromEntries(Object.keys(arrays).filter((n) => n.startsWith("image/")).map((n) => [n, pictureUrl(arrays[n])]));
    const live = liveLine(view);
    let opener = null;

    function mask(i, which) {
      const [rows, columns] = entries[i].size;
      const bits = arrays[`${i}/masks`];
      const start = which * bits.shape[1];
      return Uint8Array.from({ length: rows * columns }, (_, p) => (bits[start + (p >> 3)] >> (p & 7)) & 1);
    }

    function pane(i, label, draw) {
      const [rows, columns] = entries[i].size;
      const it = picturePane(view, urls[`image/${entries[i].image}`], columns / rows, { label });
      it.title.textContent = label;
      draw?.(it.canvas, rows, columns);
      return it.el;
    }

    function shown() {
      const kept = entries.map((_, i) => i).filter((i) => ["style", "cause"].every((k) => !get(k) || entries[i][k] === get(k)));
      const sign = { worst: 1, best: -1 }[get("order")];
      return sign ? kept.sort((a, b) => sign * (entries[a].iou - entries[b].iou)) : kept;
    }

    // ---- the wall; cards are made once and painted when they are first seen
    const seen = new IntersectionObserver((changes) => {
      for (const { isIntersecting, target } of changes) {
        if (!isIntersecting) continue;
        seen.unobserve(target);
        const i = Number(target.dataset.i);
        paintMask(target.querySelector("canvas"), mask(i, 0), ...entries[i].size, rim());
      }
    }, { rootMargin: "200px" });
    view.undo.push(() => seen.disconnect());
    const cards = entries.map((e, i) => {
      const card = h("button", {
        type: "button", class: "rdl-card", "data-i": i, "aria-label": `${e.text}; IoU ${e.iou.toFixed(2)}, ${e.cause}`, onclick: () => set("opened", i),
      },
        h("span", { class: "rdl-stage", style: `aspect-ratio:${e.size[1] / e.size[0]}` }, h("img", { src: urls[`image/${e.image}`], alt: "", loading: "lazy" }), h("canvas", { class: "rdl-over" })),
        h("span", { class: "rdl-said" }, e.text),
        h("span", { class: "rdl-facts" }, h("i", { style: `width:${100 * e.iou}%` }), h("b", {}, e.iou.toFixed(2)), h("span", {}, e.cause)));
      seen.observe(card);
      return card;
    });
    const wall = h("div", { class: "rdl-wall", role: "toolbar", "aria-label": "results" });
    const stop = walkable(wall, () => [...wall.children]);

    // ---- filters
    const order = segmented(view, "First", "order", [["worst", "Worst"], ["best", "Best"], ["run", "As run"]]);
    const style = choice(view, "Style", () => get("style"), (s) => set("style", s), () => [["", "all styles"], ...meta.styles.map((s) => [s, s])]);
    const total = (c) => entries.filter((e) => e.cause === c && (!get("style") || e.style === get("style"))).length;
    const why = choice(view, "Outcome", () => get("cause"), (c) => set("cause", c),
      () => [["", "all outcomes"], ...meta.causes.map((c) => [c, `${c} (${total(c)})`, !total(c)])]);

    // ---- one result
    const panel = h("div", { class: "rdl-panel", role: "dialog", "aria-label": "one result", tabindex: "-1" });
    const close = () => set("opened", -1);
    const go = (by) => {
      const list = shown();
      const at = list.indexOf(get("opened")) + by;
      if (list[at] !== undefined) set("opened", list[at]);
    };
    panel.addEventListener("keydown", (event) => {
      const act = { ArrowRight: () => go(1), ArrowLeft: () => go(-1), Escape: close }[event.key];
      if (!act) return;
      act();
      event.preventDefault();
      event.stopPropagation();
    });

    function drawPanel() {
      const i = get("opened");
      const e = entries[i];
      const inside = root.contains(document.activeElement);
      panel.hidden = !e;
      wall.hidden = Boolean(e);
      if (!e) {
        if (inside) (opener?.isConnected ? opener : wall.firstElementChild)?.focus();
        return;
      }
      opener = cards[i];
      const list = shown();
      const at = list.indexOf(i);
      const map = arrays[`${i}/map`];
      const top = Math.max(...e.scores.map(Math.abs), 1e-9);
      const bars = h("ol", { class: "rdl-scores", "aria-label": "scores S of the best proposals" }, e.scores.map((s, k) =>
        h("li", { class: k ? "rdl-score" : "rdl-score rdl-sum" }, h("i", { style: `width:${2 + (98 * Math.max(0, s)) / top}%` }), h("small", {}, fixed(s, 3)))));
      const step = (text, label, by) => h("button", { type: "button", class: "rdl-plain", "aria-label": label, disabled: list[at + by] === undefined, onclick: () => go(by) }, text);
      panel.replaceChildren(
        h("div", { class: "rdl-panel-head" }, h("button", { type: "button", class: "rdl-plain", onclick: close }, "← all results"),
          h("span", {}, step("‹", "previous", -1), h("span", { class: "rdl-note" }, at >= 0 ? `${at + 1} of ${list.length}` : ""), step("›", "next", 1))),
        h("h3", {}, e.text),
        h("p", { class: "rdl-note" }, `${e.style} · head word “${e.head}” · ${e.cause} · IoU ${e.iou.toFixed(2)}`),
        h("div", { class: `rdl-stages rdl-${map ? "four" : "three"}` },
          pane(i, "image"),
          map && pane(i, `map of “${e.head}”`, (canvas) => { paintMap(canvas, map, ...map.shape, arrays.palette); canvas.style.opacity = 0.75; }),
          pane(i, "mask", (canvas, rows, columns) => paintMask(canvas, mask(i, 0), rows, columns, rim())),
          pane(i, "truth", (canvas, rows, columns) => paintMask(canvas, mask(i, 1), rows, columns, rim()))),
        h("p", { class: "rdl-note" }, !e.scores.length ? "" : e.scores.length > 1 ? `S of the best ${e.scores.length} proposals: the lead over the second is ${(e.scores[0] - e.scores[1]).toFixed(3)}.` : "There was no rival."),
        bars,
      );
      if (inside) panel.focus();
      live.say(`“${e.text}”: ${e.cause}, IoU ${e.iou.toFixed(2)}.`);
    }

    function drawWall() {
      const list = shown();
      why.update();
      style.update();
      wall.replaceChildren(...list.map((i) => cards[i]));
      if (get("opened") >= 0 && !list.includes(get("opened"))) set("opened", -1); // it does not pass the filters
      if (list.length) stop(cards[list[0]]);
      drawPanel();
      if (get("opened") < 0) sayWall(list);
    }

    function sayWall(list) {
      const mean = list.reduce((sum, i) => sum + entries[i].iou, 0) / (list.length || 1);
      live.say(list.length ? `${list.length} of ${entries.length} results, mean IoU ${mean.toFixed(2)}.` : "No result passes these filters.");
    }

    view.on("order style cause", drawWall);
    view.on("opened", () => { drawPanel(); if (get("opened") < 0) sayWall(shown()); });
    root.classList.add("rdl-smooth");
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", meta.title);
    root.append(h("header", {}, h("h2", {}, meta.title), h("p", {}, "Click one for its whole story; arrows walk, Escape comes back.")),
      h("div", { class: "rdl-controls rdl-top" }, order.el, style.el, why.el), live.el, wall, panel);
    drawWall();
  });
}
