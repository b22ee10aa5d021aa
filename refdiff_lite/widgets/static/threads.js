// Attention between tokens as a drawing: two columns joined by lines, or a matrix; SVG, so that it can be taken along.

/** The colours that a drawing needs, as they are now; what is taken along knows no style sheet. */
function inks(view) {
  const style = getComputedStyle(view.root);
  return Object.fromEntries(["ink", "muted", "line", "paper", "panel", "accent"].map((n) => [n, style.getPropertyValue(`--${n}`).trim()]));
}

const sheetOf = (width, height, ink, ...children) => svg("svg", {
  xmlns: "http://www.w3.org/2000/svg", width, height, viewBox: `0 0 ${width} ${height}`, "font-family": "Inter, system-ui, sans-serif", "font-size": 13, "aria-hidden": "true",
}, svg("rect", { width, height, fill: ink.paper }), ...children);

/**
 * Two columns of the tokens; a line from each one on the left to those on the right that it looks at, as strong as its
 * share. `at` is { side: "looks" | "seen", token } or null. `onpoint(at)` and `onpick(at)` tell where the mouse is.
 */
function drawLines({ tokens, share, at, ink, onpoint, onpick }) {
  const [tall, left, right, width, top] = [26, 150, 330, 480, 34];
  const y = (i) => top + i * tall + tall / 2;
  const lines = svg("g", { fill: "none", stroke: ink.accent });
  const on = (i, j) => !at || (at.side === "looks" ? i === at.token : j === at.token);
  tokens.forEach((_, i) => tokens.forEach((__, j) => {
    if (share(i, j) < 0.005 || !on(i, j)) return;
    const middle = (left + right) / 2;
    lines.append(svg("path", {
      d: `M${left + 8} ${y(i)}C${middle} ${y(i)} ${middle} ${y(j)} ${right - 8} ${y(j)}`,
      "stroke-width": at ? 1 + 5 * share(i, j) : 2, "stroke-opacity": Math.max(0.06, share(i, j)).toFixed(3),
    }));
  }));
  const heading = (x, anchor, words) => svg("text", { x, y: 18, "text-anchor": anchor, fill: ink.muted, "font-size": 12 }, words);
  const column = (side, x, anchor) => tokens.map((text, i) => {
    const own = at && at.side === side && at.token === i;
    const told = at && at.side !== side ? (side === "seen" ? share(at.token, i) : share(i, at.token)) : null;
    const number = told !== null && told >= 0.005 ? percent(told, told < 0.1 ? 1 : 0) : "";
    const word = svg("text", { x, y: y(i) + 4.5, "text-anchor": anchor, fill: own ? ink.accent : at && !number ? ink.muted : ink.ink, "font-weight": own || number ? 600 : 400 },
      short(text), ...(number ? [svg("tspan", { dx: 8, fill: ink.muted, "font-weight": 400, "font-size": 12 }, number)] : []));
    const area = svg("rect", { x: side === "looks" ? 0 : right - 6, y: top + i * tall, width: left + 6, height: tall, fill: "transparent", cursor: "pointer", "data-side": side, "data-token": i });
    area.addEventListener("pointerenter", () => onpoint({ side, token: i }));
    area.addEventListener("click", () => onpick({ side, token: i }));
    return svg("g", {}, word, area);
  });
  return sheetOf(width, top + tokens.length * tall + 8, ink, heading(left, "end", "looks"), heading(right, "start", "is looked at"),
    lines, ...column("looks", left, "end"), ...column("seen", right, "start"));
}

/** A row for each token that looks, a column for each that is looked at. */
function drawMatrix({ tokens, share, at, ink, palette, most, onpoint, onpick }) {
  const [cell, left, top, n] = [clamp(Math.round(440 / tokens.length), 14, 34), 112, 96, tokens.length];
  const canvas = h("canvas", {});
  paintMap(canvas, Uint8Array.from({ length: n * n }, (_, k) => Math.round((share(Math.floor(k / n), k % n) / most) * 255)), n, n, palette);
  const picture = svg("image", { x: left, y: top, width: n * cell, height: n * cell, href: canvas.toDataURL(), preserveAspectRatio: "none", style: "image-rendering:pixelated" });
  const is = (side, i) => at && (at.side === side || at.both) && (at.both ? at[side] === i : at.token === i);
  const label = (side, i, more) => svg("text", { "font-size": 12, fill: is(side, i) ? ink.accent : ink.ink, "font-weight": is(side, i) ? 600 : 400, ...more }, short(tokens[i]));
  const rows = tokens.map((_, i) => label("looks", i, { x: left - 8, y: top + (i + 0.5) * cell + 4, "text-anchor": "end" }));
  const columns = tokens.map((_, j) => label("seen", j, { transform: `translate(${left + (j + 0.5) * cell + 4} ${top - 8}) rotate(-60)` }));
  const band = (side, i) => svg("rect", { x: side === "looks" ? left : left + i * cell, y: side === "looks" ? top + i * cell : top, width: side === "looks" ? n * cell : cell, height: side === "looks" ? cell : n * cell, fill: "none", stroke: ink.accent, "stroke-width": 2 });
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
  return sheetOf(left + n * cell + 44, top + n * cell + 8, ink, picture, ...rows, ...columns, ...bands, area);
}

const short = (text) => (text.length > 16 ? `${text.slice(0, 15)}…` : text);

/** A drawing with a line above that says what it is, as SVG. */
function drawingAsVector(drawing, heading, ink) {
  const [width, height] = ["width", "height"].map((n) => Number(drawing.getAttribute(n)));
  const copy = drawing.cloneNode(true);
  for (const area of copy.querySelectorAll("[data-side], [data-area]")) area.remove();
  copy.setAttribute("y", 30);
  return new XMLSerializer().serializeToString(sheetOf(width, height + 30, ink, svg("text", { x: 12, y: 20, fill: ink.muted }, heading), copy));
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
