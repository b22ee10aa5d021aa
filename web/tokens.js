// CLIP's byte-level BPE: from a text to token ids, each with its place in the text.

/** @typedef {{ id: number, start: number, end: number }} Token */

/** @param {{ vocabulary: Record<string, number>, merges: [string, string][], mended: Record<string, string>, context: number, start: string, end: string }} data */
function makeTokenizer({ vocabulary, merges, mended, context, start, end }) {
  const ranks = new Map(merges.map((pair, i) => [pair.join(" "), i]));
  const pieces = Object.fromEntries(Object.entries(vocabulary).map(([piece, id]) => [id, piece]));
  const SPLIT = /<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|(?:[^\s\p{L}\p{N}]|\ufeff)+/gu; // U+FEFF is a space to JavaScript alone
  const utf8 = new TextEncoder();

  // GPT-2's letters for bytes: those that print stand for themselves, the others are moved up.
  /** @type {string[]} */
  const letters = [];
  let moved = 256;
  for (let byte = 0; byte < 256; byte++) {
    const prints = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    letters.push(String.fromCodePoint(prints ? byte : moved++));
  }
  const bytes = new Map(letters.map((letter, byte) => [letter, byte]));

  /** @param {string} word @returns {string[]} the pieces of a word, after the merges in the order of their ranks */
  function merge(word) {
    const parts = Array.from(utf8.encode(word), (byte) => letters[byte]);
    parts[parts.length - 1] += "</w>";
    for (;;) {
      let best = Infinity, at = -1;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
        if (rank < best) [best, at] = [rank, i];
      }
      if (at < 0) return parts;
      parts.splice(at, 2, parts[at] + parts[at + 1]);
    }
  }

  /** Composed and in lower case, as the tokenizer reads it, with the place in `text` that each unit comes from. */
  function normalise(/** @type {string} */ text) {
    let out = "";
    const places = [];
    for (const { 0: cluster, index } of text.matchAll(/[\s\S]\p{M}*/gu)) {
      const plain = cluster.normalize("NFC").toLowerCase();
      for (let i = 0; i < plain.length; i++) places.push([index, index + cluster.length]);
      out += plain;
    }
    return { out, places };
  }

  /** @param {string} text @returns {Token[]} all tokens of a text, without the special ones around it */
  function tokens(text) {
    const { out, places } = normalise(text);
    return [...out.matchAll(SPLIT)].flatMap((m) => {
      if (m[0] === start || m[0] === end) return [{ id: vocabulary[m[0]], start: 0, end: 0 }];
      // Where a piece lies: the bytes that it stands for, counted back to characters.
      const owners = Array.from(m[0]).flatMap((c, i, all) => {
        const from = m.index + all.slice(0, i).join("").length;
        return Array.from(utf8.encode(c), () => [from, from + c.length - 1]);
      });
      let byte = 0;
      return merge(m[0]).map((piece) => {
        const size = Array.from(piece.replace(/<\/w>$/, "")).length;
        const [first] = owners[byte], [, lastUnit] = owners[(byte += size) - 1];
        return { id: vocabulary[piece], start: places[first][0], end: places[lastUnit][1] };
      });
    });
  }

  /** @param {string} text @returns {Int32Array} ids with the special tokens, cut or padded to the encoder's length */
  function ids(text) {
    const found = tokens(text).slice(0, context - 2).map((t) => t.id);
    return Int32Array.from({ length: context }, (_, i) => (i === 0 ? vocabulary[start] : found[i - 1] ?? vocabulary[end]));
  }

  /** @param {string} text @param {[number, number]} span @returns {number[]} places in the sequence of the pieces of the word at `span` */
  function positions(text, [from, to]) {
    return tokens(text).slice(0, context - 2).flatMap((t, i) => (t.start < to && t.end > from ? [i + 1] : []));
  }

  /** @param {number} id @returns {string} a piece as text */
  function decode(id) {
    const letters = Array.from(pieces[id].replace(/<\/w>$/, " "));
    const text = new TextDecoder().decode(Uint8Array.from(letters, (c) => (c === " " ? 32 : bytes.get(c) ?? 63)));
    return text.trim() || "·";
  }

  /** As CLIP's tokenizer mends a text before it reads it: curly quotes straight, ligatures apart, no control characters. @param {string} text */
  const mend = (text) => text.replace(/[^]/g, (c) => mended[c] ?? c);

  return { ids, positions, mend, decode, reach: context - 2, count: (/** @type {string} */ text) => tokens(text).length };
}
