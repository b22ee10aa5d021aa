// SegmentationPlayground: a sentence, its head and cues, the knobs of the method, and the ranking that they give.

function render(context) {
  return mount(context, (view) => {
    const { root, get, set, model } = view;
    let meta = get("_meta");
    let arrays, entry, proposals, block;
    let hovered = null; // a row of the ranking under the pointer or the focus
    let everything = false; // all proposals, or the best and those that matter
    const live = get("_live");
    const extra = {}; // what was asked of the kernel
    const asked = askable(view, extra, () => { seen.draw(); if (isSuccessor()) update(); });

    // ---- the sentence
    let draft = false; // typed since, and not sent: an answer that comes meanwhile leaves it
    const send = () => { draft = false; ask(field.value); };
    const field = h("input", {
      type: "text", class: "rdl-field", "aria-label": "sentence", spellcheck: "false", autocomplete: "off",
      // Not a form: in JupyterLab, Enter was seen to submit none in a cell that is not the active one.
      oninput: () => { draft = true; },
      onkeydown: (event) => { if (event.key === "Enter" && !event.isComposing) { event.preventDefault(); send(); } },
    });
    const spinner = h("span", { class: "rdl-spinner", role: "status" });
    const form = h("div", { class: "rdl-ask" }, field, h("button", { type: "button", class: "rdl-button", onclick: send }, "Segment"), spinner);
    const error = h("p", { class: "rdl-error", role: "alert" });
    const history = h("div", { class: "rdl-history", role: "group", "aria-label": "sentences asked" });
    const words = h("div", { class: "rdl-words", role: "toolbar", "aria-label": "words; choose the head" });
    const cues = h("div", { class: "rdl-cues", role: "group", "aria-label": "direction cues" });
    const stop = walkable(words, () => [...words.querySelectorAll("button")]);
    const line = liveLine(view);

    function ask(sentence, head = null, cues = null) {
      if (live) return set("_request", { sentence, head, cues, n: (get("_request").n ?? 0) + 1 });
      const text = sentence.trim().split(/\s+/).join(" ").toLowerCase();
      const found = meta.entries.findIndex((e) => e.text.toLowerCase() === text);
      if (found >= 0) set("current", found);
      error.textContent = found >= 0 ? "" : "This page has no networks: it knows the sentences below. Any other can be asked in a notebook.";
    }

    function drawSentence() {
      if (!(draft && field.matches(":focus"))) [field.value, draft] = [entry.text, false];
      history.hidden = meta.entries.length < 2;
      renewed(history, ...meta.entries.map((e, i) => h("button", {
        type: "button", "aria-pressed": String(i === get("current")), onclick: () => { error.textContent = ""; set("current", i); },
      }, e.text)));
      const buttons = entry.words.map((word, i) => h("button", {
        type: "button", class: "rdl-chip", "aria-pressed": String(i === entry.head), disabled: !live && i !== entry.head,
        title: i === entry.head ? "the head word, whose attention is read" : "make this the head word",
        onclick: () => ask(entry.text, word.text, entry.cues),
      }, h("span", {}, word.text)));
      renewed(words, ...buttons.map((b, i) => h("span", { class: "rdl-word" }, b,
        h("small", {}, entry.words[i].pieces.length > 1 ? entry.words[i].pieces.join(" · ") : entry.words[i].pieces.length ? "" : "not read"))));
      stop(buttons[entry.head]);
      const arrows = { left: "←", right: "→", top: "↑", bottom: "↓" };
      renewed(cues, h("span", { class: "rdl-note" }, "cues"), ...meta.directions.map((d) => h("button", {
        type: "button", class: "rdl-cue", "aria-pressed": String(entry.cues.includes(d)), disabled: !live, title: `direction cue: ${d}`, "aria-label": d,
        onclick: () => ask(entry.text, entry.words[entry.head].text, entry.cues.includes(d) ? entry.cues.filter((c) => c !== d) : [...entry.cues, d]),
      }, arrows[d])));
    }

    if (live) form.append(...ownPicture(view, (text) => { error.textContent = text; }));

    // ---- knobs
    const kind = () => (get("variant") === "g" && meta.kinds.includes("weak") ? "weak" : get("proposals"));
    const variant = segmented(view, "Variant", "variant", [["g", "g"], ["gs", "gs"], ["ds", "ds"], ["full", "full"]]);
    const successors = meta.successors ?? [];
    const isSuccessor = () => successors.includes(get("variant"));
    const later = choice(view, "What came after", () => (isSuccessor() ? get("variant") : ""), (v) => set("variant", v || "full"), () => [["", "–"], ...successors.map((v) => [v, v])],
      "methods after Ref-Diff on the same proposals, with constants of their own (lesson 13)");
    if (!successors.length) later.el.hidden = true;
    const laterName = () => `variant/${get("current")}/${kind()}/${get("variant")}`;
    const laterPart = (part) => arrays[`${laterName()}/${part}`] ?? extra[`${laterName()}/${part}`];
    const two = (x) => x.toFixed(2);
    const generator = choice(view, "Proposals", kind, (k) => set("proposals", k),
      () => meta.kinds.map((k) => [k, k, get("variant") === "g" && k !== "weak" && meta.kinds.includes("weak")]));
    const alpha = slider(view, "α, weight of diffusion", "alpha", { min: 0, max: 1, step: 0.01, show: two });
    const beta = slider(view, "β, weight of the masked view", "beta", { min: 0, max: 1, step: 0.01, show: two });
    const threshold = slider(view, "Threshold", "threshold", { min: 0, max: get("_meta").thresholds, step: 1,
      show: (k) => (k ? percent(k / (get("_meta").thresholds + 1), 0) : "by score") });
    const showing = segmented(view, "Picture", "show_what", [["mask", "Mask"], ["map", "Word map"]]);
    const bias = toggle(view, "positional bias", "bias");
    const heading = () => `${entry.text}: ${get("variant")}, ${kind()}`;
    const visible = () => panes.filter((p) => !p.el.hidden);
    const keep = h("div", { class: "rdl-keep", role: "group", "aria-label": "keep what you see" },
      ...[["PNG", async () => download("refdiff.png", await panesAsPicture(view, visible(), heading()))],
        ["SVG", () => download("refdiff.svg", panesAsVector(view, visible(), heading()))],
        ["CSV", () => download("refdiff.csv", new Blob([["rank,proposal,S_G,S_D,S,IoU", ...ranked.map((r, i) => [i + 1, r.i, r.sg, Number.isNaN(r.sd) ? "" : r.sd, r.s, r.iou >= 0 ? r.iou : ""].join(",")), ""].join("\n")], { type: "text/csv" }))],
      ].map(([text, call]) => h("button", { type: "button", class: "rdl-quiet", onclick: call }, text)),
      ...undoable(view, ["variant", "proposals", "alpha", "beta", "bias", "threshold", "show_what"]));
    const knobs = h("div", { class: "rdl-controls rdl-knobs" }, variant.el, later.el, generator.el, alpha.el, beta.el, threshold.el, showing.el, bias, keep);

    // ---- masks of the chosen generator, unpacked once
    let cache = new Map();
    function masksOf(name) {
      const at = name === "weak" ? `${get("current")}/levels` : `masks/${name}`;
      if (!cache.has(at)) {
        const [rows, columns] = meta.size;
        const count = arrays[`${get("current")}/${name}`].shape[1];
        const source = arrays[at];
        const stride = name === "weak" ? 0 : source?.shape[1];
        cache.set(at, Array.from({ length: count }, (_, n) => {
          const mask = new Uint8Array(rows * columns);
          let [top, left, bottom, right] = [rows, columns, -1, -1];
          for (let p = 0; p < mask.length; p++) {
            mask[p] = name === "weak" ? source[p] > n : (source[n * stride + (p >> 3)] >> (p & 7)) & 1;
            if (!mask[p]) continue;
            const y = Math.floor(p / columns), x = p % columns;
            top = Math.min(top, y); bottom = Math.max(bottom, y); left = Math.min(left, x); right = Math.max(right, x);
          }
          return { mask, box: [top, left, bottom, right] };
        }));
      }
      return cache.get(at);
    }

    /** The same sums as `score` in Python. */
    function scores(name) {
      const table = arrays[`${get("current")}/${name}`];
      const n = table.shape[1];
      const row = (i) => table.subarray(i * n, (i + 1) * n);
      const [sg, otsu, known] = [row(0), row(1), row(6)];
      const bias = get("bias") ? 1 : 0;
      const [crop, masked] = [row(2 + bias), row(4 + bias)];
      const [a, b, v] = [get("alpha"), get("beta"), get("variant")];
      if (isSuccessor()) {
        const rows = laterPart("rows");
        return rows ? Array.from({ length: n }, (_, i) => ({ i, sg: rows[i], sd: rows[n + i], s: rows[2 * n + i], iou: known[i] })) : [];
      }
      return Array.from({ length: n }, (_, i) => {
        const sd = b * masked[i] + (1 - b) * crop[i];
        const s = v === "g" ? (entry.otsu ? otsu[i] : sg[i]) : v === "gs" ? sg[i] : v === "ds" ? sd : a * sg[i] + (1 - a) * sd;
        return { i, sg: sg[i], sd, s, iou: known[i] };
      });
    }

    // ---- pictures: the winner, and beside it what was picked
    const image = new Image();
    const panes = ["the image with the mask shown", "the image with the mask that was picked"].map((label) => picturePane(view, "", 1, { label }));
    const stages = h("div", { class: "rdl-stages" }, panes.map((p) => p.el));
    let bytes = null;
    function drawImage() {
      if (bytes && bytes.length === arrays.image.length && bytes.every((x, i) => x === arrays.image[i])) return;
      bytes = arrays.image;
      image.src = pictureUrl(bytes);
      for (const { stage } of panes) {
        stage.querySelector("img").src = image.src;
        const ratio = meta.size[1] / meta.size[0];
        stage.style.aspectRatio = ratio;
        stage.style.setProperty("--ratio", ratio);
      }
      image.decode().then(() => update()).catch(() => {});
    }

    function drawPicture(pane, shown, what) {
      const [rows, columns] = meta.size;
      const map = get("show_what") === "map" && pane === panes[0];
      pane.canvas.style.opacity = map ? 0.75 : 1;
      if (map) paintMap(pane.canvas, (isSuccessor() && laterPart("map")) || arrays[`${get("current")}/map`], rows, columns, arrays.palette, 0, 255, true);
      else paintMask(pane.canvas, proposals[shown]?.mask, rows, columns, getComputedStyle(root).getPropertyValue("--rim"));
      pane.title.textContent = map ? `map of “${entry.words[entry.head].text}”` : shown === undefined ? "no proposal" : "mask";
      const row = ranked.find((r) => r.i === shown);
      pane.note.textContent = row ? `${what} #${shown}${row.iou >= 0 ? `, IoU ${two(row.iou)}` : ""}` : "";
    }

    // ---- ranking
    const table = h("div", { class: "rdl-ranking", role: "group", "aria-label": "proposals, best first" });
    const legend = h("div", { class: "rdl-rank rdl-legend", "aria-hidden": "true" });
    const note = h("p", { class: "rdl-note" });
    const more = h("button", { type: "button", class: "rdl-quiet", onclick: () => { everything = !everything; update(); } });
    const TOP = 8;

    /** The proposal that fits the truth best, where the truth is known. */
    const truest = (list) => list.reduce((best, r) => (r.iou > (best?.iou ?? 0) ? r : best), null)?.i;

    function drawRanking(list, best) {
      const clip = ["full", "ds", "hybridgl", "relations"].includes(get("variant"));
      const truth = entry.truth && list.some((r) => r.iou >= 0);
      const right = truest(list);
      const columns = [["sg", "S_G"], ...(clip ? [["sd", "S_D"]] : []), ["s", "S"]];
      table.style.setProperty("--bars", columns.length);
      legend.style.setProperty("--bars", columns.length);
      legend.replaceChildren(h("span", {}), h("span", {}), ...columns.map(([, c]) => h("span", {}, c.slice(0, 1), c.length > 1 ? h("sub", {}, c.slice(2)) : null)), h("span", {}, truth ? "IoU" : ""));
      const spans = columns.map(([c]) => [Math.min(...list.map((r) => r[c])), Math.max(...list.map((r) => r[c]))]);
      const focused = table.contains(document.activeElement) ? document.activeElement.dataset.i : null;
      const shown = list.map((r, rank) => ({ ...r, rank: rank + 1 })).filter((r) => everything || r.rank <= TOP || [right, best, get("picked")].includes(r.i));
      const rows = shown.map((r) => {
        const bars = columns.map(([c], k) => h("span", { class: c === "s" ? "rdl-score rdl-sum" : "rdl-score" },
          h("i", { style: `width:${4 + 96 * ((r[c] - spans[k][0]) / (spans[k][1] - spans[k][0] || 1))}%` }), h("small", {}, fixed(r[c], 3))));
        const fits = r.i === right;
        return h("button", {
          type: "button", class: `rdl-rank${r.i === best ? " rdl-best" : ""}${fits ? " rdl-true" : ""}`, "data-i": r.i, "aria-pressed": String(r.i === get("picked")),
          title: fits ? "fits the truth best" : null,
          "aria-label": `proposal ${r.i}, rank ${r.rank}${r.i === best ? ", chosen" : ""}${fits ? ", fits the truth best" : ""}: ` + columns.map(([c, n]) => `${n} ${fixed(r[c], 3)}`).join(", ") + (r.iou >= 0 ? `, IoU ${r.iou.toFixed(2)}` : ""),
          onpointerenter: () => { hovered = r.i; point(); }, onpointerleave: () => { hovered = null; point(); },
          onfocus: () => { hovered = r.i; point(); }, onblur: () => { hovered = null; point(); },
          onclick: () => set("picked", get("picked") === r.i ? -1 : r.i),
        }, thumbOf(r.i), h("span", { class: "rdl-number" }, h("b", {}, `#${r.i}`), r.rank > TOP ? `rank ${r.rank}` : ""), bars, h("span", { class: "rdl-iou" }, truth ? `${fits ? "✓ " : ""}${two(r.iou)}` : ""));
      });
      table.classList.toggle("rdl-all", everything);
      table.replaceChildren(...rows);
      stopRow(rows.find((r) => r.dataset.i === focused) ?? rows[0]);
      if (focused !== null) rows.find((r) => r.dataset.i === focused)?.focus();
      more.hidden = list.length <= TOP;
      more.textContent = everything ? "show the best alone" : `show all ${list.length}`;
      note.textContent = list.length ? `${list.length} ${kind()} proposals, by S; each bar runs from its column’s least value to its greatest.${right === undefined ? "" : " ✓ fits the truth best."}`
        : isSuccessor() && proposals.length ? asked.error(laterName()) ?? (live ? `asking the networks for ${get("variant")} …` : `This page does not keep ${get("variant")} for this sentence; it can be asked in a notebook.`)
        : "No proposal was found; weak proposals always give some.";
    }
    const stopRow = walkable(table, () => [...table.children]);

    const thumbs = new Map(); // small pictures of the proposals shown last; sliders only move them
    function thumbOf(i) {
      const at = `${kind()}/${get("current")}/${i}`;
      if (!thumbs.has(at)) {
        const canvas = h("canvas", { class: "rdl-thumb", width: 44, height: 44 });
        drawThumb(canvas, proposals[i]);
        thumbs.set(at, canvas);
      }
      return thumbs.get(at);
    }

    function drawThumb(canvas, { mask, box: [top, left, bottom, right] }) {
      const context = canvas.getContext("2d");
      const [rows, columns] = meta.size;
      const side = Math.max(bottom - top, right - left) + 5;
      const [y, x] = [(top + bottom - side) / 2, (left + right - side) / 2];
      const cut = new OffscreenCanvas(columns, rows);
      const pixels = cut.getContext("2d");
      pixels.drawImage(image, 0, 0, columns, rows);
      const data = pixels.getImageData(0, 0, columns, rows);
      for (let p = 0; p < mask.length; p++) if (!mask[p]) data.data[4 * p + 3] = 45;
      pixels.putImageData(data, 0, 0);
      context.drawImage(cut, x, y, side, side, 0, 0, 44, 44);
    }

    let ranked = [], best;
    function point() {
      const picked = get("picked") >= 0 && get("picked") < proposals.length ? get("picked") : null;
      const two = picked !== null && picked !== best;
      const shown = hovered ?? picked ?? best;
      const called = (i) => (i === best ? "chosen" : i === picked ? "picked" : "proposal");
      drawPicture(panes[0], two ? best : shown, called(two ? best : shown));
      panes[1].el.hidden = !two;
      if (two) drawPicture(panes[1], shown, called(shown));
      const row = ranked.find((r) => r.i === shown);
      if (row) line.say(`“${entry.text}”: ${shown === best ? "chosen is" : "shown is"} proposal ${shown} of ${ranked.length}, S ${fixed(row.s, 3)}${row.iou >= 0 ? `, IoU ${row.iou.toFixed(2)}` : ""}.`);
      seen.draw();
    }

    const seen = clipPanel(view, asked, {
      find: (name) => (`${name}/crop` in arrays ? arrays : extra),
      shown: () => (get("picked") >= 0 ? get("picked") : best),
      name: (i) => `clip/${get("current")}/${kind()}/${i}/${get("bias") ? 1 : 0}`,
    });

    function update() {
      const name = kind();
      generator.update();
      threshold.el.hidden = name !== "weak";
      later.update();
      alpha.el.hidden = get("variant") !== "full";
      beta.el.hidden = !["full", "ds"].includes(get("variant"));
      bias.hidden = beta.el.hidden;
      proposals = masksOf(name);
      const waits = isSuccessor() && !laterPart("rows");
      if (waits) asked.want(laterName(), "variant");
      ranked = scores(name).sort((a, b) => b.s - a.s);
      const k = get("threshold");
      best = !ranked.length ? undefined : name === "weak" && k ? Math.min(k, ranked.length) - 1 : ranked[0].i;
      if (image.complete && image.naturalWidth) drawRanking(ranked, best);
      point();
    }

    /** The kernel sets several things at once, and what changed is told one by one: data first, whichever comes first. */
    const fresh = (call) => () => (get("_block") === block ? call() : renew());
    function renew() {
      block = get("_block");
      meta = get("_meta");
      arrays = unpack(model);
      cache = new Map();
      thumbs.clear();
      asked.forget("");
      drawImage();
      letGo();
      select();
    }
    function select() {
      entry = meta.entries[clamp(get("current"), 0, meta.entries.length - 1)];
      hovered = null;
      drawSentence();
      update();
    }
    function busy() {
      root.setAttribute("aria-busy", String(get("_busy")));
      spinner.textContent = get("_busy") ? "asking the networks …" : "";
    }

    /** What was picked is one of the proposals shown until now: another sentence or generator lets it go. */
    let before = "";
    function letGo() {
      const now = `${get("current")}/${kind()}`;
      if (before && now !== before) {
        hovered = null;
        if (get("picked") >= 0) set("picked", -1);
      }
      before = now;
    }
    view.on("_block", fresh(() => {}));
    view.on("current", fresh(() => { letGo(); select(); }));
    view.on("variant proposals", fresh(() => { letGo(); update(); }));
    view.on("alpha beta bias threshold picked", fresh(update));
    view.on("show_what", fresh(point));
    view.on("_busy", busy);
    view.on("_error", () => { error.textContent = get("_error"); });
    root.addEventListener("keydown", (event) => { if (event.key === "Escape") { hovered = null; set("picked", -1); point(); } });
    root.classList.add("rdl-smooth");
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", get("_meta").title);
    root.append(
      h("header", {}, h("h2", {}, "Which mask does a sentence mean?"), h("p", {}, "Type, click a word to make it the head, hover the ranking.")),
      form, error, history, h("div", { class: "rdl-parse" }, words, cues),
      h("div", { class: "rdl-split rdl-play" }, h("div", {}, stages, line.el), h("div", {}, legend, table, note, more, seen.el), knobs),
    );
    error.textContent = get("_error");
    busy();
    renew();
  });
}
