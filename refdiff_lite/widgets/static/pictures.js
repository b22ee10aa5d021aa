// Pictures: an image with a map or a mask over it, pixels that can be pointed at, regions that can be drawn.

/** 256 colours from blue over white to orange, for differences: 0 is in the middle. */
const DIVERGING = Uint8Array.from({ length: 768 }, (_, i) => {
  const [t, c] = [Math.floor(i / 3) / 127.5 - 1, i % 3];
  const pole = t < 0 ? [38, 96, 180] : [212, 80, 12];
  return Math.round(245 + (pole[c] - 245) * Math.abs(t));
});

/** Address of a picture packed as JPEG or PNG. Not a blob's: that must be given back, and pictures still on their way would fail. */
function pictureUrl(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return `data:image/${bytes[0] === 0x89 ? "png" : "jpeg"};base64,${btoa(text)}`;
}

/**
 * Levels 0-255 (h, w) through the palette into a canvas of that size; 0 gets the colour `low`, 255 the colour `high`.
 * With `through` the picture below shows where the colour is low.
 */
function paintMap(canvas, levels, height, width, palette, low = 0, high = 255, through = false) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const out = new Uint32Array(pixels.data.buffer);
  const colours = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const c = 3 * clamp(Math.round(low + (i / 255) * (high - low)), 0, 255);
    const alpha = through ? Math.round(64 + (191 * c) / 765) : 255;
    colours[i] = (alpha << 24) | (palette[c + 2] << 16) | (palette[c + 1] << 8) | palette[c];
  }
  for (let i = 0; i < out.length; i++) out[i] = colours[levels[i]];
  context.putImageData(pixels, 0, 0);
}

/** Dims what is outside a mask (h, w) of 0 and 1, and draws its rim. Without a mask everything is dimmed. */
function paintMask(canvas, mask, height, width, rim) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const out = new Uint32Array(pixels.data.buffer);
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(rim.trim().slice(i, i + 2), 16));
  const [outside, edge] = [(190 << 24) | (28 << 16) | (24 << 8) | 24, (255 << 24) | (b << 16) | (g << 8) | r];
  for (let y = 0, p = 0; y < height; y++) {
    for (let x = 0; x < width; x++, p++) {
      if (mask?.[p]) continue;
      const near = mask && ((x && mask[p - 1]) || (x < width - 1 && mask[p + 1]) || (y && mask[p - width]) || (y < height - 1 && mask[p + width]));
      out[p] = near ? edge : outside;
    }
  }
  context.putImageData(pixels, 0, 0);
}

/** The colour of what was meant, as in Python's figures. */
const TRUTH = "#0072b2";

/** Draws the rim of a mask (h, w) of 0 and 1 over what the canvas shows, one pixel wide. */
function paintRim(canvas, mask, height, width, colour) {
  const context = canvas.getContext("2d");
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && mask[y * width + x];
  context.fillStyle = colour;
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      if (mask[y * width + x] && !(inside(x - 1, y) && inside(x + 1, y) && inside(x, y - 1) && inside(x, y + 1))) context.fillRect(x, y, 1, 1);
}

/**
 * A picture: the image, a canvas over it, a frame around one cell. `onpoint(place)` gets [row, column] as shares of
 * the picture or null, `onpick(place)` a click or Enter, arrows walk over cells of `grid()`. `onbox([top, left, bottom,
 * right])` gets a dragged region, or with Shift and Enter the one between the place picked last and this.
 */
function picturePane(view, url, ratio, { label, grid, onpoint, onpick, onbox }) {
  const canvas = h("canvas", { class: "rdl-over" });
  const cell = h("div", { class: "rdl-cell", hidden: true });
  const box = h("div", { class: "rdl-box", hidden: true });
  const stage = h("div", { class: "rdl-stage", style: `aspect-ratio:${ratio};--ratio:${ratio}`, role: "group", "aria-label": label },
    h("img", { src: url, alt: "", draggable: "false" }), canvas, cell, box);
  const title = h("strong", {});
  const note = h("span", { class: "rdl-note" });
  const el = h("figure", { class: "rdl-pane" }, h("figcaption", {}, title, note), stage);
  const frame = (it, [top, left, bottom, right]) => Object.assign(it.style, {
    top: `${top * 100}%`, left: `${left * 100}%`, height: `${(bottom - top) * 100}%`, width: `${(right - left) * 100}%`,
  });
  const between = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
  const region = (at) => {
    box.hidden = at.length !== 4;
    if (at.length === 4) frame(box, at);
  };
  if (onpoint) {
    let at = null, picked = null, start = null, dragged = false;
    stage.tabIndex = 0;
    stage.setAttribute("aria-roledescription", `picture; arrow keys walk over its pixels, Enter pins one${onbox ? ", Shift and Enter draws a region from there" : ""}`);
    const place = (event) => {
      const area = stage.getBoundingClientRect();
      return [clamp((event.clientY - area.top) / area.height, 0, 0.9999), clamp((event.clientX - area.left) / area.width, 0, 0.9999)];
    };
    const pick = (to) => { picked = to; onpick(to); };
    stage.addEventListener("pointerdown", (event) => { start = onbox && event.pointerType === "mouse" ? [event.clientX, event.clientY, place(event)] : null; dragged = false; });
    stage.addEventListener("pointermove", (event) => {
      at = place(event);
      if (start && event.buttons && Math.hypot(event.clientX - start[0], event.clientY - start[1]) > 6) dragged = true;
      if (dragged) region(between(start[2], at));
      else onpoint(at);
    });
    stage.addEventListener("pointerup", (event) => { if (dragged) { at = null; onpoint(null); onbox(between(start[2], place(event))); } start = null; });
    stage.addEventListener("pointerleave", () => { at = start = null; onpoint(null); });
    stage.addEventListener("click", (event) => { if (dragged) dragged = false; else pick(place(event)); });
    stage.addEventListener("blur", () => { at = null; onpoint(null); });
    stage.addEventListener("keydown", (event) => {
      const [rows, columns] = grid();
      const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (move) {
        const from = at ?? [0.5, 0.5];
        const row = clamp(Math.floor(from[0] * rows) + move[0], 0, rows - 1);
        const column = clamp(Math.floor(from[1] * columns) + move[1], 0, columns - 1);
        at = [(row + 0.5) / rows, (column + 0.5) / columns];
        onpoint(at);
      } else if (event.key === "Enter" && event.shiftKey && onbox && at && picked) {
        onbox(between(picked, at));
      } else if (event.key === "Enter" || event.key === " ") {
        if (at) pick(at);
      } else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }
  return {
    el, stage, canvas, title, note, cell, region,
    mark(place, [rows, columns]) {
      cell.hidden = !place;
      if (!place) return;
      const [y, x] = [Math.floor(place[0] * rows), Math.floor(place[1] * columns)];
      frame(cell, [y / rows, x / columns, (y + 1) / rows, (x + 1) / columns]);
    },
  };
}
