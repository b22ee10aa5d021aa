// Lesson 0's rule in the page: from a sentence to its head word and cues, as refdiff_lite/expression.py and grammar.py say.
// The word lists and patterns come from there (`lists`); only the rule is written here.

/** @typedef {{ text: string, start: number, end: number }} Word */
/** @typedef {{ text: string, head: string, span: [number, number], cues: string[] }} Expression */

/**
 * The rule with its word lists.
 * @param {{ cues: Record<string, string>, colours: string[], numbers: string[], kinds: Record<string, string>, endings: [string, string][],
 *   asking: string, mark: string, word: string, image: string[], body: string[], owners: string[], heading: string[], clothes: string[],
 *   byRight: string[], longest: number }} lists
 */
function makeParser(lists) {
  const WORD = new RegExp(lists.word, "giu");
  const ASKING = new RegExp(`^${lists.asking}`, "iu");
  const BREAK = new RegExp(lists.mark, "u");
  const ENDINGS = lists.endings.map(([kind, source]) => /** @type {const} */ ([kind, new RegExp(`^(?:${source})$`, "u")]));
  const SPACE = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/u;
  const SIDES = ["most", "far", "hand", "side", "corner", "center", "middle"];
  /** @template T @param {T[]} list @returns {T | undefined} */
  const last = (list) => list[list.length - 1];
  const fold = (/** @type {string} */ text) => text.split(SPACE).filter(Boolean).join(" ");
  const kindOf = (/** @type {string} */ word) => (Object.hasOwn(lists.kinds, word) ? lists.kinds[word] : undefined);
  const cueOf = (/** @type {string} */ word) => (Object.hasOwn(lists.cues, word) ? lists.cues[word] : undefined);

  /** @param {string} text @returns {Word[]} */
  function findWords(text) {
    return [...text.matchAll(WORD)].map((m) => ({ text: m[0], start: m.index, end: m.index + m[0].length }));
  }

  /** @param {string} word @returns {string[]} */
  function directions(word) {
    const parts = word.split("-");
    const known = parts.every((p) => cueOf(p) || SIDES.includes(p));
    return known ? parts.flatMap((p) => cueOf(p) ?? []) : [];
  }

  /** @param {string[]} words @param {number} i @returns {string} */
  function kind(words, i) {
    const [word, following] = [words[i], words[i + 1] ?? ""];
    if (word === "'s" || word === "’s") return "possessive";
    if (directions(word).length) return "direction";
    if (word === "hand" && ["side", "corner"].includes(following)) return "place";
    if (word === "light" && (lists.colours.includes(following) || following.endsWith("ed"))) return "adjective";
    const end = kindOf(word) ? word : /** @type {string} */ (last(word.split("-")));
    const listed = kindOf(end);
    if (listed) return listed;
    if ([...end].length > 3 && end.endsWith("y") && kindOf(following) === "adjective") return "adverb";
    return ENDINGS.find(([, ending]) => ending.test(end))?.[0] ?? "noun";
  }

  const phrase = (leads = true) => ({ leads, nouns: /** @type {number[]} */ ([]), adjectives: /** @type {number[]} */ ([]), places: /** @type {number[]} */ ([]) });

  /** @param {string[]} words @param {string[]} marks */
  function phrases(words, marks) {
    const found = [phrase()];
    const kinds = words.map((_, i) => kind(words, i));
    const before = (/** @type {number} */ i) => kinds[(i + kinds.length - 1) % kinds.length]; // Python's kinds[-1] is the last
    for (let i = 0; i < words.length; i++) {
      let now = found[found.length - 1];
      const adjective = now.adjectives.length > 0 && !["one", "ones"].includes(words[/** @type {number} */ (last(now.adjectives))]);
      if (marks[i] && !(now.leads && adjective && !now.nouns.length)) found.push((now = phrase()));
      const content = now.nouns.length > 0 || now.adjectives.length > 0;
      const following = words[i + 1] ?? "";
      const owned = following && !["clause", "determiner", "preposition", "join"].includes(kinds[i + 1]);
      let what = kinds[i];
      if (what === "label") {
        let behind = i + 1;
        while (behind < words.length && /^\p{Nd}+$/u.test(words[behind])) behind++;
        const label = !now.nouns.length && (["of", "shows", "showing"].includes(following) || marks[behind].startsWith(":"));
        what = label ? "adverb" : "noun";
      }
      if (what === "possessive" && before(i) !== "clause" && owned && !following.endsWith("ing")) {
        found[found.length - 1] = phrase(now.leads);
      } else if (words[i] === "of" && now.leads && !now.nouns.length && before(i) !== "direction") {
        now.nouns = now.places;
        now.adjectives = [];
        found.push(phrase(!now.places.length));
      } else if (["from", "frm"].includes(words[i]) && now.adjectives.length && !now.nouns.length) {
        // "second from left", perhaps with a noun to come
      } else if (what === "preposition") {
        found.push(phrase(false));
      } else if (["clause", "possessive"].includes(what) || (what === "determiner" && content) || (what === "join" && now.nouns.length)) {
        found.push(phrase(words[i] === "there" || (now.leads && !content)));
      } else if (what === "noun" || what === "person") {
        if (now.nouns.length && kinds[/** @type {number} */ (last(now.nouns))] === "person" && what === "noun" && !lists.body.includes(words[i])) found.push(phrase(false));
        found[found.length - 1].nouns.push(i);
      } else if (["adjective", "adverb", "place", "direction"].includes(what)) {
        if (now.nouns.length) found.push(phrase(false));
        if (what === "adjective") found[found.length - 1].adjectives.push(i);
        if (what === "place") found[found.length - 1].places.push(i);
      }
    }
    return found;
  }

  /** @param {string} text @param {Word[]} words @returns {string[]} */
  function marksOf(text, words) {
    return words.map((w, i) => (i ? text.slice(words[i - 1].end, w.start + 1).match(BREAK)?.[0] ?? "" : ""));
  }

  /** @param {string} text @returns {Word} */
  function findHead(text) {
    const start = text.match(ASKING)?.[0].length ?? 0;
    const every = findWords(text);
    const after = every.filter((w) => w.start >= start);
    const matches = after.length ? after : every;
    const words = matches.map((m) => m.text.toLowerCase());
    const found = phrases(words, [...marksOf(text, matches), ""]);
    for (const { leads, nouns, adjectives } of found) {
      if (leads && nouns.length) return matches[/** @type {number} */ (last(nouns))];
      if (leads && adjectives.length) {
        const rank = (/** @type {number} */ i) => 4 * Number(["one", "ones"].includes(words[i])) + 2 * Number(lists.colours.includes(words[i]));
        return matches[adjectives.reduce((best, i) => (rank(i) >= rank(best) ? i : best))];
      }
    }
    for (const { nouns } of found) if (nouns.length) return matches[/** @type {number} */ (last(nouns))];
    const named = found.flatMap((p) => [...p.adjectives, ...p.places]);
    const rest = words.map((_, i) => i).filter((i) => ["adverb", "label"].includes(kind(words, i)));
    return matches[named[0] ?? last(rest) ?? words.length - 1];
  }

  /** @param {string[]} words @param {number} start @param {number} end @param {string} head @returns {boolean} */
  function isCue(words, start, end, head) {
    const to = ["the", "to", "far", "toward", "towards"];
    const back = words.slice(0, start).reverse();
    const before = back[0] ?? "";
    const origin = back.find((w) => !to.includes(w)) ?? "";
    const denied = back.find((w) => ![...to, "on", "at", "in", "one"].includes(w)) ?? "";
    const behind = words.slice(end).filter((w) => !["the", "a", "this"].includes(w));
    let [after, then] = [...behind, "", ""];
    if (behind[0] === "side" && behind[1] === "of" && head !== "side") [after, then] = ["of", behind[2] ?? ""];
    if (after === "of") return lists.image.includes(then);
    if (["from", "frm", ...lists.heading].includes(origin) || lists.numbers.includes(before) || denied === "not") return false;
    if ((lists.owners.includes(origin) || [...lists.body, "hat"].includes(after)) && after !== head && !["side", "corner"].includes(then)) return false;
    if (before === "to" && cueOf(origin)) return false;
    const only = end - start === 1 ? words[start] : "";
    if (only === "right" && !["the", "on", "at", "in", "to", "far"].includes(before)) {
      return !lists.byRight.includes(after) && (after !== "in" || !["front", "middle", "center"].includes(then));
    }
    if (only === "top" && ["a", ...lists.clothes].includes(before)) {
      return !["", ","].includes(after) && ["noun", "person", "adjective"].includes(kindOf(after) ?? "noun");
    }
    return true;
  }

  /** @param {string} text @param {string} head @returns {string[]} */
  function findCues(text, head) {
    const matches = findWords(text);
    const marks = marksOf(text, matches);
    const words = matches.flatMap((m, i) => [...(marks[i] ? [","] : []), m.text.toLowerCase()]);
    const found = [];
    let end = 0;
    for (let start = 0; start < words.length; start++) {
      if (start < end || !directions(words[start]).length) continue;
      end = start;
      while (end < words.length && directions(words[end]).length) end++;
      if (isCue(words, start, end, head.toLowerCase())) found.push(...words.slice(start, end).flatMap(directions));
    }
    return [...new Set(found)];
  }

  /** The word that the reader names: the rule's own if it bears the name, else the first. */
  function named(/** @type {string} */ text, /** @type {string} */ name, /** @type {Word} */ rule) {
    const asked = fold(name);
    const plain = asked.replace(/['’]s$/u, "") || asked;
    const pattern = new RegExp(`(?<![\\p{L}\\p{M}\\p{N}])${plain.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&")}`, "giu");
    const ends = plain ? [...text.matchAll(pattern)].map((m) => m.index + m[0].length) : [];
    const found = findWords(text).filter((w) => ends.includes(w.end));
    if (!found.length) throw new RangeError(`“${asked}” is not a word of “${text}”; name one of its words as it is written there`);
    return found.find((w) => w.start === rule.start) ?? found[0];
  }

  /** @param {string} sentence @param {string | null} [head] @returns {Expression} */
  function parse(sentence, head = null) {
    if (/\p{Cs}/u.test(sentence + (head ?? ""))) throw new RangeError("the expression holds half of a character, which is no text; write it anew");
    const text = fold(sentence);
    const long = [...text].length;
    if (long > lists.longest) throw new RangeError(`the expression has ${long} characters; write at most ${lists.longest}, best a short phrase`);
    if (!findWords(text).length) throw new RangeError(`the expression “${text}” has no word; write a phrase such as “the small cat on the left”`);
    const rule = findHead(text);
    const word = head === null || head === undefined ? rule : named(text, head, rule);
    return { text, head: word.text, span: [word.start, word.end], cues: findCues(text, word.text) };
  }

  return { parse, findWords };
}
