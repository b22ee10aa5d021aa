// TextExplorer: which tokens of a sentence look at which, in a layer and head of a text encoder.

function render(context) {
  return mount(context, (view) => {
    const { root, get, set } = view;
    const meta = get("_meta");
    const arrays = unpack(view.model);
    const { tokens } = meta;
    const n = tokens.length;
    let hovered = null; // { side, token }, or a cell of the matrix with both
    const ask = askable(view, arrays, () => draw());
    const key = (layer = get("layer")) => `layer/${layer}`;
    const has = (layer) => get("_live") || key(layer) in arrays;
    const heads = () => (get("layer") < 0 ? 0 : meta.heads[get("layer")]);

    // ---- numbers
    /** How much token i looks at token j in a layer and head (-1: the mean), as a function; null where it is not here. */
    function shares(layer = get("layer"), head = get("head")) {
      const all = arrays[key(layer)];
      if (!all) return null;
      const chosen = layer < 0 || head < 0 ? Array.from({ length: all.shape[0] }, (_, i) => i) : [head];
      const out = new Float32Array(n * n);
      for (const k of chosen) for (let c = 0; c < n * n; c++) out[c] += all[k * n * n + c] / chosen.length;
      if (!get("start")) {
        for (let i = 0; i < n; i++) {
          out[i * n] = 0;
          const sum = out.subarray(i * n, (i + 1) * n).reduce((a, b) => a + b, 0);
          if (sum > 1e-12) for (let j = 0; j < n; j++) out[i * n + j] /= sum;
        }
      }
      return (i, j) => out[i * n + j];
    }

    // ---- tokens
    const pick = (to) => { // a second click lets go
      const again = get("token") === to.token && get("direction") === to.side;
      set("direction", to.side);
      set("token", again ? -1 : to.token);
    };
    const point = (to) => { // a drawing made anew under a resting mouse tells the same again
      if (JSON.stringify(to) === JSON.stringify(hovered)) return;
      hovered = to;
      draw();
    };
    const chips = tokens.map((text, i) => {
      const bar = h("i", { class: "rdl-bar" });
      const special = i === 0 || i === n - 1;
      const here = () => ({ side: get("direction"), token: i });
      const button = h("button", {
        type: "button", class: special ? "rdl-chip rdl-special" : "rdl-chip",
        onclick: () => pick(here()), onpointerenter: () => point(here()), onfocus: () => point(here()), onblur: () => point(null),
      }, text, bar);
      return { button, bar, share: h("small", {}) };
    });
    const row = h("div", { class: "rdl-words", role: "toolbar", "aria-label": "tokens of the sentence", onpointerleave: () => point(null) },
      chips.map((c) => h("span", { class: "rdl-word" }, c.button, c.share)));
    const stop = walkable(row, () => chips.map((c) => c.button));
    stop(chips[Math.min(1, n - 1)].button);

    // ---- controls
    const layer = choice(view, "Layer", () => get("layer"), (l) => set("layer", l), () => [[-1, "mean of all"], ...meta.heads.map((_, l) => [l, String(l), !has(l)])]);
    const head = choice(view, "Head", () => get("head"), (k) => set("head", k), () => [[-1, "mean of all"], ...Array.from({ length: heads() }, (_, k) => [k, String(k)])]);
    const direction = segmented(view, "Token", "direction", [["looks", "Looks at"], ["seen", "Is seen by"]]);
    const form = segmented(view, "Drawn as", "form", [["lines", "Lines"], ["matrix", "Matrix"]]);
    const start = toggle(view, "Count the start token", "start");
    const where = () => [`“${meta.text}”`, meta.encoder, get("layer") < 0 ? "mean of all layers" : `layer ${get("layer")}, ${get("head") < 0 ? "mean of heads" : `head ${get("head")}`}`, ...(get("start") ? [] : ["without start"])].join(", ");
    const vector = () => drawingAsVector(view, board.querySelector("svg"), where());
    const quiet = (label, onclick) => h("button", { type: "button", class: "rdl-quiet", onclick }, label);
    const keep = h("div", { class: "rdl-keep", role: "group", "aria-label": "keep what you see" },
      quiet("PNG", async () => download("text.png", await drawingAsPicture(vector()))),
      quiet("SVG", () => download("text.svg", new Blob([vector()], { type: "image/svg+xml" }))),
      quiet("CSV", saveNumbers), undoable(view, ["token", "direction", "layer", "head", "start", "form"]));
    const controls = h("div", { class: "rdl-controls" }, layer.el, head.el, direction.el, form.el, start, keep);

    function saveNumbers() {
      if (!ask.here(key())) return;
      const share = shares();
      const lines = tokens.flatMap((a, i) => tokens.map((b, j) => [i, field(a), j, field(b), Number(share(i, j).toPrecision(6))].join(",")));
      download("text.csv", new Blob([["from,token,to,looks at,share", ...lines, ""].join("\n")], { type: "text/csv" }));
    }

    // ---- drawing
    const board = h("div", { class: "rdl-board", role: "img", tabindex: 0, onpointerleave: () => point(null) });
    const [low, high, strip] = [h("span", {}, "0 %"), h("span", {}), h("canvas", { class: "rdl-strip", "aria-hidden": "true" })];
    paintMap(strip, Uint8Array.from({ length: 256 }, (_, k) => k), 1, 256, arrays.palette);
    const scale = h("div", { class: "rdl-scale" }, low, strip, high);
    const live = liveLine(view);
    const status = h("p", { class: "rdl-note rdl-status", role: "status" });
    const panel = headsPanel(view, { n, heads: meta.heads, palette: arrays.palette, share: shares });
    let drawn = null; // what the panel was drawn from
    function drawHeads() {
      const missing = meta.heads.findIndex((_, l) => !ask.here(key(l)));
      if (missing >= 0) ask.want(key(missing), "heads");
      const from = JSON.stringify([get("start"), meta.heads.map((_, l) => ask.here(key(l)))]);
      if (from !== drawn) panel.draw();
      else panel.mark();
      drawn = from;
    }

    function draw() {
      const here = ask.want(key(), "layer");
      drawHeads();
      root.setAttribute("aria-busy", String(!here));
      root.classList.toggle("rdl-waiting", !here);
      status.textContent = here ? meta.left_out : ask.error(key()) ?? (get("_live") ? "asking the kernel …" : "This page does not hold this layer.");
      if (!here) return;
      const share = shares();
      const pinned = get("token") < 0 ? null : { side: get("direction"), token: get("token") };
      const at = hovered ?? pinned;
      const of = (i) => (at.side === "looks" ? share(at.token, i) : share(i, at.token));
      const most = tokens.reduce((m, _, i) => Math.max(m, ...tokens.map((__, j) => share(i, j))), 1e-12);
      board.replaceChildren((get("form") === "lines" ? drawLines : drawMatrix)({ tokens, share, at, palette: arrays.palette, most, onpoint: point, onpick: pick }));
      scale.hidden = get("form") === "lines";
      high.textContent = percent(most, 0);
      row.classList.toggle("rdl-listening", Boolean(at));
      chips.forEach(({ button, bar, share: text }, i) => {
        button.classList.toggle("rdl-shown", at?.token === i);
        button.setAttribute("aria-pressed", get("token") === i);
        bar.style.transform = `scaleX(${at ? clamp(of(i), 0, 1) : 0})`;
        text.textContent = at ? percent(of(i), 1) : "";
      });
      const told = say(share, at, of);
      board.setAttribute("aria-label", `${where()}. ${told}`);
      live.say(told);
    }

    function say(share, at, of) {
      if (at?.both) return `“${tokens[at.looks]}” gives “${tokens[at.seen]}” ${percent(share(at.looks, at.seen), 1)} of its attention.`;
      const list = (value) => tokens.map((_, i) => i).sort((a, b) => value(b) - value(a)).slice(0, 3).filter((i) => value(i) >= 0.0005).map((i) => `“${tokens[i]}” ${percent(value(i), 1)}`).join(", ");
      if (at) return `“${tokens[at.token]}” ${at.side === "looks" ? "looks at" : "is seen by"} ${list(of) || "nothing"}.`;
      const mean = (j) => tokens.reduce((sum, _, i) => sum + share(i, j), 0) / n;
      return `On average the tokens look at ${list(mean)}.`;
    }

    function choose() { // a layer may have fewer heads, and the mean of all has none
      if (get("head") >= heads()) set("head", -1);
      for (const c of [layer, head]) c.update();
      head.list.disabled = get("layer") < 0;
      draw();
    }

    root.onkeydown = (event) => {
      if (event.key !== "Escape") return;
      hovered = null;
      if (get("token") >= 0) set("token", -1);
      else draw();
    };
    const block = get("_block");
    const on = (names, call) => view.on(names, () => (get("_block") === block ? call() : view.restart()));
    on("_block", () => {});
    on("layer head", choose);
    on("token direction start form", draw);
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", meta.title);
    root.append(...[
      h("header", {}, h("h2", {}, "What every word looks at"), h("p", {}, `Attention between the tokens in ${meta.encoder === "clip" ? "CLIP's text tower" : `the diffusion model's ${meta.encoder}`}. Hover a token; click pins. Keys: Tab, arrows, Enter, Escape.`)),
      sentenceField(view, meta.text), row,
      meta.unread ? h("p", { class: "rdl-note rdl-unread" }, `Not read, behind the encoder's last token: ${meta.unread}`) : null,
      h("div", { class: "rdl-work" }, h("div", {}, h("div", { class: "rdl-between" }, h("div", {}, board, scale), panel.el), live.el, status), controls),
    ].filter(Boolean));
    choose();
  });
}
