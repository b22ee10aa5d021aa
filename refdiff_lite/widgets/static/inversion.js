// InversionExplorer: three journeys side by side, one slider, and the curve of what is left of the picture.

function render(context) {
  return mount(context, (view) => {
    const { root, get, set } = view;
    const meta = get("_meta");
    const arrays = unpack(view.model);
    const last = meta.timesteps.length - 1;
    const middle = last / 2;
    const names = { random: "random noise", ddim: "DDIM inversion", "fixed-point": "fixed-point" };
    const db = (way, step) => arrays[`${way}/psnr`][step];
    const say = (x) => (x >= meta.top ? `≥ ${meta.top} dB` : `${x.toFixed(1)} dB`);
    const live = liveLine(view);
    const blank = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";

    // ---- pictures: one strip a way, moved under its window; latents in four channels
    const strips = {};
    const panes = meta.ways.map((way) => {
      const pane = picturePane(view, blank, meta.size[1] / meta.size[0], { label: names[way] ?? way });
      pane.stage.style.backgroundImage = `url("${pictureUrl(arrays[`${way}/strip`])}")`;
      pane.stage.style.backgroundSize = `${(last + 1) * 100}% 100%`;
      strips[way] = h("img", { src: pictureUrl(arrays[`${way}/strip`]) });
      pane.title.textContent = names[way] ?? way;
      pane.el.classList.add(`rdl-way-${way}`);
      return { way, ...pane };
    });

    function drawLatents(pane, step) {
      const [, channels, rows, columns] = arrays[`${pane.way}/latents`].shape;
      const wide = Math.ceil(Math.sqrt(channels));
      const tall = Math.ceil(channels / wide);
      const cells = rows * columns;
      const from = arrays[`${pane.way}/latents`].subarray(step * channels * cells, (step + 1) * channels * cells);
      const sheet = new Uint8Array(wide * tall * cells).fill(128);
      for (let c = 0; c < channels; c++)
        for (let y = 0; y < rows; y++)
          sheet.set(from.subarray(c * cells + y * columns, c * cells + (y + 1) * columns), (Math.floor(c / wide) * rows + y) * wide * columns + (c % wide) * columns);
      paintMap(pane.canvas, sheet, tall * rows, wide * columns, DIVERGING);
    }

    // ---- the curve
    const [width, height, left, right, top, bottom] = [760, 250, 66, 196, 14, 34];
    const x = (step) => left + (step / last) * (width - left - right);
    const y = (value) => height - bottom - (clamp(value, 0, meta.top) / meta.top) * (height - top - bottom);
    const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "rdl-chart", role: "img", "aria-label": "PSNR of the three ways over the steps" });
    const text = (props, content) => svg("text", props, content);
    for (const value of [0, 20, 40, 60].filter((v) => v <= meta.top))
      chart.append(svg("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: "rdl-grid" }), text({ x: left - 8, y: y(value) + 4, "text-anchor": "end" }, `${value} dB`));
    chart.append(
      text({ x: left, y: height - 8 }, "x₀"), text({ x: x(middle), y: height - 8, "text-anchor": "middle" }, "noise"),
      text({ x: x(last), y: height - 8, "text-anchor": "end" }, "back"),
    );
    const cursor = svg("line", { y1: top, y2: height - bottom, class: "rdl-cursor" });
    chart.append(cursor);
    const ends = meta.ways.map((way) => ({ way, at: y(db(way, last)) })).sort((a, b) => a.at - b.at);
    ends.forEach((e, i) => { if (i) e.at = Math.max(e.at, ends[i - 1].at + 17); }); // labels do not overlap
    const dots = Object.fromEntries(meta.ways.map((way) => {
      const points = Array.from({ length: last + 1 }, (_, s) => `${x(s)},${y(db(way, s))}`).join(" ");
      const dot = svg("circle", { r: 5 });
      chart.append(svg("g", { class: `rdl-way-${way}` }, svg("polyline", { points }), dot,
        text({ x: width - right + 12, y: ends.find((e) => e.way === way).at + 4 }, names[way] ?? way)));
      return [way, dot];
    }));
    const toStep = (event) => {
      const box = chart.getBoundingClientRect();
      return clamp(Math.round((((event.clientX - box.left) / box.width) * width - left) / (width - left - right) * last), 0, last);
    };
    chart.addEventListener("pointerdown", (event) => { chart.setPointerCapture(event.pointerId); set("step", toStep(event)); });
    chart.addEventListener("pointermove", (event) => { if (event.buttons) set("step", toStep(event)); });

    // ---- controls
    const where = (s) => (s === 0 ? "x₀" : s < middle ? `there, t = ${meta.timesteps[s]}` : s === middle ? `noise, t = ${meta.timesteps[s]}` : s < last ? `back, t = ${meta.timesteps[s]}` : "back at x₀");
    const slide = slider(view, "Step", "step", { min: 0, max: last, step: 1, show: where });
    const showing = segmented(view, "Picture", "latents", [[false, "Decoded"], [true, "Latents"]]);
    const scale = h("p", { class: "rdl-note" }, `Four channels, from −${meta.span.toFixed(1)} (blue) over 0 (white) to ${meta.span.toFixed(1)} (orange).`);

    const button = (text, act) => h("button", { type: "button", class: "rdl-quiet", onclick: act }, text);
    const keep = h("div", { class: "rdl-keep", role: "group", "aria-label": "keep what you see" },
      button("PNG", async () => download("refdiff-inversion.png", await panesAsPicture(view, stills(), where(get("step"))))),
      button("CSV", () => {
        const lines = meta.ways.flatMap((way) => meta.timesteps.map((t, s) => [way, s, t, Number(db(way, s).toPrecision(6))].join(",")));
        download("refdiff-inversion.csv", new Blob([["way,step,timestep,psnr", ...lines, ""].join("\n")], { type: "text/csv" }));
      }));

    /** The panes with the frame shown cut out of its strip, for a canvas knows no moving background. */
    function stills() {
      return panes.map((pane) => {
        const canvas = h("canvas", { width: meta.size[1], height: meta.size[0] });
        if (!get("latents")) canvas.getContext("2d").drawImage(strips[pane.way], -clamp(get("step"), 0, last) * meta.size[1], 0);
        return { ...pane, canvas: get("latents") ? pane.canvas : canvas };
      });
    }

    function draw() {
      const step = clamp(get("step"), 0, last);
      const latents = get("latents");
      scale.hidden = !latents;
      for (const pane of panes) {
        pane.canvas.hidden = !latents;
        pane.stage.style.backgroundPositionX = `${(step / last) * 100}%`;
        if (latents) drawLatents(pane, step);
        pane.note.textContent = say(db(pane.way, step));
        dots[pane.way].setAttribute("cx", x(step));
        dots[pane.way].setAttribute("cy", y(db(pane.way, step)));
      }
      cursor.setAttribute("x1", x(step));
      cursor.setAttribute("x2", x(step));
      live.say(`${where(step)}: ` + meta.ways.map((way) => `${names[way] ?? way} ${say(db(way, step))}`).join(", ") + ".");
    }

    view.on("step latents", draw);
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", meta.title);
    root.append(
      h("header", {}, h("h2", {}, meta.title), h("p", {}, "Slide, or drag along the curve. PSNR is against the VAE’s own picture of x₀.")),
      h("div", { class: "rdl-stages rdl-three" }, panes.map((p) => p.el)), scale,
      h("div", { class: "rdl-split rdl-journey" }, chart, h("div", { class: "rdl-controls" }, slide.el, showing.el, keep)), live.el,
    );
    draw();
  });
}
