// The live page: scenes to choose from, a picture of the reader's own, the playground, and what each word looks at.

/** @typedef {{ sentence: string, head?: string | null, cues?: string[] | null }} Wish */
const ANY = "the cat"; // asked of a picture that comes without a sentence

/** @param {{ constants: any, lists: any, vocabulary: any, scenes: any[], parts: Record<string, number>, once: boolean }} told */
function startPage(told) {
  const { constants: C, scenes } = told;
  const pixels = C.side * C.side;
  const place = JSON.stringify;
  /** @type {any} */ let engine = null;
  /** @type {{ name: string, bytes: Uint8Array, sentences: { text: string, target: number }[], kinds: string[], scene: number }} */ let picture;
  /** @type {any[]} */ let answers = []; // of the worker, with their questions, oldest first
  const masks = /** @type {Record<string, Uint8Array[]>} */ ({});
  let [step, layers] = [C.step, C.read];
  const every = C.layers.flat();

  // ---- the model that the playground's view reads
  const model = makeModel({
    _meta: {}, _block: null, _live: true, _busy: false, _error: "", _request: {}, current: 0, variant: "full", proposals: "felzenszwalb",
    alpha: C.alpha, beta: C.beta, bias: true, threshold: 0, picked: -1, show_what: "mask",
  }, sent);
  const plainSet = model.set;
  model.set = (name, value) => {
    if (name === "proposals" && picture && !picture.kinds.includes(value)) { // an undo, from another picture
      wrong.textContent = `${picture.name} has no ${value} proposals; those of ${picture.kinds.join(", ")} can be chosen`;
      return undefined;
    }
    const next = { ...model.state, [name]: value };
    // S_D of thresholds takes many crops: it is worked out when it is first looked at, and shown not before.
    if (name in { variant: 1, proposals: 1, current: 1 } && needsWeak(next) && !answers[next.current]?.weak) {
      const wanted = answers[value];
      return work(() => publish(name !== "current" ? { [name]: value } : answers.includes(wanted) ? { current: answers.indexOf(wanted), picked: -1 } : {}));
    }
    plainSet(name, value);
  };
  model.on("change:_request", () => { const r = model.get("_request"); work(() => ask(r.sentence, r.head ?? null, r.cues ?? null)); });
  const needsWeak = (/** @type {any} */ s) => s.proposals === "weak" && (s.variant === "full" || s.variant === "ds");

  // ---- what the reader sees
  const bar = h("progress", { max: 1, value: 0, "aria-label": "loading" });
  const status = h("p", { class: "live-status", role: "status" });
  const wall = h("div", { class: "live-wall", role: "group", "aria-label": "pictures" });
  const chooser = h("input", { type: "file", accept: "image/*", hidden: true, "aria-label": "own picture", onchange: () => { give(chooser.files[0]); chooser.value = ""; } });
  const camera = h("input", { type: "file", accept: "image/*", capture: "environment", hidden: true, "aria-label": "photograph", onchange: () => { give(camera.files[0]); camera.value = ""; } });
  const wrong = h("p", { class: "rdl-error", role: "alert" });
  const suggestions = h("div", { class: "rdl-history", role: "group", "aria-label": "sentences to try" });
  const still = h("img", { class: "live-still", alt: "" });
  const host = h("div", { class: "live-view" });
  const strip = h("div", { class: "live-strip", role: "group", "aria-label": "what each word looks at; choose the head" });
  const noise = h("input", { type: "range", min: 0, max: C.timesteps.length - 1, step: 1, value: step, onchange: rerun, oninput: () => tellNoise() });
  const noiseTold = h("output", {});
  const choice = h("select", { onchange: rerun },
    h("option", { value: "preset" }, "those of the preset"), h("option", { value: "all" }, `all ${every.length}`),
    every.map((/** @type {string} */ name) => h("option", { value: name }, name.replaceAll("_", " ").replace(".attentions", ""))));
  const readOf = (/** @type {string} */ value) => (value === "preset" ? C.read : value === "all" ? every : [value]);
  const page = h("div", { class: "rdl live" },
    // the site's start page says this itself
    location.search === "?inside" ? null : h("header", {}, h("h1", {}, "Which pixels does a phrase mean?"), h("p", {}, "Ref-Diff, live in this page: five small networks, no server. What you type and show stays on your device.")),
    h("div", { class: "live-top" }, wall,
      h("div", { class: "live-own" }, chooser, camera, h("button", { type: "button", class: "rdl-button", onclick: () => chooser.click() }, "Own picture …"),
        matchMedia("(pointer: coarse)").matches ? h("button", { type: "button", class: "rdl-quiet", onclick: () => camera.click() }, "Photograph") : null,
        h("p", { class: "rdl-note" }, `or drop or paste one anywhere. Its middle square is taken, at ${C.side} pixels: the networks know no larger pictures, and of things only ToyRef’s.`))),
    wrong, suggestions, h("div", { class: "live-load" }, bar, status), still);
  const below = h("div", { class: "rdl live", hidden: true },
    h("header", {}, h("h2", {}, "What each word looks at"), h("p", {}, "Cross-attention of the layers chosen, mean over heads, each map from its least to its greatest value. Choose a word as the head.")),
    strip,
    h("div", { class: "rdl-controls live-knobs" },
      h("label", { class: "rdl-control", title: "the noise that is added before the UNet looks" }, h("span", {}, "noise"), h("span", { class: "rdl-slider" }, noise, noiseTold)),
      h("label", { class: "rdl-control" }, h("span", {}, "layers"), choice)));
  const root = /** @type {HTMLElement} */ (document.getElementById("live"));
  root.replaceChildren(page, host, below);
  for (const part of [page, below]) followTheme(part);
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, dropped, true); // before the view, which would take it too
  document.addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (file) event.preventDefault();
    give(file);
  });
  document.addEventListener("dragleave", () => root.classList.remove("live-dropping"));

  function dropped(/** @type {any} */ event) {
    const { files, types } = event.dataTransfer;
    if (!types.includes("Files") && event.target.matches?.("input[type=text]")) return; // words, dragged into the field
    event.preventDefault();
    event.stopPropagation();
    root.classList.toggle("live-dropping", event.type === "dragover");
    if (event.type !== "drop") return;
    give(files[0]);
    if (files.length !== 1) wrong.textContent = files.length ? `${files.length} files were dropped; the first, ${files[0].name}, is taken.` : "What was dropped is no file: save the picture on this device, and drop its file.";
  }
  function tellNoise() { noiseTold.textContent = `t = ${C.timesteps[Number(noise.value)]}`; }

  wall.replaceChildren(...scenes.map((scene, i) => h("button", { type: "button", class: "live-scene", "aria-pressed": "false", "aria-label": scene.name, onclick: () => { still.src = pictureUrl(bytesOf(scene.picture)); work(() => show(i)); } },
    h("img", { src: `data:image/png;base64,${scene.picture}`, alt: "", width: 64, height: 64 }))));

  // ---- one thing at a time; what is asked meanwhile waits
  let waiting = 0;
  let queue = load(); // what is asked before the networks are here waits too
  /** @param {() => Promise<void>} act */
  function work(act) {
    model.set("_error", "");
    wrong.textContent = "";
    waiting += 1;
    model.set("_busy", true);
    let began = 0;
    queue = queue.then(() => { began = performance.now(); return act(); }).then(() => {
      status.textContent = `The last answer took ${(performance.now() - began).toFixed(0)} ms.`;
    }, (error) => {
      status.textContent = "";
      if (answers.length && error.worded) model.set("_error", error.message);
      else wrong.textContent = error.message;
      if (!error.worded) console.warn(error);
    }).finally(() => { waiting -= 1; model.set("_busy", waiting > 0); });
    return queue;
  }

  // ---- pictures
  async function show(/** @type {number} */ i, /** @type {Wish} */ wish = { sentence: scenes[i].sentences[0].text }) {
    const bytes = bytesOf(scenes[i].picture);
    const { rgb } = await squareOf(new Blob([/** @type {any} */ (bytes)]), C.side);
    const truth = scenes[i].masks.map((/** @type {string} */ m) => fromBits(bytesOf(m), pixels));
    await take({ name: scenes[i].name, bytes, sentences: scenes[i].sentences, kinds: [], scene: i }, rgb, truth, wish);
  }
  /** @param {Blob & { name?: string } | undefined} file */
  function give(file) {
    if (!file) return undefined;
    return work(async () => {
      const name = file.name ?? "your picture";
      let made;
      try {
        made = await squareOf(file, C.side);
      } catch (error) {
        if (/** @type {any} */ (error).told) throw error;
        if (!file.size) throw Object.assign(new Error(`${name} is empty; choose another file`), { worded: false });
        throw Object.assign(new Error(`${name} is no picture that this browser can read; save it as JPEG or PNG`), { worded: false });
      }
      await take({ name, bytes: made.bytes, sentences: [], kinds: [], scene: -1 }, made.rgb, [], answers[model.get("current")] ?? { sentence: ANY });
    });
  }
  /** @param {typeof picture} given @param {Uint8Array} rgb @param {Uint8Array[]} truth @param {Wish} wish */
  async function take(given, rgb, truth, wish) {
    const { kinds } = await engine("picture", { rgb, truth });
    picture = { ...given, kinds };
    for (const kind of Object.keys(masks)) delete masks[kind];
    for (const kind of kinds) if (kind !== "weak") masks[kind] = (await engine("masks", { kind })).masks;
    answers = [];
    if (!kinds.includes(model.get("proposals"))) plainSet("proposals", "felzenszwalb");
    [...wall.children].forEach((b, i) => b.setAttribute("aria-pressed", String(i === given.scene)));
    suggestions.replaceChildren(...picture.sentences.map((s) => h("button", { type: "button", onclick: () => work(() => ask(s.text)) }, s.text)));
    try {
      await ask(wish.sentence, wish.head, wish.cues);
    } catch (error) { // a sentence from the address that cannot be read: the view comes all the same, and its field
      await ask(picture.sentences[0]?.text ?? ANY);
      throw error;
    }
  }

  // ---- sentences
  /** @param {any} question @param {number} at @param {boolean} weak */
  async function answer(question, at, weak) {
    const target = picture.sentences.find((s) => s.text === question.sentence)?.target ?? -1;
    answers[at] = { ...question, weak, ...(await engine("sentence", { ...question, plain: unescaped(question.sentence), step, layers, weak, truth: target })) };
  }
  /** HTML's names for characters read as CLIP's tokenizer reads them, twice. @param {string} text */
  function unescaped(text) {
    const area = document.createElement("textarea"); // its content is text: nothing in it is built or run
    for (let i = 0; i < 2; i++) { area.innerHTML = text; text = area.value; }
    return text;
  }
  async function ask(/** @type {string} */ sentence, /** @type {string | null} */ head = null, /** @type {string[] | null} */ cues = null) {
    const question = { sentence: sentence.split(/[^\S\ufeff]+/).filter(Boolean).join(" "), head, cues };
    const told = (/** @type {any} */ q) => place([q.sentence, q.head, q.cues]);
    let at = answers.findIndex((a) => told(a) === told(question));
    const weak = needsWeak(model.state);
    if (at < 0 || (weak && !answers[at].weak)) {
      const to = at < 0 ? answers.length : at;
      await answer(question, to, weak);
      // The same sentence under another question, such as its own head named: one entry, the newest.
      const same = answers.findIndex((a, i) => i !== to && place(a.expression) === place(answers[to].expression));
      at = to;
      if (same >= 0) { answers[same] = answers[to]; answers.splice(to, 1); at = Math.min(same, answers.length - 1); }
      if (answers.length > 24) { answers.shift(); at -= 1; }
    }
    await publish({ current: at, picked: -1 });
  }
  /** The sentence shown once more, at the noise and with the layers chosen by now; the others would be stale. */
  function rerun() {
    return work(async () => {
      const [toStep, toLayers] = [Number(noise.value), readOf(choice.value)];
      const asked = answers[model.get("current")];
      if (!asked || place([toStep, toLayers]) === place([step, layers])) return;
      [step, layers] = [toStep, toLayers];
      answers = [];
      await answer({ sentence: asked.sentence, head: asked.head, cues: asked.cues }, 0, needsWeak(model.state));
      await publish({ current: 0 });
    });
  }

  // ---- the worker's answers as the view's data (widgets/answers.py: frames)
  async function publish(/** @type {Record<string, any>} */ changes) {
    for (;;) { // a knob may be turned while the networks run
      const next = { ...model.state, ...changes };
      if (!needsWeak(next) || !answers[next.current] || answers[next.current].weak) break;
      await answer(answers[next.current], next.current, true);
    }
    if (!answers.length) return model.assign(changes);
    const size = [C.side, C.side];
    const u1 = (/** @type {Uint8Array} */ data, /** @type {number[]} */ shape) => ({ data, shape });
    const arrays = /** @type {Record<string, any>} */ ({ palette: u1(bytesOf(C.palette), [256, 3]), image: u1(picture.bytes, [picture.bytes.length]) });
    for (const [kind, list] of Object.entries(masks)) arrays[`masks/${kind}`] = bitsOf(list);
    answers.forEach((a, i) => {
      arrays[`${i}/map`] = u1(Uint8Array.from(a.map, (/** @type {number} */ x) => Math.round(255 * x)), size);
      arrays[`${i}/levels`] = u1(a.levels, size);
      for (const [kind, rows] of Object.entries(a.parts)) arrays[`${i}/${kind}`] = { data: Float32Array.from(/** @type {any} */ (rows).flat()), shape: [7, /** @type {any} */ (rows)[0].length] };
    });
    const { index, block } = packed(arrays);
    const entries = answers.map((a) => ({
      text: a.expression.text, words: a.words.map((/** @type {any} */ w) => ({ text: w.text, pieces: w.pieces })), cues: a.expression.cues,
      head: a.words.findIndex((/** @type {any} */ w) => w.start === a.expression.span[0]), otsu: true, truth: a.parts.felzenszwalb[6].concat(a.parts.weak[6]).some((/** @type {number} */ x) => x >= 0),
    }));
    const meta = { title: "Which mask does a sentence mean?", size, entries, kinds: picture.kinds, directions: C.directions, thresholds: C.thresholds, index };
    model.assign({ _meta: meta, _block: block, ...changes });
    if (!host.firstChild) {
      still.remove();
      page.querySelector(".live-load")?.classList.add("live-ready");
      bar.hidden = true;
      below.hidden = false;
      render({ model, el: host });
      for (const name of ["current", "_block"]) model.on(`change:${name}`, drawStrip);
    }
    drawStrip();
    remember();
  }
  function drawStrip() {
    const a = answers[model.get("current")];
    if (!a) return;
    const url = pictureUrl(picture.bytes);
    renewed(strip, ...a.words.map((/** @type {any} */ w, /** @type {number} */ i) => {
      const canvas = h("canvas", { class: "rdl-over" });
      if (a.strip[i]) paintMap(canvas, Uint8Array.from(a.strip[i], (/** @type {number} */ x) => Math.round(255 * x)), C.side, C.side, bytesOf(C.palette), 0, 255, true);
      const head = w.start === a.expression.span[0];
      return h("button", { type: "button", class: "live-word", "aria-pressed": String(head), disabled: !a.strip[i], title: head ? "the head word" : "make this the head word", onclick: () => work(() => ask(a.expression.text, nameOf(a, i), a.expression.cues)) },
        h("span", { class: "rdl-stage", style: "--ratio:1;aspect-ratio:1" }, h("img", { src: url, alt: "" }), canvas),
        h("span", {}, w.text), h("small", {}, a.strip[i] ? percent(a.shares[i]) : "not read"));
    }));
    tellNoise();
  }
  /** A word by itself, or with those before it where it stands twice. */
  function nameOf(/** @type {any} */ a, /** @type {number} */ i) {
    const twice = a.words.slice(0, i).some((/** @type {any} */ w) => w.text.toLowerCase() === a.words[i].text.toLowerCase());
    return twice ? a.expression.text.slice(0, a.words[i].start + a.words[i].text.length) : a.words[i].text;
  }

  // ---- what the view asks for: what CLIP sees of a proposal
  function sent(/** @type {any} */ message) {
    if (typeof message.ask === "string") queue = queue.then(() => look(message.ask)); // in turn: another picture may be on its way
  }
  async function look(/** @type {string} */ name) {
    try {
      const [what, current, kind, index, bias] = name.split("/");
      if (what !== "clip") throw new Error(`nothing is named ${name}`);
      const a = answers[Number(current)];
      if (!a) throw new Error("this sentence is no longer here");
      const found = await engine("clip", { kind, index: Number(index), cues: bias === "1" ? a.expression.cues : [], levels: kind === "weak" ? a.levels : null });
      const arrays = /** @type {Record<string, any>} */ ({});
      for (const part of ["crop", "masked"]) {
        const side = Math.sqrt(found[part].length / 4);
        const canvas = new OffscreenCanvas(side, side);
        /** @type {any} */ (canvas.getContext("2d")).putImageData(new ImageData(found[part], side, side), 0, 0);
        const data = new Uint8Array(await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer());
        arrays[`${name}/${part}`] = { data, shape: [data.length] };
      }
      const { index: at, block } = packed(arrays);
      model.receive({ answer: name, index: at }, [block]);
    } catch (error) {
      model.receive({ answer: name, error: String(/** @type {any} */ (error).message) }, []);
    }
  }

  // ---- the address keeps scene, sentence and knobs
  const knobs = ["variant", "proposals", "alpha", "beta", "bias", "threshold", "show_what"];
  const start = Object.fromEntries(knobs.map((n) => [n, model.get(n)]));
  let timer = 0;
  function remember() { // not at every step of a slider: browsers limit how often an address may change
    clearTimeout(timer);
    timer = setTimeout(write, 200);
  }
  function write() {
    const a = answers[model.get("current")];
    if (!told.once || !a) return;
    if (picture.scene < 0) return history.replaceState(null, "", location.href.split("#")[0]); // a picture is in no address
    const changed = Object.fromEntries(knobs.filter((n) => model.get(n) !== start[n]).map((n) => [n, model.get(n)]));
    const more = { step: step === C.step ? null : step, layers: place(layers) === place(C.read) ? null : choice.value, head: a.head, cues: a.cues };
    const kept = { ...changed, scene: picture.scene, sentence: a.expression.text, ...Object.fromEntries(Object.entries(more).filter(([, x]) => x !== null)) };
    history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(kept))}`);
  }
  for (const n of knobs) model.on(`change:${n}`, () => { if (answers.length) remember(); });
  addEventListener("hashchange", () => { clearTimeout(timer); location.reload(); }); // another link, put into this tab
  /** What the address asks for; what in it fits nothing here is left out and named. */
  function asked() {
    const share = (/** @type {any} */ x) => x >= 0 && x <= 1;
    const among = (/** @type {any[]} */ list) => (/** @type {any} */ x) => list.includes(x);
    const flat = (/** @type {any} */ x) => typeof x === "string" && x.trim() !== "";
    /** @type {Record<string, (x: any) => boolean>} */
    const fits = {
      variant: among(C.variants), proposals: among(["oracle", "felzenszwalb", "weak"]), alpha: share, beta: share, bias: among([true, false]),
      threshold: (x) => Number.isInteger(x) && x >= 0 && x <= C.thresholds, show_what: among(["mask", "map"]), scene: (x) => Number.isInteger(x) && x in scenes,
      sentence: flat, head: flat, cues: (x) => Array.isArray(x) && x.every(among(C.directions)), step: (x) => Number.isInteger(x) && x in C.timesteps, layers: among(["preset", "all", ...every]),
    };
    let kept = /** @type {any} */ ({}), odd = /** @type {string[]} */ ([]);
    try {
      kept = Object(JSON.parse(decodeURIComponent(location.hash.slice(1)) || "{}"));
      odd = Object.keys(kept).filter((n) => !Object.hasOwn(fits, n) || typeof kept[n] !== typeof (start[n] ?? kept[n]) || !fits[n](kept[n]));
      for (const n of odd) delete kept[n];
    } catch {
      odd = ["all of it"];
    }
    for (const n of knobs) if (n in kept) model.state[n] = kept[n];
    if ("step" in kept) [step, noise.value] = [kept.step, kept.step];
    if ("layers" in kept) [layers, choice.value] = [readOf(kept.layers), kept.layers];
    const scene = kept.scene ?? 0;
    const own = "sentence" in kept;
    return { scene, wish: { sentence: own ? kept.sentence : scenes[scene].sentences[0].text, head: own ? kept.head : null, cues: own ? kept.cues : null }, odd };
  }

  // ---- begin: the picture at once, the networks as they come
  async function load() {
    try {
      const total = Object.values(told.parts).reduce((a, b) => a + b, 0);
      let here = 0;
      const files = /** @type {Record<string, Uint8Array>} */ ({});
      const say = () => { bar.value = here / total; status.textContent = `loading the networks: ${(here / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`; };
      say();
      checkBrowser();
      for (const [name, size] of Object.entries(told.parts)) {
        files[name] = await asset(name, size);
        here += size;
        say();
      }
      status.textContent = "starting the networks …";
      const text = (/** @type {string} */ name) => new TextDecoder().decode(files[name]);
      const ask = startWorker(text("worker"));
      const { worker: _, glue: __, wasm, ...networks } = files;
      await ask("load", { constants: C, lists: told.lists, vocabulary: told.vocabulary, wasm, glue: text("glue"), networks });
      engine = ask;
    } catch (error) {
      const why = /** @type {any} */ (error);
      const failed = why.told ? why : new Error(`The networks did not start (${why.message || why}). Load the page again, or take another browser.`);
      bar.hidden = true;
      engine = () => Promise.reject(failed);
    }
  }
  const first = asked();
  still.src = pictureUrl(bytesOf(scenes[first.scene].picture));
  work(() => show(first.scene, first.wish)).then(() => {
    if (first.odd.length && !wrong.textContent) wrong.textContent = `This page’s address was not understood in full and is read without: ${first.odd.join(", ")}.`;
  });
  return { model, answers: () => answers, idle: () => queue, work, ask, show, give };
}
