// Keep what you see: the pictures as PNG, their numbers as CSV, and every choice as JSON.

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

/** One field of a CSV file. */
const field = (value) => (/[",\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));

/** What a person chose, as JSON that Python takes: `Explorer.choose(**json.loads(text))`. */
const choicesOf = (view, names) => JSON.stringify(Object.fromEntries(names.map((n) => [n, view.get(n)])));
