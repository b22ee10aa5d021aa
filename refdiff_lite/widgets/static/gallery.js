// Gallery: a wall of results, and a panel that tells one result's whole story.

function render(context) {
  return mount(context, (view) => {
    const { root, get, set } = view;
    const meta = get("_meta");
    const arrays = unpack(view.model);
    const { entries } = meta; // an exported page holds some of them only, by their number
    const numbers = Object.keys(entries).map(Number);
    const rim = () => getComputedStyle(root).getPropertyValue("--rim");
    const live = liveLine(view);
    const ask = askable(view, arrays, (name) => {
      const i = Number(name.split("/")[0]);
      wall.repaint(i, (card) => paintCard(card, i));
      if (i === get("opened")) drawPanel();
      else for (const [k, card] of wall.cards) if (!ask.here(`${k}/masks`)) paintCard(card, k); // asked again if it was passed over
    });
    const imageOf = (i) => {
      const bytes = arrays[`${i}/full`] ?? arrays[`${i}/image`] ?? arrays[`image/${entries[i].image}`];
      return bytes ? pictureUrl(bytes) : "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";
    };

    /** Mask `which` (0 chosen, 1 truth, 2 the other run's) at the best size that is here: [pixels, rows, columns]. */
    function mask(i, which, small = false) {
      const full = !small && arrays[`${i}/fullmasks`];
      const [rows, columns] = full ? entries[i].full : entries[i].size;
      const bits = full || arrays[`${i}/masks`];
      const start = which * bits.shape[1];
      return [Uint8Array.from({ length: rows * columns }, (_, p) => (bits[start + (p >> 3)] >> (p & 7)) & 1), rows, columns];
    }

    function pane(i, label, draw) {
      const [rows, columns] = entries[i].size;
      const it = picturePane(view, imageOf(i), columns / rows, { label });
      it.title.textContent = label;
      draw?.(it.canvas);
      return it;
    }

    function shown() {
      const kept = numbers.filter((i) => ["style", "cause", "change"].every((k) => !get(k) || entries[i][k] === get(k)));
      const sign = { worst: 1, best: -1 }[get("order")];
      return sign ? kept.sort((a, b) => sign * (entries[a].iou - entries[b].iou)) : kept;
    }

    // ---- the wall
    function paintCard(card, i) {
      if (!ask.want(`${i}/masks`, i % 64)) return;
      card.querySelector("img").src = imageOf(i);
      const canvas = card.querySelector("canvas");
      paintMask(canvas, ...mask(i, 0, true), rim());
      if (get("truth")) paintRim(canvas, ...mask(i, 1, true), TRUTH);
    }
    const facts = (e) => `IoU ${e.iou.toFixed(2)}, ${e.cause}` + (e.other === undefined ? "" : `, in the other run ${e.other.toFixed(2)}${e.change && `: ${e.change}`}`);
    const wall = virtualWall(view, "results; arrow keys walk", (i) => {
      const e = entries[i];
      const card = h("button", { type: "button", class: "rdl-card", "data-i": i, "aria-label": `${e.text}; ${facts(e)}`, onclick: () => set("opened", i) },
        h("span", { class: "rdl-stage" }, h("img", { alt: "" }), h("canvas", { class: "rdl-over" })),
        h("span", { class: "rdl-said" }, e.text),
        h("span", { class: "rdl-facts" }, h("i", { style: `width:${100 * e.iou}%` }), h("b", {}, e.iou.toFixed(2)), h("span", {}, e.change || e.cause)));
      paintCard(card, i);
      return card;
    }, shown);

    // ---- filters
    const order = segmented(view, "First", "order", [["worst", "Worst"], ["best", "Best"], ["run", "As run"]]);
    const style = choice(view, "Style", () => get("style"), (s) => set("style", s), () => [["", "all styles"], ...meta.styles.map((s) => [s, s])]);
    const total = (c) => numbers.map((i) => entries[i]).filter((e) => e.cause === c && (!get("style") || e.style === get("style"))).length;
    const why = choice(view, "Outcome", () => get("cause"), (c) => set("cause", c),
      () => [["", "all outcomes"], ...meta.causes.map((c) => [c, `${c} (${total(c)})`, !total(c)])]);

    const change = meta.compared && choice(view, "Against the other run", () => get("change"), (c) => set("change", c),
      () => [["", "all"], ...["gained", "lost"].map((c) => [c, `${c} (${numbers.filter((i) => entries[i].change === c).length})`])]);
    const outline = toggle(view, "Outline of the truth", "truth");
    const button = (text, act) => h("button", { type: "button", class: "rdl-quiet", onclick: act }, text);
    let panes = [];
    const png = button("PNG", async () => download("refdiff-result.png", await panesAsPicture(view, panes, `${entries[get("opened")].text}: ${facts(entries[get("opened")])}`)));
    const keep = h("div", { class: "rdl-keep", role: "group", "aria-label": "keep what you see" }, png, button("CSV", () => {
      const columns = ["image", "text", "head", "style", "iou", "cause", ...(meta.compared ? ["other", "change"] : [])];
      const lines = shown().map((i) => columns.map((c) => field(entries[i][c] ?? "")).join(","));
      download("refdiff-results.csv", new Blob([[columns.join(","), ...lines, ""].join("\n")], { type: "text/csv" }));
    }));

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
      wall.el.hidden = Boolean(e);
      png.hidden = !e;
      if (!e) {
        if (opener !== null) wall.go(opener, inside);
        opener = null;
        return;
      }
      opener = i;
      const here = ask.want(`${i}/masks`, "panel");
      if (here) ask.want(`${i}/full`, "full");
      const list = shown();
      const at = list.indexOf(i);
      const map = arrays[`${i}/map`];
      const scores = [...(arrays[`${i}/scores`] ?? [])];
      const rivals = arrays[`${i}/rivals`];
      const top = Math.max(...scores.map(Math.abs), 1e-9);
      const rival = (k) => {
        if (!rivals || k >= rivals.shape[0]) return null;
        const [, rows, columns] = rivals.shape;
        const canvas = h("canvas", {});
        paintMask(canvas, rivals.subarray(k * rows * columns, (k + 1) * rows * columns), rows, columns, rim());
        return h("span", { class: "rdl-rival", role: "img", "aria-label": `proposal of rank ${k + 1}` }, h("img", { src: imageOf(i), alt: "" }), canvas);
      };
      const bars = h("ol", { class: "rdl-scores", "aria-label": "scores S of the best proposals" }, scores.map((s, k) =>
        h("li", { class: k ? "rdl-score" : "rdl-score rdl-sum" }, rival(k), h("i", { style: `width:${2 + (98 * Math.max(0, s)) / top}%` }), h("small", {}, fixed(s, 3)))));
      const step = (text, label, by) => h("button", { type: "button", class: "rdl-plain", "aria-label": label, disabled: list[at + by] === undefined, onclick: () => go(by) }, text);
      const masked = (label, which) => pane(i, label, (canvas) => {
        paintMask(canvas, ...mask(i, which), which === 1 ? TRUTH : rim());
        if (which !== 1) paintRim(canvas, ...mask(i, 1), TRUTH);
      });
      panes = !here ? [] : [
        pane(i, "image"),
        map && pane(i, `map of “${e.head}”`, (canvas) => { paintMap(canvas, map, ...map.shape, arrays.palette); canvas.style.opacity = 0.75; }),
        masked("mask, truth in blue", 0),
        e.other !== undefined && masked("the other run’s mask", 2),
        masked("truth", 1),
      ].filter(Boolean);
      panel.replaceChildren(
        h("div", { class: "rdl-panel-head" }, h("button", { type: "button", class: "rdl-plain", onclick: close }, "← all results"),
          h("span", {}, step("‹", "previous", -1), h("span", { class: "rdl-note" }, at >= 0 ? `${at + 1} of ${list.length}` : ""), step("›", "next", 1))),
        h("h3", {}, e.text),
        h("p", { class: "rdl-note" }, `${e.style} · head word “${e.head}” · ${facts(e)}`),
        here ? h("div", { class: `rdl-stages rdl-${panes.length > 3 ? "four" : "three"}` }, panes.map((p) => p.el)) : h("p", { class: "rdl-note" }, ask.error(`${i}/masks`) ?? "asking the kernel for this picture …"),
        h("p", { class: "rdl-note" }, !scores.length ? "" : scores.length > 1 ? `S of the best ${scores.length} proposals: the lead over the second is ${(scores[0] - scores[1]).toFixed(3)}.` : "There was no rival."),
        bars,
      );
      if (inside) panel.focus();
      live.say(`“${e.text}”: ${e.cause}, IoU ${e.iou.toFixed(2)}.`);
    }

    function drawWall() {
      const list = shown();
      for (const it of [why, style, change]) if (it) it.update();
      if (get("opened") >= 0 && !list.includes(get("opened"))) set("opened", -1); // it does not pass the filters
      opener = null;
      drawPanel();
      wall.update();
      if (get("opened") < 0) sayWall(list);
    }

    function sayWall(list) {
      const mean = list.reduce((sum, i) => sum + entries[i].iou, 0) / (list.length || 1);
      live.say(list.length ? `${list.length} of ${numbers.length} results, mean IoU ${mean.toFixed(2)}.` : "No result passes these filters.");
    }

    view.on("order style cause change", drawWall);
    view.on("truth", () => { for (const [i, card] of wall.cards) paintCard(card, i); });
    view.on("opened", () => { drawPanel(); if (get("opened") < 0) sayWall(shown()); });
    root.classList.add("rdl-smooth");
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", meta.title);
    root.append(h("header", {}, h("h2", {}, meta.title), h("p", {}, "Click one for its whole story; arrows walk, Escape comes back.")),
      h("div", { class: "rdl-controls rdl-top" }, order.el, style.el, why.el, change ? change.el : null, outline, keep), live.el, wall.el, panel);
    drawWall();
  });
}
