// AttentionComparison: one word in two recordings, on linked controls, and the difference of its maps.

function render(context) {
  return mount(context, (view) => {
    const { root, get, set } = view;
    const meta = get("_meta");
    const arrays = unpack(view.model);
    let point = null, grid = [1, 1];
    const ask = askable(view, arrays, () => draw());
    const key = (changes = {}) => {
      const at = (name) => changes[name] ?? get(name);
      return ["pair", at("word"), at("layer"), at("other"), at("head"), at("step"), at("values")].join("/");
    };
    const has = (changes) => get("_live") || key(changes) in arrays;
    const probable = () => get("values") === "probabilities";
    const number = (x) => (probable() ? percent(x, 1) : x.toFixed(1));
    /** A difference, with as many digits as the largest one needs. */
    const signed = (x, most) => {
      const digits = clamp(Math.ceil(-Math.log10(most)) + (probable() ? -1 : 1), 1, 4);
      const told = probable() ? percent(x, digits) : fixed(x, digits);
      return parseFloat(told) > 0 ? `+${told}` : told;
    };

    const named = (i) => `“${meta.names[i]}”`;

    // ---- words
    const chips = meta.words.map((text, w) => h("button", {
      type: "button", class: meta.alone[w] === null ? "rdl-chip" : "rdl-chip rdl-special",
      title: meta.alone[w] === null ? null : `only in ${named(meta.alone[w])}`, onclick: () => set("word", w),
    }, text));
    const words = h("div", { class: "rdl-words", role: "toolbar", "aria-label": "words of the two sentences" }, chips.map((c) => h("span", { class: "rdl-word" }, c)));
    const stop = walkable(words, () => chips);

    // ---- pictures
    const onpoint = (at) => { point = at; draw(); };
    const cellOf = (at) => Math.floor(at[0] * grid[0]) * grid[1] + Math.floor(at[1] * grid[1]);
    const onpick = (at) => set("pixel", get("pixel").length && cellOf(get("pixel")) === cellOf(at) ? [] : at); // a second click lets go
    const pane = (i, label, colours) => {
      const [height, width] = meta.sizes[i];
      const it = picturePane(view, pictureUrl(arrays[`image/${i}`]), width / height, { label, grid: () => grid, onpoint, onpick });
      const low = h("span", {}), high = h("span", {}), strip = h("canvas", { class: "rdl-strip", "aria-hidden": "true" });
      paintMap(strip, Uint8Array.from({ length: 256 }, (_, k) => k), 1, 256, colours);
      it.el.append(h("div", { class: "rdl-scale" }, low, strip, high));
      return { ...it, low, high, strip };
    };
    const panes = [pane(0, meta.names[0], arrays.palette), pane(1, meta.names[1], arrays.palette), pane(0, "difference", DIVERGING)];
    const live = liveLine(view);
    const status = h("p", { class: "rdl-note rdl-status", role: "status" });

    // ---- controls
    const pick = (i, name) => { // the first takes the other along; the other parts them
      const linked = i === 0 && get("layer") === get("other");
      set(i ? "other" : "layer", name);
      if (linked && meta.layers[1].includes(name)) set("other", name);
    };
    const layers = meta.names.map((name, i) => choice(view, `Layer, ${name}`, () => get(i ? "other" : "layer"), (n) => pick(i, n), () => meta.layers[i].map((n) => [n, n])));
    const heads = () => Math.min(meta.heads[0][get("layer")], meta.heads[1][get("other")]);
    const head = choice(view, "Head", () => get("head"), (n) => set("head", n), () => [[-1, "mean of all"], ...Array.from({ length: heads() }, (_, i) => [i, String(i), !has({ head: i })])]);
    const step = slider(view, "Noise", "step", { min: 0, max: meta.steps - 1, step: 1, show: (s) => {
      const [a, b] = meta.timesteps.map((t) => t[s]);
      return a === b ? `t = ${a}` : `t = ${a} and ${b}`;
    } });
    const values = segmented(view, "Values", "values", [["probabilities", "Probabilities"], ["logits", "Logits"]], (v) => has({ values: v }));
    const shared = segmented(view, "Range", "shared", [[true, "One for both"], [false, "Each"]]);
    const smooth = segmented(view, "Pixels", "smooth", [[false, "Crisp"], [true, "Smooth"]]);
    const opacity = slider(view, "Opacity", "opacity", { min: 0, max: 1, step: 0.05, show: (o) => percent(o, 0) });
    const where = () => `${meta.words[get("word")]}; ${get("layer")}${get("other") === get("layer") ? "" : ` and ${get("other")}`}, ${get("values")}`;
    const keep = h("div", { class: "rdl-keep", role: "group", "aria-label": "keep what you see" },
      h("button", { type: "button", class: "rdl-quiet", onclick: async () => download("comparison.png", await panesAsPicture(view, panes.filter((p) => !p.el.hidden), where())) }, "PNG"),
      h("button", { type: "button", class: "rdl-quiet", onclick: () => download("comparison.svg", panesAsVector(view, panes, where())) }, "SVG"),
      h("button", { type: "button", class: "rdl-quiet", onclick: saveNumbers }, "CSV"),
      undoable(view, ["word", "layer", "other", "head", "step", "values", "shared", "smooth", "opacity", "pixel"]));
    const controls = h("div", { class: "rdl-controls" }, layers.map((l) => l.el), head.el, step.el, values.el, shared.el, smooth.el, opacity.el, keep);

    const parts = (name) => {
      const [, rows, columns] = arrays[name].shape;
      const levels = [0, 1, 2].map((i) => arrays[name].subarray(i * rows * columns, (i + 1) * rows * columns));
      const ends = [0, 1, 2].map((i) => arrays[`range/${name}`].subarray(2 * i, 2 * i + 2));
      return { rows, columns, levels, ends };
    };
    const valueAt = ({ levels, ends }, i, cell) => ends[i][0] + (levels[i][cell] / 255) * (ends[i][1] - ends[i][0]);

    function saveNumbers() {
      if (!ask.here(key())) return;
      const shown = parts(key());
      const lines = Array.from({ length: shown.rows * shown.columns }, (_, cell) => [Math.floor(cell / shown.columns), cell % shown.columns, ...[0, 1, 2].map((i) => Number(valueAt(shown, i, cell).toPrecision(6)))].join(","));
      download("comparison.csv", new Blob([[`row,column,${field(meta.names[0])},${field(meta.names[1])},difference`, ...lines, ""].join("\n")], { type: "text/csv" }));
    }

    function draw() {
      const name = key();
      const here = ask.want(name, "pair");
      const alone = meta.alone[get("word")];
      root.setAttribute("aria-busy", String(!here));
      root.classList.toggle("rdl-waiting", !here);
      chips.forEach((c, w) => c.setAttribute("aria-pressed", String(w === get("word"))));
      stop(chips[get("word")]);
      status.textContent = here ? "" : ask.error(name) ?? (get("_live") ? "asking the kernel …" : "This page does not hold this view; it keeps the means over the heads of layers that both have.");
      if (!here) return;
      const shown = parts(name);
      const { rows, columns, levels, ends } = shown;
      grid = [rows, columns];
      const place = point ?? (get("pixel").length ? get("pixel") : null);
      const present = [0, 1].filter((i) => alone === null || alone === i);
      const [least, most] = [Math.min(...present.map((i) => ends[i][0])), Math.max(...present.map((i) => ends[i][1]))];
      panes.forEach((p, i) => {
        const missing = i < 2 ? !present.includes(i) : alone !== null;
        const [from, to] = i < 2 && get("shared") ? [probable() ? 0 : least, most] : ends[i];
        const at = (x) => ((x - from) / (to - from || 1)) * 255;
        p.canvas.hidden = missing;
        p.el.classList.toggle("rdl-idle", missing);
        if (!missing) paintMap(p.canvas, levels[i], rows, columns, i < 2 ? arrays.palette : DIVERGING, i < 2 ? at(ends[i][0]) : 0, i < 2 ? at(ends[i][1]) : 255, i < 2);
        p.title.textContent = i < 2 ? meta.names[i] : "difference";
        p.note.textContent = missing ? "no such word" : i < 2 ? "" : "first minus second";
        p.low.textContent = i < 2 ? number(from) : signed(ends[2][0], ends[2][1]);
        p.high.textContent = i < 2 ? number(to) : signed(ends[2][1], ends[2][1]);
        p.mark(place, grid);
      });
      live.say(say(shown, present, place));
    }

    function say(shown, present, at) {
      const { rows, columns, levels, ends } = shown;
      const place = (cell) => `row ${Math.floor(cell / columns) + 1}, column ${(cell % columns) + 1} of ${rows}×${columns}`;
      if (at) {
        const cell = cellOf(at);
        const told = present.map((i) => `${named(i)} ${number(valueAt(shown, i, cell))}`);
        if (present.length > 1) told.push(`difference ${signed(valueAt(shown, 2, cell), ends[2][1])}`);
        return `At ${place(cell)}: ${told.join(", ")}.`;
      }
      if (present.length < 2) return `“${meta.words[get("word")]}” stands only in ${named(present[0])}.`;
      const most = levels[2].reduce((best, x, cell) => (Math.abs(x - 127.5) > Math.abs(levels[2][best] - 127.5) ? cell : best), 0);
      return `“${meta.words[get("word")]}” differs most at ${place(most)}: by ${signed(valueAt(shown, 2, most), ends[2][1])}, of at most ${number(Math.max(ends[0][1], ends[1][1]))}.`;
    }

    function look() {
      root.style.setProperty("--opacity", get("opacity"));
      root.classList.toggle("rdl-smooth", get("smooth"));
    }
    root.onkeydown = (event) => {
      if (event.key !== "Escape") return;
      point = null;
      if (get("pixel").length) set("pixel", []);
      else draw();
    };
    const block = get("_block");
    const on = (names, call) => view.on(names, () => (get("_block") === block ? call() : view.restart()));
    on("_block", () => {});
    on("word step shared pixel", draw);
    on("layer other", () => {
      if (get("head") >= heads()) set("head", -1);
      for (const c of [...layers, head]) c.update();
      values.update();
      draw();
    });
    on("head values", () => { head.update(); values.update(); draw(); });
    on("opacity smooth", look);
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", meta.title);
    root.append(
      h("header", {}, h("h2", {}, "Two recordings, one word"), h("p", {}, `${named(0)} beside ${named(1)}. Choose a word; hover a picture; click pins. Keys: Tab, arrows, Enter, Escape.`)),
      words, h("div", { class: "rdl-work" }, h("div", {}, h("div", { class: "rdl-stages" }, panes.map((p) => p.el)), live.el, status), controls),
    );
    step.input.disabled = meta.steps < 2;
    look();
    draw();
  });
}
