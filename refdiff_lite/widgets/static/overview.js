// Overview: every layer by every head, and every layer by every step, as small maps; a click enters one.

/**
 * A table of small maps of one word. `word()` names it, `enter({ layer, head, step })` is what a click does.
 * Sorted by entropy or by the share inside the drawn region, the maps stand in one row, the sharpest first.
 */
function overviewPanel(view, { meta, arrays, ask, word, enter }) {
  const { get } = view;
  const body = h("div", { class: "rdl-overview-body" });
  const what = h("span", { class: "rdl-note" });
  const select = h("select", { "aria-label": "Order of the overview", onchange: () => draw() });
  const table = h("select", { "aria-label": "Columns of the overview", onchange: () => draw() },
    h("option", { value: "heads" }, "layers × heads"), h("option", { value: "steps" }, "layers × timesteps"));
  const el = h("details", { class: "rdl-overview", ontoggle: () => draw() },
    h("summary", {}, "Overview of all layers, heads and timesteps"), h("div", { class: "rdl-overview-top" }, table, select, what), body);
  const stop = walkable(body, () => [...body.querySelectorAll("button")]);

  function orders() {
    const found = [["runs", "as they run"], ["entropy", "most focused first"]];
    if (get("box").length) found.push(["inside", "most inside the region first"]);
    const chosen = select.value || "runs";
    select.replaceChildren(...found.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
  }

  function draw() {
    if (!el.open) return;
    orders();
    const name = `overview/${word()}/${get("step")}`;
    if (!ask.want(name, "overview")) {
      what.textContent = ask.error(name) ?? (get("_live") ? "asking …" : "not kept in this page for this word and step");
      body.replaceChildren();
      return;
    }
    const kind = table.value;
    const [maps, entropy, inside] = ["", "/entropy", "/inside"].map((n) => arrays[`${name}/${kind}${n}`]);
    const [layers, columns, rows, wide] = maps.shape;
    what.textContent = `“${meta.words[word()]}”${kind === "heads" ? `, t = ${meta.timesteps[get("step")]}` : ""}; each map between its own ends. Click enters.`;
    const cells = [];
    for (let l = 0; l < layers; l++)
      for (let c = 0; c < columns; c++)
        if (kind === "steps" || c <= meta.heads[meta.each[l]]) cells.push({ l, c, entropy: entropy[l * columns + c], inside: inside?.[l * columns + c] });
    const by = select.value;
    if (by === "entropy") cells.sort((a, b) => a.entropy - b.entropy);
    if (by === "inside" && inside) cells.sort((a, b) => b.inside - a.inside);
    const button = ({ l, c, entropy: e, inside: share }) => {
      const canvas = h("canvas", {});
      const start = (l * columns + c) * rows * wide;
      paintMap(canvas, maps.subarray(start, start + rows * wide), rows, wide, arrays.palette);
      const place = kind === "heads" ? (c ? `head ${c - 1}` : "mean of heads") : `t = ${meta.timesteps[c]}`;
      const label = `${meta.each[l]}, ${place}: entropy ${percent(e, 0)}${share === undefined ? "" : `, ${percent(share, 0)} inside`}`;
      return h("button", { type: "button", class: "rdl-small", title: label, "aria-label": label,
        onclick: () => enter(kind === "heads" ? { layer: meta.each[l], head: c - 1 } : { layer: meta.each[l], head: -1, step: c }) },
        canvas, by === "runs" ? null : h("small", {}, percent(by === "entropy" ? e : share, 0)));
    };
    if (by === "runs") {
      const heading = Array.from({ length: columns }, (_, c) => (kind === "steps" ? `t = ${meta.timesteps[c]}` : c ? c - 1 : "mean"));
      body.replaceChildren(h("div", { class: "rdl-small-row rdl-small-head", "aria-hidden": "true" }, h("span", { class: "rdl-small-name" }, kind === "heads" ? "layer, head" : "layer"), heading.map((c) => h("span", {}, String(c)))), ...meta.each.map((layer, l) => h("div", { class: "rdl-small-row" },
        h("span", { class: "rdl-small-name", title: layer }, layer), ...cells.filter((c) => c.l === l).map(button))));
    } else body.replaceChildren(h("div", { class: "rdl-small-row rdl-small-all" }, cells.map(button)));
    stop(body.querySelector("button"));
  }
  return { el, draw };
}
