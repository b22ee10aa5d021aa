// Lesson 5's proposals, from colour alone: Felzenszwalb's segments, joined where no edge parts them, split at waists.
// The same steps as proposals.felzenszwalb, which takes them from scikit-image and SciPy.

/** sRGB (n, 3) in 0 to 255 to CIELAB, (n, 3). @param {Uint8Array} rgb @returns {Float64Array} */
function toLab(rgb) {
  const linear = (/** @type {number} */ v) => (v > 0.04045 ? ((v + 0.055) / 1.055) ** 2.4 : v / 12.92);
  const root = (/** @type {number} */ v) => (v > 0.008856 ? Math.cbrt(v) : 7.787 * v + 16 / 116);
  const out = new Float64Array(rgb.length);
  for (let p = 0; p < rgb.length; p += 3) {
    const [r, g, b] = [linear(rgb[p] / 255), linear(rgb[p + 1] / 255), linear(rgb[p + 2] / 255)];
    const x = root((0.412453 * r + 0.35758 * g + 0.180423 * b) / 0.95047);
    const y = root(0.212671 * r + 0.71516 * g + 0.072169 * b);
    const z = root((0.019334 * r + 0.119193 * g + 0.950227 * b) / 1.08883);
    out.set([116 * y - 16, 500 * (x - y), 200 * (y - z)], p);
  }
  return out;
}

/** An index beyond the border, mirrored with the border's pixel twice. @param {number} i @param {number} n */
const mirror = (i, n) => (i < 0 ? -1 - i : i >= n ? 2 * n - 1 - i : i);

/** Every third number from `c` on smoothed along both axes by a symmetric kernel. @param {Float64Array} plane @param {number} side @param {number[]} kernel centre first */
function smooth(plane, side, kernel) {
  for (const step of [side, 1]) {
    const before = plane;
    plane = before.map((centre, p) => {
      const i = Math.floor(p / step) % side;
      let sum = centre * kernel[0];
      for (let j = kernel.length - 1; j > 0; j--) sum += (before[p + (mirror(i - j, side) - i) * step] + before[p + (mirror(i + j, side) - i) * step]) * kernel[j];
      return sum;
    });
  }
  return plane;
}

/** Length of the gradient of all channels together, by Sobel's filter. @param {Float64Array} lab (side * side, 3) @param {number} side */
function edgesOf(lab, side) {
  const at = (/** @type {number} */ y, /** @type {number} */ x, /** @type {number} */ c) => lab[3 * (mirror(y, side) * side + mirror(x, side)) + c];
  return Float64Array.from({ length: side * side }, (_, p) => {
    const [y, x] = [Math.floor(p / side), p % side];
    let sum = 0;
    for (let c = 0; c < 3; c++) {
      const across = (/** @type {number} */ dx) => at(y - 1, x + dx, c) + 2 * at(y, x + dx, c) + at(y + 1, x + dx, c);
      const along = (/** @type {number} */ dy) => at(y + dy, x - 1, c) + 2 * at(y + dy, x, c) + at(y + dy, x + 1, c);
      sum += (((across(1) - across(-1)) / 4) ** 2 + ((along(1) - along(-1)) / 4) ** 2) / 2;
    }
    return Math.sqrt(sum);
  });
}

/** Sets that can be joined; the root of each is its least member. @param {number} n */
function makeForest(n) {
  const parent = Int32Array.from({ length: n }, (_, i) => i);
  const find = (/** @type {number} */ i) => {
    while (parent[i] !== i) i = parent[i] = parent[parent[i]];
    return i;
  };
  const join = (/** @type {number} */ a, /** @type {number} */ b) => {
    const [low, high] = a < b ? [a, b] : [b, a];
    parent[high] = low;
    return low;
  };
  return { find, join };
}

/** Felzenszwalb and Huttenlocher's segments: the root pixel of each pixel's. @param {Uint8Array} rgb @param {number} side @param {number} scale @param {number} sigma @param {number} least */
function segment(rgb, side, scale, sigma, least) {
  const weights = Array.from({ length: Math.trunc(4 * sigma + 0.5) + 1 }, (_, j) => Math.exp((-0.5 * j * j) / sigma ** 2));
  const total = weights.reduce((sum, w, j) => sum + (j ? 2 * w : w), 0);
  const planes = [0, 1, 2].map((c) => smooth(Float64Array.from({ length: side * side }, (_, p) => rgb[3 * p + c] / 255), side, weights.map((w) => w / total)));
  const [from, to, cost] = [/** @type {number[]} */ ([]), /** @type {number[]} */ ([]), /** @type {number[]} */ ([])];
  for (const [dy, dx] of [[0, 1], [1, 0], [1, 1], [1, -1]]) {
    for (let y = 0; y + dy < side; y++) {
      for (let x = Math.max(0, -dx); x + dx < side && x < side; x++) {
        const [a, b] = [y * side + x, (y + dy) * side + x + dx];
        from.push(a); to.push(b);
        cost.push(Math.sqrt(planes.reduce((sum, plane) => sum + (plane[b] - plane[a]) ** 2, 0)));
      }
    }
  }
  const order = Uint32Array.from(cost.keys()).sort((a, b) => cost[a] - cost[b] || a - b);
  const { find, join } = makeForest(side * side);
  const size = new Int32Array(side * side).fill(1);
  const inner = new Float64Array(side * side);
  const merge = (/** @type {number} */ a, /** @type {number} */ b) => {
    const root = join(a, b);
    size[root] = size[a] + size[b];
    return root;
  };
  const k = scale / 255;
  for (const e of order) {
    const [a, b] = [find(from[e]), find(to[e])];
    if (a === b || cost[e] >= Math.min(Math.fround(inner[a] + k / size[a]), Math.fround(inner[b] + k / size[b]))) continue;
    inner[merge(a, b)] = cost[e];
  }
  for (const e of order) {
    const [a, b] = [find(from[e]), find(to[e])];
    if (a !== b && (size[a] < least || size[b] < least)) merge(a, b);
  }
  return Int32Array.from({ length: side * side }, (_, p) => find(p));
}

/** Segments joined whose common border has a mean edge below `edge`. @param {Int32Array} labels @param {Float64Array} edges @param {number} side @param {number} edge */
function joinCalm(labels, edges, side, edge) {
  /** @type {Map<number, { low: number, high: number, sum: number, count: number }>} */
  const borders = new Map();
  for (let p = 0; p < labels.length; p++) {
    const [y, x] = [Math.floor(p / side), p % side];
    let [low, high] = [labels[p], labels[p]];
    for (let dy = -1; dy <= 1; dy++) {
      for (let dx = -1; dx <= 1; dx++) {
        const near = labels[mirror(y + dy, side) * side + mirror(x + dx, side)];
        [low, high] = [Math.min(low, near), Math.max(high, near)];
      }
    }
    for (const [a, b] of [[low, labels[p]], [labels[p], high]]) {
      if (a === b) continue;
      const key = a * labels.length + b;
      const border = borders.get(key) ?? { low: a, high: b, sum: 0, count: 0 };
      borders.set(key, { ...border, sum: border.sum + edges[p], count: border.count + 1 });
    }
  }
  const { find, join } = makeForest(labels.length);
  for (const { low, high, sum, count } of borders.values()) {
    const [a, b] = [find(low), find(high)];
    if (sum / count < edge && a !== b) join(a, b);
  }
  return labels.map(find);
}

/** Connected regions (4 neighbours) of pixels that are on, numbered from 1 by their first pixel. @param {ArrayLike<number>} on @param {number} side */
function regionsOf(on, side) {
  const region = new Int32Array(side * side);
  let count = 0;
  for (let start = 0; start < region.length; start++) {
    if (!on[start] || region[start]) continue;
    region[start] = ++count;
    const open = [start];
    for (let p = open.pop(); p !== undefined; p = open.pop()) {
      for (const q of neighbours(p, side)) if (on[q] && !region[q]) { region[q] = count; open.push(q); }
    }
  }
  return { region, count };
}

/** Up, left, right, down. @param {number} p @param {number} side */
function neighbours(p, side) {
  const x = p % side;
  return [p >= side ? p - side : -1, x ? p - 1 : -1, x + 1 < side ? p + 1 : -1, p + side < side * side ? p + side : -1].filter((q) => q >= 0);
}

/** Distance of each pixel that is on to the next that is off or beyond the border. @param {Uint8Array} on @param {number} side */
function depthOf(on, side) {
  const down = new Int32Array(side * side); // to the next off pixel of the same column
  for (let x = 0; x < side; x++) {
    for (let y = 0, d = 0; y < side; y++) down[y * side + x] = d = on[y * side + x] ? d + 1 : 0;
    for (let y = side - 1, d = 0; y >= 0; y--) { d = on[y * side + x] ? d + 1 : 0; down[y * side + x] = Math.min(down[y * side + x], d); }
  }
  return Float64Array.from(on, (inside, p) => {
    if (!inside) return 0;
    const x = p % side, row = p - x;
    let best = Math.min(x + 1, side - x) ** 2;
    for (let u = 0; u < side; u++) best = Math.min(best, (u - x) ** 2 + down[row + u] ** 2);
    return Math.sqrt(best);
  });
}

/** Pixels on hills that rise at least `height` above the pass to a higher one. @param {Float64Array} depth @param {number} side @param {number} height */
function peaks(depth, side, height) {
  const level = depth.map((d) => d - height - 2e-15 * d); // grows up to the depth, from pixel to pixel
  for (let changed = true; changed;) {
    changed = false;
    for (const backward of [false, true]) {
      for (let k = 0; k < depth.length; k++) {
        const p = backward ? depth.length - 1 - k : k;
        const [y, x] = [Math.floor(p / side), p % side];
        let best = level[p];
        for (let v = Math.max(0, y - 1); v <= Math.min(side - 1, y + 1); v++) for (let u = Math.max(0, x - 1); u <= Math.min(side - 1, x + 1); u++) best = Math.max(best, level[v * side + u]);
        best = Math.min(best, depth[p]);
        if (best > level[p]) { level[p] = best; changed = true; }
      }
    }
  }
  return Uint8Array.from(depth, (d, p) => Number(d - level[p] >= height));
}

/** Basins around the markers, flooded from the deepest pixels on, within `on`. @param {Float64Array} depth @param {Int32Array} markers @param {Uint8Array} on @param {number} side */
function watershed(depth, markers, on, side) {
  const out = markers.map((m, p) => (on[p] ? m : 0));
  /** @type {{ value: number, age: number, p: number }[]} */
  const heap = [];
  const before = (/** @type {number} */ a, /** @type {number} */ b) => heap[a].value < heap[b].value || (heap[a].value === heap[b].value && heap[a].age < heap[b].age);
  const swap = (/** @type {number} */ a, /** @type {number} */ b) => { [heap[a], heap[b]] = [heap[b], heap[a]]; };
  function push(/** @type {{ value: number, age: number, p: number }} */ item) {
    let i = heap.push(item) - 1;
    for (let up = (i + 1 >> 1) - 1; i && before(i, up); i = up, up = (i + 1 >> 1) - 1) swap(i, up);
  }
  function pop() {
    const top = heap[0];
    const end = /** @type {{ value: number, age: number, p: number }} */ (heap.pop());
    if (heap.length) {
      heap[0] = end;
      for (let i = 0, least = 0; ; i = least) {
        for (const child of [2 * i + 1, 2 * i + 2]) if (child < heap.length && before(child, least)) least = child;
        if (least === i) break;
        swap(i, least);
      }
    }
    return top;
  }
  out.forEach((m, p) => { if (m) push({ value: -depth[p], age: 0, p }); });
  let age = 1;
  while (heap.length) {
    const { value, p } = pop();
    for (const q of neighbours(p, side)) {
      if (!on[q] || out[q]) continue;
      out[q] = out[p];
      push({ value: Math.max(value, -depth[q]), age: ++age, p: q });
    }
  }
  return out;
}

/**
 * Objects on a calm ground. @param {Uint8Array} rgb (side * side, 3) @param {number} side
 * @param {{ scale: number, edge: number, minArea: number }} constants @returns {Uint8Array[]} masks of 0 and 1
 */
function felzenszwalb(rgb, side, { scale, edge, minArea }) {
  const lab = toLab(rgb);
  const segments = segment(rgb, side, scale, 0.5, Math.max(4, Math.floor((side * side) / 2700)));
  if (segments.every((s) => s === segments[0])) return [];
  const joined = joinCalm(segments, edgesOf(lab, side), side, edge);
  const sizes = new Map();
  for (const s of joined) sizes.set(s, (sizes.get(s) ?? 0) + 1);
  const ground = [...sizes].reduce((best, s) => (s[1] > best[1] ? s : best))[0];
  const free = joined.map((s) => Number(s === ground));
  const outside = regionsOf(free, side); // a hole is ground that does not reach the border
  const reached = new Set();
  for (let i = 0; i < side; i++) for (const p of [i, (side - 1) * side + i, i * side, i * side + side - 1]) reached.add(outside.region[p]);
  const objects = outside.region.map((r) => Number(!r || !reached.has(r)));
  const { region, count } = regionsOf(objects, side);
  const masks = [];
  for (let number = 1; number <= count; number++) {
    const whole = Uint8Array.from(region, (r) => Number(r === number));
    if (areaOf(whole) < minArea * side * side) continue;
    const depth = depthOf(whole, side);
    const basins = watershed(depth, regionsOf(peaks(depth, side, 2), side).region, whole, side);
    const most = basins.reduce((a, b) => Math.max(a, b), 0);
    const parts = most > 1 ? Array.from({ length: most }, (_, k) => Uint8Array.from(basins, (b) => Number(b === k + 1))) : [];
    masks.push(...[whole, ...parts].filter((m) => areaOf(m) >= minArea * side * side));
  }
  return masks;
}

/** @param {Uint8Array} mask */
const areaOf = (mask) => mask.reduce((sum, on) => sum + on, 0);
