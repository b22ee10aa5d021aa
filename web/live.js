// The page around the playground: it stands in for the kernel. Pictures and sentences go to the worker, and what comes
// back becomes the model's data, laid out as widgets/answers.py lays it out.

/** A model as anywidget's views know it, without a kernel. @param {Record<string, any>} state @param {(message: any, buffers: any[]) => void} onsend */
function makeModel(state, onsend) {
  const listeners = new Map();
  const emit = (/** @type {string} */ event, /** @type {any[]} */ ...told) => { for (const call of [...(listeners.get(event) ?? [])]) call(...told); };
  return {
    state,
    get: (/** @type {string} */ name) => state[name],
    set(/** @type {string} */ name, /** @type {any} */ value) {
      if (JSON.stringify(state[name]) === JSON.stringify(value)) return;
      state[name] = value;
      emit(`change:${name}`);
    },
    /** Several at once: a view never sees new data with the old choice. @param {Record<string, any>} changes */
    assign(changes) {
      const names = Object.keys(changes).filter((n) => n === "_block" || JSON.stringify(state[n]) !== JSON.stringify(changes[n]));
      Object.assign(state, changes);
      for (const n of names) emit(`change:${n}`);
    },
    save_changes() {},
    send: (/** @type {any} */ message, /** @type {any} */ _, /** @type {any[]} */ buffers = []) => onsend(message, buffers),
    receive: (/** @type {any} */ message, /** @type {any[]} */ buffers) => emit("msg:custom", message, buffers),
    on: (/** @type {string} */ event, /** @type {Function} */ call) => listeners.set(event, (listeners.get(event) ?? new Set()).add(call)),
    off: (/** @type {string} */ event, /** @type {Function} */ call) => listeners.get(event)?.delete(call),
  };
}

/** Arrays as one block with its index, as base.pack. @param {Record<string, { data: Uint8Array | Float32Array, shape: number[] }>} arrays */
function packed(arrays) {
  const index = /** @type {Record<string, any>} */ ({});
  let size = 0;
  for (const [name, { data, shape }] of Object.entries(arrays)) {
    index[name] = [data instanceof Float32Array ? "f4" : "u1", shape, size];
    size += Math.ceil(data.byteLength / 4) * 4;
  }
  const block = new Uint8Array(size);
  for (const [name, { data }] of Object.entries(arrays)) block.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), index[name][2]);
  return { index, block: new DataView(block.buffer) };
}

/** Eight pixels a byte, the first in the lowest bit, as base.bits. @param {Uint8Array[]} masks */
function bitsOf(masks) {
  const stride = Math.ceil((masks[0]?.length ?? 0) / 8);
  const out = new Uint8Array(masks.length * stride);
  masks.forEach((mask, n) => mask.forEach((on, p) => { out[n * stride + (p >> 3)] |= on << (p & 7); }));
  return { data: out, shape: [masks.length, stride] };
}
const fromBits = (/** @type {Uint8Array} */ bits, /** @type {number} */ n) => Uint8Array.from({ length: n }, (_, p) => (bits[p >> 3] >> (p & 7)) & 1);
const bytesOf = (/** @type {string} */ text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

/** An error whose sentence is meant for the reader. @param {string} why */
const readable = (why) => Object.assign(new Error(why), { told: true });

/** What the page cannot do without, so that a browser that lacks it is told so. */
function checkBrowser() {
  for (const name of ["WebAssembly", "Worker", "OffscreenCanvas", "DecompressionStream", "createImageBitmap"]) {
    if (!(name in globalThis)) throw readable(`This browser has no ${name}, without which the networks cannot run here: switch it on if you switched it off, or take a browser of 2023 or later.`);
  }
}

/** What the service worker keeps is let go, or a broken file would come back for ever. */
async function forget() {
  try {
    for (const name of await caches.keys()) if (name.startsWith("refdiff-")) await caches.delete(name);
  } catch { /* nothing can be kept here */ }
}

/** Bytes of a gzipped asset: in the page itself, or in a file beside it, which a script brings in so that it works from disk too. @param {string} name @param {number} size @returns {Promise<Uint8Array>} */
async function asset(name, size) {
  const kept = /** @type {any} */ (globalThis).refdiffAssets;
  if (!(name in kept)) {
    await new Promise((done, fail) => {
      document.head.append(h("script", { src: `assets/${name}.js`, onload: done, onerror: () => fail(readable(`assets/${name}.js could not be loaded; check the connection and load the page again. If it is missing on the server, the folder was not copied whole: copy it anew.`)) }));
    });
  }
  try {
    const packedBytes = bytesOf(kept[name]);
    if (packedBytes.length !== size) throw new Error("cut short, or of another version of the page");
    delete kept[name]; // the text is half again as large as what it holds
    return new Uint8Array(await new Response(new Blob([/** @type {any} */ (packedBytes)]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
  } catch {
    await forget();
    throw readable(`assets/${name}.js is not whole, or not of this version of the page; load the page again. If that does not help, the folder or the page was not copied whole: copy it anew.`);
  }
}

/** The worker with a promise for every question. @param {string} source */
function startWorker(source) {
  const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  const waiting = new Map();
  let count = 0;
  worker.onmessage = ({ data: { id, result, error, worded } }) => {
    const { done, fail } = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) done(result);
    else fail(Object.assign(new Error(error), { worded }));
  };
  worker.onerror = (event) => { for (const { fail } of waiting.values()) fail(new Error(event.message || "the worker was not let in")); };
  return (/** @type {string} */ ask, /** @type {Record<string, any>} */ given = {}) => new Promise((done, fail) => {
    waiting.set(++count, { done, fail });
    worker.postMessage({ id: count, ask, ...given });
  });
}

/** Whether pixels can be read as they were drawn: against fingerprinting, some browsers hand out others. */
function canvasIsTrue() {
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (new OffscreenCanvas(16, 16).getContext("2d"));
  const given = Uint8ClampedArray.from({ length: 1024 }, (_, i) => (i % 4 === 3 ? 255 : (37 * i) % 256));
  context.putImageData(new ImageData(given, 16, 16), 0, 0);
  const { data } = context.getImageData(0, 0, 16, 16);
  return given.every((value, i) => value === data[i]);
}

/** A file as a square of `side` pixels: the middle of the picture, upright, on white. @param {Blob} file @param {number} side */
async function squareOf(file, side) {
  if (!canvasIsTrue()) {
    throw readable("This browser changes what a page reads from pictures, as a protection against fingerprinting, so no answer would be right. Allow this page to read canvas data, or take another browser.");
  }
  const image = await createImageBitmap(file, { imageOrientation: "from-image" });
  const cut = Math.min(image.width, image.height);
  let [canvas, size] = [new OffscreenCanvas(1, 1), Math.min(cut, 4096)]; // larger ones stay blank in some browsers
  const draw = (/** @type {any} */ source, /** @type {number[]} */ from, /** @type {number} */ to) => {
    const next = new OffscreenCanvas(to, to);
    const context = /** @type {OffscreenCanvasRenderingContext2D} */ (next.getContext("2d"));
    context.fillStyle = "white";
    context.fillRect(0, 0, to, to);
    context.imageSmoothingQuality = "high";
    context.drawImage(source, from[0], from[1], from[2], from[2], 0, 0, to, to);
    return next;
  };
  canvas = draw(image, [(image.width - cut) / 2, (image.height - cut) / 2, cut], size);
  for (; size > 2 * side; size = Math.ceil(size / 2)) canvas = draw(canvas, [0, 0, size], Math.ceil(size / 2)); // by halves, or details flicker
  if (size !== side) canvas = draw(canvas, [0, 0, size], side);
  const { data } = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d")).getImageData(0, 0, side, side);
  const rgb = Uint8Array.from({ length: 3 * side * side }, (_, i) => data[4 * Math.floor(i / 3) + (i % 3)]);
  return { rgb, bytes: new Uint8Array(await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer()), cropped: image.width !== image.height };
}
