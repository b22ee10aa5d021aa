// AttentionExplorer: chips of words, their maps over the image, and the picture that one pixel has of the others.

function render(context) {
  return mount(context, (view) => {
    const { root, get, set } = view;
    const meta = get("_meta");
    const { words } = meta;
    const arrays = unpack(view.model);
    const last = words.length - 1;
    const special = (w) => w === 0 || w === last;
    let hovered = null; // a word under the pointer or the focus
    let point = null; // a place under the pointer

    // ---- the slice shown
    const key = () => `${get("layer")}/${get("head")}/${get("step")}/${get("values")}`;
    const has = (changes) => {
      const at = { layer: get("layer"), head: get("head"), step: get("step"), values: get("values"), ...changes };
      return `${at.layer}/${at.head}/${at.step}/${at.values}` in arrays;
    };
    const grid = () => meta.layers[get("layer")];
    const cellOf = (place, [rows, columns]) => Math.floor(place[0] * rows) * columns + Math.floor(place[1] * columns);
    const range = (w) => [arrays[`range/${key()}`][2 * w], arrays[`range/${key()}`][2 * w + 1]];
    const shared = () => {
      const all = words.map((_, w) => w).filter((w) => !special(w)).map(range);
      return [Math.min(...all.map((r) => r[0])), Math.max(...all.map((r) => r[1]))];
    };
    const value = (w, cell) => {
      const [low, high] = range(w);
      const [rows, columns] = grid();
      return low + (arrays[key()][w * rows * columns + cell] / 255) * (high - low);
    };
    const probable = () => get("values") === "probabilities";
    const number = (x) => (probable() ? percent(x, x < 0.0995 ? 1 : 0) : x.toFixed(1));
    const place = () => point ?? (get("pixel").length ? get("pixel") : null);

    // ---- words
    const chips = words.map((word, w) => {
      const bar = h("i", { class: "rdl-bar" });
      const share = h("small", {});
      const button = h("button", {
        type: "button", class: special(w) ? "rdl-chip rdl-special" : "rdl-chip",
        title: special(w) ? `the ${word} token, which stands ${w ? "behind" : "before"} the words` : null,
        onpointerenter: () => { hovered = w; draw(); },
        onpointerleave: () => { hovered = null; draw(); },
        onfocus: () => { hovered = w; draw(); },
        onblur: () => { hovered = null; draw(); },
        onclick: () => {
          const pinned = get("pinned");
          set("pinned", pinned.includes(w) ? pinned.filter((p) => p !== w) : [...pinned, w].slice(-2));
        },
      }, h("span", {}, word), bar);
      return { button, bar, share, el: h("span", { class: "rdl-word" }, button, share) };
    });
    const row = h("div", { class: "rdl-words", role: "toolbar", "aria-label": "words of the sentence" }, chips.map((c) => c.el));
    walkable(row, () => chips.map((c) => c.button))(chips[meta.head].button);

    // ---- pictures
    const url = pictureUrl(arrays.image);
    const ratio = meta.size[1] / meta.size[0];
    const onpoint = (at) => { point = at; draw(); };
    const same = (a, b) => a.length && cellOf(a, grid()) === cellOf(b, grid());
    const onpick = (at) => set("pixel", same(get("pixel"), at) ? [] : at);
    const pane = (label) => {
      const it = picturePane(view, url, ratio, { label, grid, onpoint, onpick });
      const low = h("span", {}), high = h("span", {});
      const strip = h("canvas", { class: "rdl-strip", "aria-hidden": "true" });
      paintMap(strip, Uint8Array.from({ length: 256 }, (_, i) => i), 1, 256, arrays.palette);
      it.el.append(h("div", { class: "rdl-scale" }, low, strip, high));
      return { ...it, low, high };
    };
    const panes = [pane("where a word looks"), pane("where another word looks")];
    const mirror = pane("where a pixel looks");
    const stages = h("div", { class: "rdl-stages" }, panes.map((p) => p.el), mirror.el);
    const live = liveLine(view);

    // ---- controls
    const grids = [...new Set(Object.values(meta.layers).map((g) => g.join("×")))].sort((a, b) => parseInt(b) - parseInt(a));
    const ofGrid = (g) => Object.keys(meta.layers).filter((n) => meta.layers[n].join("×") === g);
    const resolution = choice(view, "Resolution", () => grid().join("×"),
      (g) => set("layer", ofGrid(g)[0]), () => grids.map((g) => [g, g]));
    const layer = choice(view, "Layer", () => get("layer"), (n) => set("layer", n), () => ofGrid(grid().join("×"))
      .map((n) => [n, n === meta.read ? "✓ mean of those read" : n.startsWith("mean") ? "mean of all" : (meta.reads.includes(n) ? "✓ " : "") + n, !has({ layer: n, head: -1 })]), "✓ marks the layers that the method itself reads");
    const head = choice(view, "Head", () => get("head"), (n) => set("head", n), () => [[-1, "mean of all", false],
      ...Array.from({ length: meta.heads[get("layer")] }, (_, i) => [i, String(i), !has({ head: i })])]);
    const step = slider(view, "Noise", "step", { min: 0, max: meta.timesteps.length - 1, step: 1,
      show: (s) => `t = ${meta.timesteps[s]}`, hint: "the timestep at which the UNet looked at the noised image" });
    step.input.disabled = meta.timesteps.length < 2;
    const opacity = slider(view, "Opacity", "opacity", { min: 0, max: 1, step: 0.05, show: (o) => percent(o, 0) });
    const values = segmented(view, "Values", "values", [["probabilities", "Probabilities"], ["logits", "Logits"]], (v) => has({ values: v }));
    const scale = segmented(view, "Range", "shared", [[false, "Each word"], [true, "Shared"]]);
    const smooth = segmented(view, "Pixels", "smooth", [[false, "Crisp"], [true, "Smooth"]]);
    const controls = h("div", { class: "rdl-controls" }, resolution.el, layer.el, head.el, step.el, opacity.el, values.el, scale.el, smooth.el);

    // ---- drawing
    function drawWord(it, w, pinned) {
      const [rows, columns] = grid();
      const [low, high] = range(w);
      const [from, to] = get("shared") && !special(w) ? shared() : [low, high];
      const at = (x) => ((x - from) / (to - from || 1)) * 255;
      const maps = arrays[key()];
      paintMap(it.canvas, maps.subarray(w * rows * columns, (w + 1) * rows * columns), rows, columns, arrays.palette, at(low), at(high));
      it.title.textContent = words[w];
      it.el.classList.toggle("rdl-pinned", pinned);
      it.note.textContent = pinned ? "pinned" : "";
      it.low.textContent = number(from);
      it.high.textContent = number(to);
    }

    function drawPixel(at) {
      const step = `self/${get("step")}` in arrays ? get("step") : 0;
      const maps = arrays[`self/${step}`];
      mirror.el.hidden = !maps;
      if (!maps) return;
      const [rows, columns] = maps.shape;
      mirror.canvas.hidden = !at;
      mirror.el.classList.toggle("rdl-idle", !at);
      mirror.el.classList.toggle("rdl-pinned", Boolean(at) && !point);
      mirror.title.textContent = "this pixel";
      mirror.note.textContent = at ? `looks here, t = ${meta.timesteps[step]}` : "point at a picture";
      mirror.mark(at, [rows, columns]);
      if (!at) return;
      const cell = cellOf(at, [rows, columns]);
      paintMap(mirror.canvas, maps.subarray(cell * rows * columns, (cell + 1) * rows * columns), rows, columns, arrays.palette);
      const ranges = arrays[`self-range/${step}`];
      mirror.low.textContent = percent(ranges[2 * cell], 2);
      mirror.high.textContent = percent(ranges[2 * cell + 1], 1);
    }

    function drawBars(at) {
      row.classList.toggle("rdl-listening", Boolean(at));
      if (!at) return [];
      const found = words.map((_, w) => value(w, cellOf(at, grid())));
      const inner = found.filter((_, w) => !special(w));
      const low = probable() ? 0 : Math.min(...inner);
      const high = Math.max(...inner);
      found.forEach((x, w) => {
        chips[w].bar.style.transform = `scaleX(${clamp((x - low) / (high - low || 1), 0, 1)})`;
        chips[w].share.textContent = number(x);
      });
      return found;
    }

    function draw() {
      if (!(key() in arrays)) return; // a choice that is on its way to one that exists
      const pinned = get("pinned");
      const at = place();
      const shown = pinned.length ? [...pinned] : [meta.head];
      if (hovered !== null && !shown.includes(hovered)) shown[shown.length - 1] = hovered;
      panes[1].el.hidden = shown.length < 2;
      panes[1].el.classList.remove("rdl-pinned");
      shown.forEach((w, i) => drawWord(panes[i], w, pinned.includes(w)));
      for (const p of panes) p.mark(at, grid());
      drawPixel(at);
      const found = drawBars(at);
      chips.forEach(({ button }, w) => {
        button.classList.toggle("rdl-shown", shown.includes(w));
        button.setAttribute("aria-pressed", pinned.includes(w));
      });
      live.say(at ? sayPixel(at, found) : shown.map(sayWord).join(" "));
    }

    function sayWord(w) {
      const [rows, columns] = grid();
      const map = arrays[key()].subarray(w * rows * columns, (w + 1) * rows * columns);
      const top = map.indexOf(Math.max(...map));
      const [low, high] = range(w);
      return `“${words[w]}” looks most at row ${Math.floor(top / columns) + 1}, column ${(top % columns) + 1} of ${rows}×${columns}; from ${number(low)} to ${number(high)}.`;
    }

    function sayPixel(at, found) {
      const [rows, columns] = grid();
      const order = found.map((_, w) => w).filter((w) => !special(w)).sort((a, b) => found[b] - found[a]).slice(0, 3);
      const list = order.map((w) => `“${words[w]}” ${number(found[w])}`).join(", ");
      return `Row ${Math.floor(at[0] * rows) + 1}, column ${Math.floor(at[1] * columns) + 1} of ${rows}×${columns} listens most to ${list}.`;
    }

    function choose() {
      if (!has({})) { // this slice is not packed: fall back to the nearest that is
        const tries = [{ head: -1 }, { head: -1, step: 0 }, { head: -1, step: 0, values: "probabilities" }];
        const found = tries.find(has);
        if (found) for (const [name, value] of Object.entries(found)) set(name, value);
      }
      for (const c of [resolution, layer, head, values]) c.update();
      draw();
    }

    function look() {
      root.style.setProperty("--opacity", get("opacity"));
      root.classList.toggle("rdl-smooth", get("smooth"));
    }

    root.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      hovered = point = null;
      set("pinned", []);
      set("pixel", []);
      draw();
    });
    view.on("layer head step values", choose);
    view.on("pinned pixel shared", draw);
    view.on("opacity smooth", look);
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", meta.title);
    root.append(
      h("header", {}, h("h2", {}, "Where every word looks"),
        h("p", {}, "Hover a word or a pixel; click pins. Keys: Tab, arrows, Enter, Escape.")),
      row, stages, live.el, controls,
    );
    look();
    choose();
  });
}
