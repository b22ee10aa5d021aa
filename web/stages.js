// The stages between the networks, on plain arrays: noise, word map, scores, and CLIP's two views of a proposal.
// Each function does what the Python of the same name does; tests compare them on all of ToyRef's test split.

/** @typedef {Float32Array | Float64Array} Floats */

/** x_t = sqrt(a) x_0 + sqrt(1 - a) n (latents.add_noise). @param {Float32Array} x0 @param {Float32Array} noise @param {number} a */
function addNoise(x0, noise, a) {
  const [keep, add] = [Math.fround(Math.sqrt(a)), Math.fround(Math.sqrt(1 - a))];
  return x0.map((x, i) => Math.fround(keep * x) + Math.fround(add * noise[i]));
}

/** Bilinear, pixel centres kept, as attention.resize. @param {Floats} map @param {number} side @param {number} to @returns {Float64Array} */
function enlarge(map, side, to) {
  const out = new Float64Array(to * to);
  const at = Array.from({ length: to }, (_, i) => {
    const x = Math.max(0, ((i + 0.5) * side) / to - 0.5);
    const low = Math.floor(x);
    return { low, high: Math.min(low + 1, side - 1), part: x - low };
  });
  for (let y = 0; y < to; y++) {
    for (let x = 0; x < to; x++) {
      const [v, u] = [at[y], at[x]];
      const upper = map[v.low * side + u.low] * (1 - u.part) + map[v.low * side + u.high] * u.part;
      const lower = map[v.high * side + u.low] * (1 - u.part) + map[v.high * side + u.high] * u.part;
      out[y * to + x] = upper * (1 - v.part) + lower * v.part;
    }
  }
  return out;
}

/** Stretched to [0, 1]; a flat map becomes zeros. @param {Floats} map @returns {Float32Array} */
function minMax(map) {
  let low = Infinity, high = -Infinity;
  for (const x of map) { low = Math.min(low, x); high = Math.max(high, x); }
  return Float32Array.from(map, (x) => (x - low) / (high - low + 1e-8));
}

/**
 * The map c of one token: mean over layers at the picture's size, stretched to [0, 1] (attention.word_map).
 * @param {{ side: number, maps: Float32Array }[]} layers each (side, side, tokens) @param {number} token @param {number} tokens @param {number} to
 */
function wordMap(layers, token, tokens, to) {
  const mean = new Float64Array(to * to);
  for (const { side, maps } of layers) {
    const one = Float64Array.from({ length: side * side }, (_, p) => maps[p * tokens + token]);
    enlarge(one, side, to).forEach((x, p) => { mean[p] += x / layers.length; });
  }
  return minMax(mean);
}

/** Thresholds of a map that hold any pixel (proposals.weak). @param {Float32Array} c @param {number} thresholds @returns {Uint8Array[]} */
function weak(c, thresholds) {
  return Array.from({ length: thresholds }, (_, k) => Math.fround((k + 1) / (thresholds + 1)))
    .map((level) => Uint8Array.from(c, (x) => Number(x >= level))).filter((mask) => mask.includes(1));
}

/** The largest first, equals in their order, none empty (masks.keep). @param {Uint8Array[]} masks */
function keep(masks) {
  const area = (/** @type {Uint8Array} */ mask) => mask.reduce((sum, on) => sum + on, 0);
  return masks.map((mask) => ({ mask, n: area(mask) })).filter(({ n }) => n).sort((a, b) => b.n - a.n).map(({ mask }) => mask);
}

/** S_G and Otsu's criterion of every mask (fusion.generative_score, proposals.otsu_choice). @param {Float32Array} c @param {Uint8Array[]} masks */
function mapScores(c, masks) {
  return masks.map((mask) => {
    let inside = 0, outside = 0, n = 0;
    for (let p = 0; p < c.length; p++) {
      if (mask[p]) { inside += c[p]; n++; } else outside += c[p];
    }
    const share = n / c.length;
    const sg = inside / Math.max(1, n) - outside / Math.max(1, c.length - n);
    const gap = inside / c.length / Math.max(share, 1e-8) - outside / c.length / Math.max(1 - share, 1e-8);
    return { sg, otsu: share * (1 - share) * gap ** 2 };
  });
}

/** The ramp P that dims the side away from each cue (ranking.positional_bias). @param {string[]} cues @param {number} side @param {number} ramp */
function positionalBias(cues, side, ramp) {
  const bias = new Float32Array(side * side).fill(1);
  const end = Math.max(1, Math.floor(side * ramp) - 1);
  const fall = (/** @type {number} */ i) => Math.max(0, Math.fround(1 - Math.fround(i / end)));
  for (const cue of cues) {
    for (let p = 0; p < bias.length; p++) {
      const i = cue === "left" || cue === "right" ? p % side : Math.floor(p / side);
      bias[p] *= fall(cue === "left" || cue === "top" ? i : side - 1 - i);
    }
  }
  return bias;
}

/** Weights of a bicubic resize that averages where it shrinks: for each output, where it begins and what it takes. @param {number} from @param {number} to */
function cubicWeights(from, to) {
  const scale = from / to;
  const wide = Math.max(1, scale);
  const cubic = (/** @type {number} */ x) => {
    const d = Math.abs(x);
    return d < 1 ? (1.5 * d - 2.5) * d * d + 1 : d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0;
  };
  return Array.from({ length: to }, (_, i) => {
    const centre = scale * (i + 0.5);
    const start = Math.max(0, Math.trunc(centre - 2 * wide + 0.5));
    const end = Math.min(from, Math.trunc(centre + 2 * wide + 0.5));
    const weights = Array.from({ length: end - start }, (_, j) => cubic((j + start - centre + 0.5) / wide));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { start, weights: weights.map((w) => w / sum) };
  });
}

/** One channel (rows, columns) to (to, to), bicubic with antialias, kept within [0, 1]. @param {Floats} plane @param {number} rows @param {number} columns @param {number} to */
function bicubic(plane, rows, columns, to) {
  const wide = new Float64Array(rows * to);
  cubicWeights(columns, to).forEach(({ start, weights }, x) => {
    for (let y = 0; y < rows; y++) wide[y * to + x] = weights.reduce((sum, w, j) => sum + w * plane[y * columns + start + j], 0);
  });
  const out = new Float32Array(to * to);
  cubicWeights(rows, to).forEach(({ start, weights }, y) => {
    for (let x = 0; x < to; x++) out[y * to + x] = Math.min(1, Math.max(0, weights.reduce((sum, w, j) => sum + w * wide[(start + j) * to + x], 0)));
  });
  return out;
}

/**
 * A proposal cut out tightly, black outside, squashed to CLIP's side: (3, to, to) in [0, 1] (ranking.crops).
 * @param {Float32Array} pixels (3, side, side) in [0, 1] @param {Uint8Array} mask @param {number} side @param {number} to
 */
function crop(pixels, mask, side, to) {
  let [top, left, bottom, right] = [side, side, -1, -1];
  mask.forEach((on, p) => {
    if (!on) return;
    const [y, x] = [Math.floor(p / side), p % side];
    [top, left, bottom, right] = [Math.min(top, y), Math.min(left, x), Math.max(bottom, y), Math.max(right, x)];
  });
  const [rows, columns] = [bottom - top + 1, right - left + 1];
  const out = new Float32Array(3 * to * to);
  for (let c = 0; c < 3; c++) {
    const plane = Float32Array.from({ length: rows * columns }, (_, k) => {
      const p = (top + Math.floor(k / columns)) * side + left + (k % columns);
      return mask[p] ? pixels[c * side * side + p] : 0;
    });
    out.set(bicubic(plane, rows, columns, to), c * to * to);
  }
  return out;
}

/** Patches that a mask covers by half, or the one that it covers most (clip.patches_of). @param {Uint8Array} mask @param {number} side @param {number} patch */
function patchesOf(mask, side, patch) {
  const grid = side / patch;
  const cover = new Float64Array(grid * grid);
  mask.forEach((on, p) => { if (on) cover[Math.floor(p / side / patch) * grid + Math.floor((p % side) / patch)] += 1 / patch ** 2; });
  const least = Math.min(0.5, Math.max(...cover));
  return Uint8Array.from(cover, (x) => Number(x >= least));
}

/** What is hidden from whom, (N + P, N + P): each of N class tokens sees itself and its patches, patches see patches (clip.mask_attention). @param {Uint8Array[]} inside */
function hiddenFrom(inside) {
  const [n, size] = [inside.length, inside.length + inside[0].length];
  const hidden = new Float32Array(size * size);
  for (let i = 0; i < size; i++) {
    for (let j = 0; j < size; j++) hidden[i * size + j] = Number(j < n ? i !== j : i < n && !inside[i][j - n]);
  }
  return hidden;
}
