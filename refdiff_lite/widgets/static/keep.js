// Keep what you see: the pictures as PNG and SVG, their numbers as CSV, every choice as JSON, and what was chosen before.

/** Hand a file to the reader. */
function download(name, blob) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** The panes shown, side by side with their captions and scales, as one picture. */
async function panesAsPicture(view, panes, heading) {
  const [side, gap, top] = [480, 24, 64];
  const style = getComputedStyle(view.root);
  const sheet = h("canvas", {});
  const ratios = panes.map((p) => p.stage.clientWidth / p.stage.clientHeight);
  const height = Math.round(Math.max(...ratios.map((r) => (r > 1 ? side / r : side))));
  const widths = ratios.map((r) => Math.round(r > 1 ? side : side * r));
  Object.assign(sheet, { width: widths.reduce((a, b) => a + b + gap, gap), height: height + top + 52 });
  const context = sheet.getContext("2d");
  context.fillStyle = style.getPropertyValue("--paper");
  context.fillRect(0, 0, sheet.width, sheet.height);
  context.font = `16px ${style.fontFamily}`;
  context.fillStyle = style.getPropertyValue("--muted");
  context.fillText(heading, gap, 24, sheet.width - 2 * gap);
  let x = gap;
  panes.forEach((p, i) => {
    const [width, tall] = [widths[i], widths[i] / ratios[i]];
    context.fillStyle = style.getPropertyValue("--ink");
    context.fillText(`${p.title.textContent}  ${p.note.textContent}`, x, top - 10, width);
    context.drawImage(p.stage.querySelector("img"), x, top, width, tall);
    const over = getComputedStyle(p.canvas);
    context.globalAlpha = p.canvas.isConnected ? Number(over.opacity) : 1;
    context.imageSmoothingEnabled = over.imageRendering !== "pixelated";
    if (!p.canvas.hidden && p.canvas.width) context.drawImage(p.canvas, x, top, width, tall);
    context.globalAlpha = 1;
    context.imageSmoothingEnabled = true;
    if (p.cell && !p.cell.hidden) {
      const share = (name) => parseFloat(p.cell.style[name]) / 100;
      context.strokeStyle = "#fff";
      context.strokeRect(x + share("left") * width, top + share("top") * tall, share("width") * width, share("height") * tall);
    }
    if (p.strip) context.drawImage(p.strip, x + 70, top + tall + 12, width - 140, 8);
    context.fillStyle = style.getPropertyValue("--muted");
    if (p.low) context.fillText(p.low.textContent, x, top + tall + 22, 64);
    if (p.high) context.fillText(p.high.textContent, x + width - 62, top + tall + 22, 62);
    x += width + gap;
  });
  return new Promise((done) => sheet.toBlob(done, "image/png"));
}

/** The same as SVG: pictures and maps are embedded as they are, whatever is written stays text. */
function panesAsVector(view, panes, heading) {
  const [side, gap, top] = [320, 24, 64];
  const style = getComputedStyle(view.root);
  const colour = (name) => style.getPropertyValue(name).trim();
  const sheet = svg("svg", { xmlns: "http://www.w3.org/2000/svg", "font-family": "sans-serif", "font-size": 13 });
  const text = (x, y, words, fill, more = {}) => sheet.append(svg("text", { x, y, fill, ...more }, words));
  const ratios = panes.map((p) => p.stage.clientWidth / p.stage.clientHeight);
  const widths = ratios.map((r) => (r > 1 ? side : side * r));
  const [width, height] = [widths.reduce((a, b) => a + b + gap, gap), Math.max(...ratios.map((r, i) => widths[i] / r)) + top + 48];
  sheet.append(svg("rect", { width, height, fill: colour("--paper") }));
  text(gap, 24, heading, colour("--muted"));
  let x = gap;
  panes.forEach((p, i) => {
    const [w, tall] = [widths[i], widths[i] / ratios[i]];
    const place = { x, y: top, width: w, height: tall, preserveAspectRatio: "none" };
    text(x, top - 10, `${p.title.textContent}  ${p.note.textContent}`.trim(), colour("--ink"), { "font-weight": 600 });
    sheet.append(svg("image", { ...place, href: p.stage.querySelector("img").src }));
    if (!p.canvas.hidden && p.canvas.width) {
      const over = getComputedStyle(p.canvas);
      sheet.append(svg("image", { ...place, href: p.canvas.toDataURL(), opacity: over.opacity, style: `image-rendering:${over.imageRendering}` }));
    }
    if (p.strip) sheet.append(svg("image", { x: x + 56, y: top + tall + 14, width: w - 112, height: 7, preserveAspectRatio: "none", href: p.strip.toDataURL() }));
    if (p.low) text(x, top + tall + 22, p.low.textContent, colour("--muted"));
    if (p.high) text(x + w, top + tall + 22, p.high.textContent, colour("--muted"), { "text-anchor": "end" });
    x += w + gap;
  });
  for (const [name, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) sheet.setAttribute(name, value);
  return new Blob([new XMLSerializer().serializeToString(sheet)], { type: "image/svg+xml" });
}

/** Two buttons, and Ctrl+Z and Ctrl+Shift+Z, that go back and forth over what was chosen. Quick changes, such as a drag, are one. */
function undoable(view, names) {
  const { root } = view;
  const state = () => JSON.stringify(names.map((n) => view.get(n)));
  const [past, future] = [[], []];
  let now = state(), moving = false, timer;
  const back = h("button", { type: "button", class: "rdl-quiet", "aria-label": "undo", title: "Ctrl+Z", onclick: () => go(past, future) }, "↶");
  const forth = h("button", { type: "button", class: "rdl-quiet", "aria-label": "redo", title: "Ctrl+Shift+Z", onclick: () => go(future, past) }, "↷");
  const update = () => { back.disabled = !past.length && state() === now; forth.disabled = !future.length; };
  function note() {
    clearTimeout(timer);
    if (state() !== now) {
      past.push(now);
      future.length = 0;
      now = state();
      if (past.length > 200) past.shift();
    }
    update();
  }
  function go(from, to) {
    note();
    if (!from.length) return;
    to.push(now);
    const aim = from.pop();
    const values = JSON.parse(aim);
    moving = true;
    names.forEach((n, i) => view.set(n, values[i]));
    moving = false;
    now = aim; // not state(): one of them may come later, when the networks have worked it out
    update();
  }
  function onkey(event) {
    if (!(event.ctrlKey || event.metaKey) || event.target.matches("input[type=text]") || !["z", "y"].includes(event.key.toLowerCase())) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key.toLowerCase() === "y" || event.shiftKey) go(future, past);
    else go(past, future);
  }
  view.on(names.join(" "), () => { if (moving) return; update(); clearTimeout(timer); timer = setTimeout(note, 300); });
  root.addEventListener("keydown", onkey);
  view.undo.push(() => { clearTimeout(timer); root.removeEventListener("keydown", onkey); });
  update();
  return [back, forth];
}

/** One field of a CSV file. */
const field = (value) => (/[",\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));

/** What a person chose, as JSON that Python takes: `Explorer.choose(**json.loads(text))`. */
const choicesOf = (view, names) => JSON.stringify(Object.fromEntries(names.map((n) => [n, view.get(n)])));
