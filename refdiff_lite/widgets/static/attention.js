// AttentionExplorer: chips of words, their maps over the image, and the picture that one pixel has of the others.

function render(context) {
  return mount(context, (view) => {
    const { root, get, set } = view;
    const meta = get("_meta");
    const { words } = meta;
    const arrays = unpack(view.model);
    const special = (w) => w === 0 || w >= meta.spoken - 1;
    let hovered = null; // a word under the pointer or the focus
    let point = null; // a place under the pointer
    const ask = askable(view, arrays, () => draw());

    // ---- the slice shown
    const keyOf = (at) => (at.layer === meta.own ? meta.own : `${at.layer}/${at.head}/${at.step}/${at.values}`);
    const chosen = () => ({ layer: get("layer"), head: get("head"), step: get("step"), values: get("values") });
    const key = () => keyOf(chosen());
    const has = (changes) => get("_live") || keyOf({ ...chosen(), ...changes }) in arrays;
    const own = () => get("layer") === meta.own;
    const grid = () => meta.layers[get("layer")];
    const cellOf = (place, [rows, columns]) => Math.floor(place[0] * rows) * columns + Math.floor(place[1] * columns);
    const range = (w) => arrays[`range/${key()}`].subarray(2 * w, 2 * w + 2);
    const levels = (w) => {
      const cells = grid()[0] * grid()[1];
      return arrays[key()].subarray(w * cells, (w + 1) * cells);
    };
    const value = (w, cell) => range(w)[0] + (levels(w)[cell] / 255) * (range(w)[1] - range(w)[0]);
    const probable = () => !own() && get("values") === "probabilities";
    const number = (x) => (probable() ? percent(x, Math.abs(x) < 0.0995 ? 1 : 0) : x.toFixed(own() ? 2 : 1));
    const place = () => point ?? (get("pixel").length ? get("pixel") : null);
    const spread = ([low, high]) => (probable() ? Math.log(Math.max(high, 1e-9) / Math.max(low, 1e-9)) : high - low);
    const flat = (w) => !own() && spread(range(w)) < Math.log(1.5);

    /** Ends of the colours: of what is shown and of all words, or of the one word. */
    function ends(w, shown) {
      if (get("scale") === "each") return range(w);
      const all = (get("scale") === "zero" ? [w] : words.map((_, i) => i).filter((i) => !special(i) || shown.includes(i))).map(range);
      const high = Math.max(...all.map((r) => r[1]));
      return get("scale") === "zero" ? [Math.min(0, all[0][0]), Math.max(0, high)] : [Math.min(...all.map((r) => r[0])), high];
    }

    // ---- words
    const chips = words.map((word, w) => {
      const bar = h("i", { class: "rdl-bar" });
      const share = h("small", {});
      const pieces = meta.pieces[w] ?? [];
      const many = pieces.length > 1;
      const title = many ? `${pieces.length} pieces, ${pieces.join(" · ")}: the last is shown, which has seen the others, as the method reads it`
        : w >= meta.spoken ? `all tokens named ${word} together` : special(w) ? `the ${word} token, which stands ${w ? "behind" : "before"} the words` : null;
      const button = h("button", {
        type: "button", class: special(w) ? "rdl-chip rdl-special" : "rdl-chip", title,
        onpointerenter: () => { hovered = w; draw(); }, onpointerleave: () => { hovered = null; draw(); },
        onfocus: () => { hovered = w; draw(); }, onblur: () => { hovered = null; draw(); },
        onclick: () => {
          const pinned = get("pinned");
          set("pinned", pinned.includes(w) ? pinned.filter((p) => p !== w) : [...pinned, w]);
        },
      }, h("span", {}, word), bar);
      return { button, bar, share, pieces: many ? pieces.join("·") : "", el: h("span", { class: many ? "rdl-word rdl-pieces" : "rdl-word" }, button, share) };
    });
    const row = h("div", { class: "rdl-words", role: "toolbar", "aria-label": "words of the sentence" }, chips.map((c) => c.el));
    walkable(row, () => chips.map((c) => c.button))(chips[meta.head].button);
    const unread = meta.unread ? h("p", { class: "rdl-note rdl-unread" }, `The text encoder does not read the end: “${meta.unread}”`) : null;

    // ---- pictures
    const url = pictureUrl(arrays.image);
    const ratio = meta.size[1] / meta.size[0];
    const onpoint = (at) => { point = at; draw(); };
    const same = (a, b) => a.length && cellOf(a, grid()) === cellOf(b, grid());
    const onpick = (at) => set("pixel", same(get("pixel"), at) ? [] : at);
    const onbox = (box) => set("box", box);
    const pane = (label, colours = arrays.palette) => {
      const it = picturePane(view, url, ratio, { label, grid, onpoint, onpick, onbox });
      const low = h("span", {}), high = h("span", {});
      const strip = h("canvas", { class: "rdl-strip", "aria-hidden": "true" });
      paintMap(strip, Uint8Array.from({ length: 256 }, (_, i) => i), 1, 256, colours);
      it.el.append(h("div", { class: "rdl-scale" }, low, strip, high));
      return { ...it, low, high, strip };
    };
    const panes = [pane("where a word looks")];
    const difference = pane("difference of the first two pinned words", DIVERGING);
    const mirror = pane("where a pixel looks");
    const stages = h("div", { class: "rdl-stages" }, panes[0].el, difference.el, mirror.el);
    const paneOf = (i) => {
      if (!panes[i]) {
        panes[i] = pane("where another word looks");
        difference.el.before(panes[i].el);
      }
      return panes[i];
    };
    const live = liveLine(view);
    const status = h("p", { class: "rdl-note rdl-status", role: "status" });

    // ---- controls
    const sizes = [...new Set(Object.entries(meta.layers).filter(([n]) => n !== meta.own).map(([, g]) => g.join("×")))].sort((a, b) => parseInt(b) - parseInt(a));
    const ofGrid = (g) => Object.keys(meta.layers).filter((n) => n !== meta.own && meta.layers[n].join("×") === g);
    const resolution = choice(view, "Resolution", () => (own() ? meta.own : grid().join("×")),
      (g) => set("layer", g === meta.own ? g : ofGrid(g)[0]), () => [...(meta.own in meta.layers ? [[meta.own, "the image’s"]] : []), ...sizes.map((g) => [g, g])]);
    const layer = choice(view, "Layer", () => get("layer"), (n) => set("layer", n), () => (own() ? [[meta.own, meta.own]] : ofGrid(grid().join("×"))
      .map((n) => [n, n === meta.read ? "✓ mean of those read" : n.startsWith("mean") ? "mean of all" : (meta.reads.includes(n) ? "✓ " : "") + n, !has({ layer: n, head: -1 })])), "✓ marks the layers that the method itself reads");
    const head = choice(view, "Head", () => get("head"), (n) => set("head", n), () => [[-1, "mean of all", false],
      ...Array.from({ length: meta.heads[get("layer")] }, (_, i) => [i, String(i), !has({ head: i })])]);
    const step = slider(view, "Noise", "step", { min: 0, max: meta.timesteps.length - 1, step: 1,
      show: (s) => `t = ${meta.timesteps[s]}`, hint: "the timestep at which the UNet looked at the noised image" });
    const opacity = slider(view, "Opacity", "opacity", { min: 0, max: 1, step: 0.05, show: (o) => percent(o, 0) });
    const values = segmented(view, "Values", "values", [["probabilities", "Probabilities"], ["logits", "Logits"]], (v) => !own() && has({ values: v }));
    const scale = segmented(view, "Range", "scale", [["each", "Each"], ["shared", "Shared"], ["zero", "From 0"]]);
    const smooth = segmented(view, "Pixels", "smooth", [[false, "Crisp"], [true, "Smooth"]]);
    const compare = toggle(view, "difference of two pins", "compare");
    const visible = () => [...panes, difference, mirror].filter((p) => !p.el.hidden && !p.canvas.hidden);
    const kept = ["pinned", "compare", "pixel", "box", "layer", "head", "step", "values", "scale", "smooth", "opacity"];
    const keep = h("div", { class: "rdl-keep", role: "group", "aria-label": "keep what you see" },
      ...[["PNG", savePicture], ["SVG", saveVector], ["CSV", saveNumbers], ["Copy state", copyState]].map(([name, call]) => h("button", { type: "button", class: "rdl-quiet", onclick: call }, name)),
      ...undoable(view, kept));
    const controls = h("div", { class: "rdl-controls" }, resolution.el, layer.el, head.el, step.el, values.el, scale.el, smooth.el, opacity.el, compare, keep);
    const overview = overviewPanel(view, { meta, arrays, ask, word: () => get("pinned")[0] ?? meta.head,
      enter: (at) => { for (const [name, to] of Object.entries(at)) set(name, to); } });

    // ---- keeping
    const where = () => (own() ? meta.own : `${get("layer")}, ${get("head") < 0 ? "mean of heads" : `head ${get("head")}`}, t = ${meta.timesteps[get("step")]}, ${get("values")}`);
    const fileName = (end) => `${words.slice(1, meta.spoken - 1).join(" ").replace(/[^\p{L}\p{N} ]/gu, "").slice(0, 60) || "attention"}.${end}`;
    const heading = () => `${words.slice(1, meta.spoken - 1).join(" ")}: ${where()}`;
    async function savePicture() {
      download(fileName("png"), await panesAsPicture(view, visible(), heading()));
    }
    function saveVector() {
      download(fileName("svg"), panesAsVector(view, visible(), heading()));
    }
    function saveNumbers() {
      if (!ask.here(key())) return;
      const columns = grid()[1];
      const lines = (get("pinned").length ? get("pinned") : [meta.head]).flatMap((w) =>
        Array.from(levels(w), (_, cell) => [field(words[w]), Math.floor(cell / columns), cell % columns, Number(value(w, cell).toPrecision(6))].join(",")));
      download(fileName("csv"), new Blob([["word,row,column,value", ...lines, ""].join("\n")], { type: "text/csv" }));
    }
    async function copyState() {
      const text = choicesOf(view, kept);
      try {
        await navigator.clipboard.writeText(text);
        status.textContent = "Copied: explorer.choose(**json.loads(text)) brings this view back.";
      } catch {
        status.textContent = text;
      }
    }

    // ---- drawing
    function drawWord(it, w, pinned, shown) {
      const [rows, columns] = grid();
      const [low, high] = range(w);
      const [from, to] = ends(w, shown);
      const at = (x) => ((x - from) / (to - from || 1)) * 255;
      paintMap(it.canvas, levels(w), rows, columns, arrays.palette, at(low), at(high), true);
      it.title.textContent = words[w];
      it.el.classList.toggle("rdl-pinned", pinned);
      it.note.textContent = [pinned && "pinned", flat(w) && `nearly flat, ${number(low)} to ${number(high)}`].filter(Boolean).join("; ");
      it.low.textContent = number(from);
      it.high.textContent = number(to);
    }

    function drawDifference(pinned) {
      difference.el.hidden = !(get("compare") && pinned.length > 1);
      if (difference.el.hidden) return;
      const [rows, columns] = grid();
      const found = Array.from({ length: rows * columns }, (_, cell) => value(pinned[0], cell) - value(pinned[1], cell));
      const most = Math.max(...found.map(Math.abs)) || 1;
      paintMap(difference.canvas, Uint8Array.from(found, (x) => Math.round(127.5 + (x / most) * 127.5)), rows, columns, DIVERGING);
      difference.title.textContent = `${words[pinned[0]]} − ${words[pinned[1]]}`;
      difference.low.textContent = number(-most);
      difference.high.textContent = `+${number(most)}`;
    }

    function drawPixel(at) {
      mirror.el.hidden = !meta.looks;
      if (!meta.looks) return;
      const mean = `self/mean/${get("step")}`;
      const wanted = meta.selves.includes(get("layer")) ? `self/${get("layer")}/${get("head")}/${get("step")}` : mean;
      if (at) ask.want(wanted, "self");
      const name = ask.here(wanted) ? wanted : get("_live") ? null : mean;
      const maps = arrays[name];
      const waits = Boolean(at) && !maps;
      mirror.canvas.hidden = !at || !maps;
      mirror.el.classList.toggle("rdl-idle", !at || !maps);
      mirror.el.classList.toggle("rdl-pinned", Boolean(at) && !point);
      mirror.title.textContent = "this pixel";
      const whose = name === mean ? "mean of layers" : get("head") < 0 ? "this layer" : `this layer, head ${get("head")}`;
      mirror.note.textContent = !at ? "point at a picture" : waits ? ask.error(wanted) ?? (get("_live") ? "asking …" : "not kept in this page") : `${whose}, t = ${meta.timesteps[get("step")]}`;
      if (!at || !maps) return mirror.mark(null, [1, 1]);
      const [askRows, askColumns, rows, columns] = maps.shape;
      const cell = cellOf(at, [askRows, askColumns]);
      mirror.mark(at, [askRows, askColumns]);
      paintMap(mirror.canvas, maps.subarray(cell * rows * columns, (cell + 1) * rows * columns), rows, columns, arrays.palette, 0, 255, true);
      const ranges = arrays[`range/${name}`];
      mirror.low.textContent = percent(ranges[2 * cell], 2);
      mirror.high.textContent = percent(ranges[2 * cell + 1], 1);
    }

    /** Mean of a word's map within the drawn region. */
    function inBox(w) {
      const [rows, columns] = grid();
      const [top, left, bottom, right] = get("box");
      const [y0, x0] = [Math.floor(top * rows), Math.floor(left * columns)];
      const [y1, x1] = [Math.max(y0 + 1, Math.round(bottom * rows)), Math.max(x0 + 1, Math.round(right * columns))];
      let sum = 0;
      for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) sum += value(w, y * columns + x);
      return sum / ((y1 - y0) * (x1 - x0));
    }

    function drawBars(at) {
      const region = !at && get("box").length === 4;
      row.classList.toggle("rdl-listening", Boolean(at) || region);
      if (!at && !region) {
        for (const c of chips) c.share.textContent = c.pieces;
        return [];
      }
      const found = words.map((_, w) => (region ? inBox(w) : value(w, cellOf(at, grid()))));
      const inner = found.filter((_, w) => !special(w));
      const low = probable() || own() ? 0 : Math.min(...inner);
      const high = Math.max(...inner);
      found.forEach((x, w) => {
        chips[w].bar.style.transform = `scaleX(${clamp((x - low) / (high - low || 1), 0, 1)})`;
        chips[w].share.textContent = number(x);
      });
      return found;
    }

    function draw() {
      const name = key();
      const here = ask.want(name, "slice");
      root.setAttribute("aria-busy", String(!here));
      root.classList.toggle("rdl-waiting", !here);
      status.textContent = here ? fellBack : ask.error(name) ?? (get("_live") ? "asking the kernel …" : "This page does not hold this view.");
      overview.draw();
      if (!here) return; // what is seen is dimmed until the answer comes
      const pinned = get("pinned");
      const at = place();
      const shown = pinned.length ? [...pinned] : [meta.head];
      if (hovered !== null && !shown.includes(hovered)) shown[shown.length - 1] = hovered;
      shown.forEach((w, i) => drawWord(paneOf(i), w, pinned.includes(w), shown));
      panes.forEach((p, i) => { p.el.hidden = i >= shown.length; if (p.el.hidden) p.el.classList.remove("rdl-pinned"); });
      for (const p of [...panes, difference]) { p.mark(at, grid()); p.region(get("box")); }
      drawDifference(pinned);
      drawPixel(at);
      const found = drawBars(at);
      chips.forEach(({ button }, w) => {
        button.classList.toggle("rdl-shown", shown.includes(w));
        button.setAttribute("aria-pressed", pinned.includes(w));
      });
      live.say(found.length ? sayPlace(at, found) : shown.map(sayWord).join(" "));
    }

    function sayWord(w) {
      const [rows, columns] = grid();
      const top = levels(w).indexOf(Math.max(...levels(w)));
      const [low, high] = range(w);
      return `“${words[w]}” looks most at row ${Math.floor(top / columns) + 1}, column ${(top % columns) + 1} of ${rows}×${columns}; from ${number(low)} to ${number(high)}.`;
    }

    function sayPlace(at, found) {
      const [rows, columns] = grid();
      const order = found.map((_, w) => w).filter((w) => !special(w)).sort((a, b) => found[b] - found[a]).slice(0, 3);
      const list = order.map((w) => `“${words[w]}” ${number(found[w])}`).join(", ");
      if (!at) return `The region listens most to ${list}.`;
      return `Row ${Math.floor(at[0] * rows) + 1}, column ${Math.floor(at[1] * columns) + 1} of ${rows}×${columns} listens most to ${list}.`;
    }

    let fellBack = meta.left_out;
    let moving = false;
    /** A page without a kernel holds a part of the views: the nearest is taken, at the step that was chosen, and named. */
    function choose() {
      if (moving) return;
      const wanted = chosen();
      const heads = meta.heads[wanted.layer] ?? 0;
      const nearest = [{}, { head: -1 }, { values: "probabilities" }, { head: -1, values: "probabilities" },
        { layer: meta.read, head: -1 }, { layer: meta.read, head: -1, values: "probabilities" }, { layer: meta.own }];
      const found = nearest.find((change) => (change.head ?? wanted.head) < Math.max(heads, wanted.layer === meta.own) && has(change)) ?? {};
      const changed = Object.keys(found).length > 0;
      fellBack = changed && !get("_live") ? `This page does not hold ${where()}. ${meta.left_out}` : meta.left_out;
      moving = true;
      for (const [name, to] of Object.entries(found)) set(name, to);
      moving = false;
      for (const c of [resolution, layer, head, values]) c.update();
      head.list.disabled = own();
      step.input.disabled = own() || meta.timesteps.length < 2;
      draw();
    }

    function look() {
      root.style.setProperty("--opacity", get("opacity"));
      root.classList.toggle("rdl-smooth", get("smooth"));
    }

    root.onkeydown = (event) => {
      if (event.key !== "Escape") return;
      hovered = point = null;
      for (const name of ["pinned", "pixel", "box"]) if (get(name).length) set(name, []);
      draw();
    };
    // Another sentence is other data; of what the kernel sets at once, that may be told last.
    const block = get("_block");
    const on = (names, call) => view.on(names, () => (get("_block") === block ? call() : view.restart()));
    on("_block", () => {});
    on("layer head step values", choose);
    on("pinned pixel scale compare", draw);
    on("box", () => { ask.forget("overview/"); draw(); });
    on("opacity smooth", look);
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", meta.title);
    root.append(...[
      h("header", {}, h("h2", {}, "Where every word looks"),
        h("p", {}, "Hover a word or a pixel; click pins, drag draws a region. Keys: Tab, arrows, Enter, Escape.")),
      sentenceField(view, words.slice(1, meta.spoken - 1).join(" ")), row, unread, h("div", { class: "rdl-work" }, h("div", {}, stages, live.el, status), controls), overview.el,
    ].filter(Boolean));
    look();
    choose();
  });
}
