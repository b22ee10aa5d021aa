// Attention between tokens as a drawing: two columns joined by lines, or a matrix; SVG, so that it can be taken along.

/** The page's colours, which follow its theme. */
const INK = Object.fromEntries(["ink", "muted", "paper", "accent"].map((n) => [n, `var(--${n})`]));

const sheetOf = (width, height, ...children) => svg("svg", {
  xmlns: "http://www.w3.org/2000/svg", width, height, viewBox: `0 0 ${width} ${height}`, "font-family": "Inter, system-ui, sans-serif", "font-size": 13, "aria-hidden": "true",
}, svg("rect", { width, height, fill: INK.paper }), ...children);

/**
 * Two columns of the tokens; a line from each one on the left to those on the right that it looks at, as strong as its
 * share. `at` is { side: "looks" | "seen", token } or null. `onpoint(at)` and `onpick(at)` tell where the mouse is.
 */
function drawLines({ tokens, share, at, onpoint, onpick }) {
  const longest = Math.max(...tokens.map((t) => short(t).length));
  const [tall, left, top] = [26, Math.max(60, 16 + 8 * longest), 34];
  const [right, width] = [left + 160, 2 * left + 160 + 56]; // behind a word on the right stands its share
  const y = (i) => top + i * tall + tall / 2;
  const lines = svg("g", { fill: "none", stroke: INK.accent });
  const on = (i, j) => !at || (at.side === "looks" ? i === at.token : j === at.token);
  tokens.forEach((_, i) => tokens.forEach((__, j) => {
    if (share(i, j) < 0.005 || !on(i, j)) return;
    const middle = (left + right) / 2;
    lines.append(svg("path", {
      d: `M${left + 8} ${y(i)}C${middle} ${y(i)} ${middle} ${y(j)} ${right - 8} ${y(j)}`,
      "stroke-width": at ? 1 + 5 * share(i, j) : 2, "stroke-opacity": (at ? 0.25 + 0.75 * share(i, j) : Math.max(0.06, share(i, j))).toFixed(3),
    }));
  }));
  const heading = (x, anchor, words) => svg("text", { x, y: 18, "text-anchor": anchor, fill: INK.muted, "font-size": 12 }, words);
  const column = (side, x, anchor) => tokens.map((text, i) => {
    const own = at && at.side === side && at.token === i;
    const told = at && at.side !== side ? (side === "seen" ? share(at.token, i) : share(i, at.token)) : null;
    const number = told !== null && told >= 0.005 ? percent(told, told < 0.1 ? 1 : 0) : "";
    const word = svg("text", { x, y: y(i) + 4.5, "text-anchor": anchor, fill: own ? INK.accent : at && !number ? INK.muted : INK.ink, "font-weight": own || number ? 600 : 400 },
      short(text), ...(number ? [svg("tspan", { dx: 8, fill: INK.muted, "font-weight": 400, "font-size": 12 }, number)] : []));
    const area = svg("rect", { x: side === "looks" ? 0 : right - 6, y: top + i * tall, width: side === "looks" ? left + 6 : width - right + 6, height: tall, fill: "transparent", cursor: "pointer", "data-side": side, "data-token": i });
    area.addEventListener("pointerenter", () => onpoint({ side, token: i }));
    area.addEventListener("click", () => onpick({ side, token: i }));
    return svg("g", {}, word, area);
  });
  return sheetOf(width, top + tokens.length * tall + 8, heading(left, "end", "looks"), heading(right, "start", "is looked at"),
    lines, ...column("looks", left, "end"), ...column("seen", right, "start"));
}

/** A row for each token that looks, a column for each that is looked at. */
function drawMatrix({ tokens, share, at, palette, most, onpoint, onpick }) {
  const [n, longest] = [tokens.length, Math.max(...tokens.map((t) => short(t).length))];
  const [cell, left, top] = [clamp(Math.round(440 / n), 14, 34), 18 + 7.5 * longest, 18 + 6.5 * longest];
  const canvas = h("canvas", {});
  paintMap(canvas, Uint8Array.from({ length: n * n }, (_, k) => Math.round((share(Math.floor(k / n), k % n) / most) * 255)), n, n, palette);
  const picture = svg("image", { x: left, y: top, width: n * cell, height: n * cell, href: canvas.toDataURL(), preserveAspectRatio: "none", style: "image-rendering:pixelated" });
  const is = (side, i) => at && (at.side === side || at.both) && (at.both ? at[side] === i : at.token === i);
  const label = (side, i, more) => svg("text", { "font-size": 12, fill: is(side, i) ? INK.accent : INK.ink, "font-weight": is(side, i) ? 600 : 400, ...more }, short(tokens[i]));
  const rows = tokens.map((_, i) => label("looks", i, { x: left - 8, y: top + (i + 0.5) * cell + 4, "text-anchor": "end" }));
  const columns = tokens.map((_, j) => label("seen", j, { transform: `translate(${left + (j + 0.5) * cell + 4} ${top - 8}) rotate(-60)` }));
  const band = (side, i) => svg("rect", { x: side === "looks" ? left : left + i * cell, y: side === "looks" ? top + i * cell : top, width: side === "looks" ? n * cell : cell, height: side === "looks" ? cell : n * cell, fill: "none", stroke: INK.accent, "stroke-width": 2 });
  const bands = at ? (at.both ? ["looks", "seen"].map((s) => band(s, at[s])) : [band(at.side, at.token)]) : [];
  const area = svg("rect", { x: left, y: top, width: n * cell, height: n * cell, fill: "transparent", cursor: "crosshair", "data-area": "cells" });
  const place = (event) => {
    const box = area.getBoundingClientRect();
    const index = (x, size) => clamp(Math.floor((x / size) * n), 0, n - 1);
    const [looks, seen] = [index(event.clientY - box.top, box.height), index(event.clientX - box.left, box.width)];
    return { both: true, looks, seen, side: "looks", token: looks };
  };
  area.addEventListener("pointermove", (event) => onpoint(place(event)));
  area.addEventListener("click", (event) => onpick({ side: "looks", token: place(event).looks }));
  return sheetOf(left + n * cell + 44, top + n * cell + 8, picture, ...rows, ...columns, ...bands, area);
}

const short = (text) => (text.length > 16 ? `${text.slice(0, 15)}…` : text);

/** A drawing with a line above that says what it is, as SVG with the colours of now: a file knows no style sheet. */
function drawingAsVector(view, drawing, heading) {
  const [width, height] = ["width", "height"].map((n) => Number(drawing.getAttribute(n)));
  const copy = drawing.cloneNode(true);
  for (const area of copy.querySelectorAll("[data-side], [data-area]")) area.remove();
  copy.setAttribute("y", 30);
  const wide = Math.max(width, 24 + 7 * heading.length);
  const text = new XMLSerializer().serializeToString(sheetOf(wide, height + 30, svg("text", { x: 12, y: 20, fill: INK.muted }, heading), copy));
  const style = getComputedStyle(view.root);
  return text.replace(/var\((--\w+)\)/g, (_, name) => style.getPropertyValue(name).trim());
}

/** The same as PNG, twice as fine. */
async function drawingAsPicture(text) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = h("canvas", { width: 2 * image.width, height: 2 * image.height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

/**
 * Every layer by every head as a small matrix; a click enters one. `share(layer, head)` gives a function of two tokens, or
 * null for a layer that is not here. `draw()` makes them anew, `mark()` shows the one that is chosen.
 */
function headsPanel(view, { n, heads, palette, share }) {
  const { get, set } = view;
  let all = [];
  const body = h("div", { class: "rdl-heads", role: "toolbar", "aria-label": "layers and heads" });
  const stop = walkable(body, () => all.map((b) => b.button).filter((b) => !b.disabled));
  const el = h("figure", { class: "rdl-heads-pane" }, h("figcaption", { class: "rdl-note" }, "Every head, a row a layer; click one to enter."), body);
  function mark() {
    for (const { button, layer, head } of all) button.setAttribute("aria-pressed", layer === get("layer") && head === get("head"));
  }
  function draw() {
    all = heads.flatMap((count, layer) => Array.from({ length: count }, (_, head) => {
      const canvas = h("canvas", {});
      const of = share(layer, head);
      if (of) paintMap(canvas, Uint8Array.from({ length: n * n }, (_, k) => Math.round(255 * clamp(of(Math.floor(k / n), k % n), 0, 1))), n, n, palette);
      const label = `layer ${layer}, head ${head}`;
      const enter = () => { set("layer", layer); set("head", head); };
      return { layer, head, button: h("button", { type: "button", class: "rdl-head", title: label, "aria-label": label, disabled: !of, onclick: enter }, canvas) };
    }));
    body.style.setProperty("--heads", Math.max(...heads));
    body.replaceChildren(...all.map((b) => b.button));
    mark();
    const first = all.find((b) => !b.button.disabled);
    if (first) stop(first.button);
  }
  return { el, draw, mark };
}
