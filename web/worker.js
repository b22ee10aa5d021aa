// The engine, off the page's own thread: five networks in ONNX Runtime, and the stages between them.
// The page asks by { id, ask, ...}; the answer is { id, result } or { id, error }, an error being a sentence for the reader.

/** @typedef {{ side: number, maps: Float32Array }} Layer */
/** @typedef {{ masks: Uint8Array[], crop: Map<string, Float32Array>, masked: Float32Array | null }} Proposals */
/** @typedef {{ sentence: string, plain: string, head: string | null, cues: string[] | null, step: number, layers: string[], weak: boolean, truth: number }} Question */

/** @type {any} */ const ORT = /** @type {any} */ (self).ort;
/** @type {any} */ let C; // constants of the method, see live/data.py
/** @type {ReturnType<typeof makeParser>} */ let parser;
/** @type {ReturnType<typeof makeTokenizer>} */ let tokenizer;
/** @type {Record<string, any>} */ const networks = {};
/** @type {{ rgb: Uint8Array, truth: Uint8Array[], x0: Float32Array, proposals: Record<string, Proposals> } | null} */ let picture = null;
/** @type {Map<string, Record<string, Layer>>} */ const seen = new Map(); // attention by sentence and noise, the last few

/** @param {ArrayLike<number>} data @param {number[]} shape */
const floats = (data, shape) => new ORT.Tensor("float32", data instanceof Float32Array ? data : Float32Array.from(data), shape);
/** @param {string} name @param {Record<string, any>} inputs */
const run = (name, inputs) => networks[name].run(inputs);
/** @param {string} text */
const decode64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

const commands = {
  /** @param {{ constants: any, lists: any, vocabulary: any, wasm: Uint8Array, glue: string, networks: Record<string, Uint8Array> }} given */
  async load({ constants, lists, vocabulary, wasm, glue, networks: files }) {
    C = { ...constants, noise: new Float32Array(decode64(constants.noise).buffer) };
    [parser, tokenizer] = [makeParser(lists), makeTokenizer(vocabulary)];
    Object.assign(ORT.env.wasm, { numThreads: 1, proxy: false, wasmBinary: wasm, wasmPaths: { mjs: URL.createObjectURL(new Blob([glue], { type: "text/javascript" })) } });
    for (const [name, file] of Object.entries(files)) {
      networks[name] = await ORT.InferenceSession.create(file, { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
    }
    return {};
  },

  /** A picture of C.side × C.side pixels; `truth` are its true masks, where they are known. @param {{ rgb: Uint8Array, truth: Uint8Array[] }} given */
  async picture({ rgb, truth }) {
    const n = C.side * C.side;
    const pixels = new Float32Array(3 * n);
    for (let p = 0; p < n; p++) for (let c = 0; c < 3; c++) pixels[c * n + p] = Math.fround(rgb[3 * p + c] / 127.5) - 1;
    const { latents } = await run("vae", { picture: floats(pixels, [1, 3, C.side, C.side]) });
    const own = (/** @type {Uint8Array[]} */ masks) => ({ masks: keep(masks), crop: new Map(), masked: null });
    picture = { rgb, truth, x0: latents.data, proposals: { felzenszwalb: own(felzenszwalb(rgb, C.side, C.felzenszwalb)) } };
    if (truth.length) picture.proposals.oracle = own(truth);
    seen.clear();
    return { kinds: [...(truth.length ? ["oracle"] : []), "felzenszwalb", "weak"] };
  },

  /** Everything about one sentence from which the playground works out each setting of its knobs. @param {Question} question */
  async sentence({ sentence, plain, head, cues, step, layers, weak: withWeak, truth }) {
    if (!picture) throw new Error("no picture has been given yet");
    const e = parser.parse(sentence, head);
    if (cues) e.cues = C.directions.filter((/** @type {string} */ d) => cues.includes(d));
    const places = tokenizer.positions(e.text, e.span);
    if (!places.length) throw new RangeError(`the head word “${e.head}” lies behind the ${tokenizer.reach} tokens that the text encoder reads; shorten the expression or name the head yourself`);
    const ids = tokenizer.ids(e.text);
    const read = await attention(e.text, ids, step);
    const chosen = layers.map((name) => read[name]);
    const c = wordMap(chosen, /** @type {number} */ (places.at(-1)), ids.length, C.side);
    const levels = weak(c, C.thresholds);
    const parts = /** @type {Record<string, number[][]>} */ ({});
    const text = await textFeatures(tokenizer.mend(plain), tokenizer.mend(e.head));
    const known = truth < 0 ? null : picture.truth[truth];
    for (const [kind, found] of Object.entries({ ...picture.proposals, weak: { masks: levels, crop: new Map(), masked: null } })) {
      const scores = mapScores(c, found.masks);
      const told = kind !== "weak" || withWeak ? await clipScores(found, e.cues, text) : [0, 0, 0, 0].map(() => found.masks.map(() => NaN));
      parts[kind] = [scores.map((s) => s.sg), scores.map((s) => s.otsu), ...told, found.masks.map((m) => (known ? overlap(m, known) : -1))];
    }
    const words = parser.findWords(e.text).map((w) => {
      const at = tokenizer.positions(e.text, [w.start, w.end]);
      return { text: w.text, start: w.start, at, pieces: at.map((i) => tokenizer.decode(ids[i])) };
    });
    return {
      expression: e, words, parts, map: c, ids,
      levels: Uint8Array.from(c, (_, p) => levels.reduce((sum, m) => sum + m[p], 0)),
      strip: words.map(({ at }) => (at.length ? wordMap(chosen, /** @type {number} */ (at.at(-1)), ids.length, C.side) : null)),
      shares: words.map(({ at }) => shareOf(chosen, at, ids.length)),
    };
  },

  /** What CLIP sees of one proposal, as two pictures (rows, columns, 3). @param {{ kind: string, index: number, cues: string[], levels: Uint8Array | null }} given */
  async clip({ kind, index, cues, levels }) {
    if (!picture) throw new Error("no picture has been given yet");
    const mask = levels ? Uint8Array.from(levels, (n) => Number(n > index)) : picture.proposals[kind].masks[index];
    const to = C.clip.side;
    const cut = crop(pixelsUnder(cues), mask, C.side, to);
    const whole = pixelsUnder([]);
    const patches = patchesOf(mask, C.side, C.clip.patch);
    const grid = C.side / C.clip.patch;
    const bytes = (/** @type {Float32Array} */ planes, /** @type {number} */ side, /** @type {(p: number) => number} */ light) =>
      Uint8ClampedArray.from({ length: 4 * side * side }, (_, i) => (i % 4 === 3 ? 255 : 255 * light(i >> 2) * planes[(i % 4) * side * side + (i >> 2)]));
    const lit = (/** @type {number} */ p) => 0.2 + 0.8 * patches[Math.floor(p / C.side / C.clip.patch) * grid + Math.floor((p % C.side) / C.clip.patch)];
    return { crop: bytes(cut, to, () => 1), masked: bytes(whole, C.side, lit) };
  },

  /** Masks of one generator, for drawing. @param {{ kind: string }} given */
  async masks({ kind }) {
    return { masks: picture?.proposals[kind]?.masks ?? [] };
  },
};

/** Cross-attention of every layer under a sentence, at one of the noise steps. @param {string} text @param {Int32Array} ids @param {number} step @returns {Promise<Record<string, Layer>>} */
async function attention(text, ids, step) {
  const key = `${step} ${text}`;
  const kept = seen.get(key);
  if (kept) return kept;
  const { states } = await run("text", { ids: new ORT.Tensor("int32", ids, [1, ids.length]) });
  const grid = C.grids.at(-1);
  const x = addNoise(/** @type {any} */ (picture).x0, C.noise, C.alphas[step]);
  const found = await run("unet", { x: floats(x, [1, 4, grid, grid]), t: floats([C.timesteps[step]], [1]), text: states });
  const layers = /** @type {Record<string, Layer>} */ ({});
  for (const [g, name] of [[0, "coarse"], [1, "fine"]]) {
    const side = C.grids[g], size = side * side * ids.length;
    C.layers[g].forEach((/** @type {string} */ layer, /** @type {number} */ i) => { layers[layer] = { side, maps: found[name].data.slice(i * size, (i + 1) * size) }; });
  }
  if (seen.size > 30) seen.delete(/** @type {string} */ (seen.keys().next().value));
  seen.set(key, layers);
  return layers;
}

/** How much of all pixels' attention a word's pieces get, mean over layers. @param {Layer[]} layers @param {number[]} at @param {number} tokens */
function shareOf(layers, at, tokens) {
  const each = layers.map(({ side, maps }) => at.reduce((sum, t) => { for (let p = 0; p < side * side; p++) sum += maps[p * tokens + t]; return sum; }, 0) / (side * side));
  return each.reduce((a, b) => a + b, 0) / each.length;
}

/** @param {string} sentence @param {string} noun @returns {Promise<Float32Array[]>} features of both */
async function textFeatures(sentence, noun) {
  const ids = [...tokenizer.ids(sentence), ...tokenizer.ids(noun)];
  const { features } = await run("clip-text", { ids: new ORT.Tensor("int32", Int32Array.from(ids), [2, ids.length / 2]) });
  const d = features.dims[1];
  return [features.data.slice(0, d), features.data.slice(d)];
}

/** The picture in [0, 1] under the ramp of its cues, (3, side, side). @param {string[]} cues */
function pixelsUnder(cues) {
  const bias = positionalBias(cues, C.side, C.ramp), n = C.side * C.side;
  return Float32Array.from({ length: 3 * n }, (_, i) => Math.fround(/** @type {any} */ (picture).rgb[3 * (i % n) + Math.floor(i / n)] / 255) * bias[i % n]);
}

/** As CLIP was trained to see them. @param {Float32Array} pixels any number of pictures (3, n) @param {number} n */
function standardised(pixels, n) {
  return pixels.map((x, i) => { const c = Math.floor(i / n) % 3; return (x - C.clip.mean[c]) / C.clip.std[c]; });
}

/** S_D's two branches, crops without and with the ramp, then masked tokens twice (their branch has no ramp). @param {Proposals} found @param {string[]} cues @param {Float32Array[]} text */
async function clipScores(found, cues, text) {
  if (!found.masks.length) return [[], [], [], []];
  const side = C.clip.side, n = found.masks.length;
  for (const ramp of [[], cues]) {
    const key = [...ramp].sort().join();
    if (found.crop.has(key)) continue;
    const pixels = pixelsUnder(ramp), cut = new Float32Array(n * 3 * side * side);
    found.masks.forEach((mask, i) => cut.set(crop(pixels, mask, C.side, side), i * 3 * side * side));
    const tokens = 1 + (side / C.clip.patch) ** 2;
    const { features } = await run("clip-image", { pixels: floats(standardised(cut, side * side), [n, 3, side, side]), hidden: floats(new Float32Array(tokens * tokens), [tokens, tokens]) });
    found.crop.set(key, features.data);
  }
  if (!found.masked) {
    const hidden = hiddenFrom(found.masks.map((mask) => patchesOf(mask, C.side, C.clip.patch)));
    const size = Math.sqrt(hidden.length);
    const { features } = await run("clip-image", { pixels: floats(standardised(pixelsUnder([]), C.side * C.side), [1, 3, C.side, C.side]), hidden: floats(hidden, [size, size]) });
    found.masked = features.data;
  }
  const score = (/** @type {Float32Array} */ features, /** @type {number} */ noun) => found.masks.map((_, i) => text[0].reduce((sum, x, k) => sum + features[i * text[0].length + k] * ((1 - noun) * x + noun * text[1][k]), 0));
  const masked = score(/** @type {Float32Array} */ (found.masked), C.nounInMasked);
  return [score(/** @type {Float32Array} */ (found.crop.get("")), C.nounInCrop), score(/** @type {Float32Array} */ (found.crop.get([...cues].sort().join())), C.nounInCrop), masked, masked];
}

/** Intersection over union. @param {Uint8Array} a @param {Uint8Array} b */
function overlap(a, b) {
  let both = 0, any = 0;
  for (let p = 0; p < a.length; p++) { both += a[p] & b[p]; any += a[p] | b[p]; }
  return any ? both / any : 0;
}

let last = Promise.resolve(); // one question at a time: a session answers no two together
self.onmessage = ({ data: { id, ask, ...given } }) => {
  last = last.then(async () => {
    try {
      self.postMessage({ id, result: await /** @type {any} */ (commands)[ask](given) });
    } catch (error) {
      self.postMessage({ id, error: error instanceof Error ? error.message : String(error), worded: error instanceof RangeError });
    }
  });
};
