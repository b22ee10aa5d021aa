// What all explorers share: building elements, the theme, controls tied to the model, pictures with a map over them.

/** An element. Children that are strings become text, never markup: what a person typed stays what it is. */
function h(tag, props = {}, ...children) {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) el.addEventListener(name.slice(2), value);
    else el.setAttribute(name, value === true ? "" : value);
  }
  el.append(...children.flat().filter((c) => c !== null && c !== undefined));
  return el;
}

function svg(tag, props = {}, ...children) {
  const el = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) el.setAttribute(name, value);
  el.append(...children);
  return el;
}

const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const fixed = (x, digits) => x.toFixed(digits).replace(/^-(0(\.0+)?)$/, "$1"); // no negative zero
const percent = (x, digits = 1) => `${fixed(100 * x, digits)} %`;

/** Arrays by name from the model's block of bytes, as Python's `pack` laid them out. */
const unpack = (model) => decode(model.get("_meta").index, model.get("_block"));

function decode(index, view) {
  const bytes = new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength).slice();
  const types = { u1: Uint8Array, f4: Float32Array };
  const arrays = {};
  for (const [name, [type, shape, offset]] of Object.entries(index)) {
    arrays[name] = new types[type](bytes.buffer, offset, shape.reduce((a, b) => a * b, 1));
    arrays[name].shape = shape;
  }
  return arrays;
}

/** Light or dark as Jupyter, Colab or VS Code say, else as the reader's system prefers. Returns an undo. */
function followTheme(root) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const body = document.body;
  const update = () => {
    const jupyter = body.dataset.jpThemeLight;
    const colab = document.documentElement.getAttribute("theme");
    const code = body.className.match(/vscode-(light|dark)/)?.[1];
    const own = document.body.classList.contains("rdl-page");
    const dark = jupyter ? jupyter === "false" : colab ? colab === "dark" : code ? code === "dark" : own && system.matches;
    root.dataset.theme = dark ? "dark" : "light";
    if (own) body.dataset.theme = root.dataset.theme;
  };
  const observer = new MutationObserver(update);
  observer.observe(body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
  observer.observe(document.documentElement, { attributes: true, attributeFilter: ["theme"] });
  system.addEventListener("change", update);
  update();
  return () => {
    observer.disconnect();
    system.removeEventListener("change", update);
  };
}

/** Build a view and return what takes it down again, as anywidget asks: no listener outlives its view. */
function mount({ model, el }, build) {
  const undo = [];
  const root = h("section", { class: "rdl" });
  // JupyterLab takes the arrow keys for itself unless the very element that has the focus forbids it.
  root.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true"));
  el.append(root);
  const view = {
    model,
    root,
    undo,
    id: `rdl-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`, // other explorers in the document count for themselves
    serial: 0,
    get: (name) => model.get(name),
    set(name, value) {
      model.set(name, value);
      model.save_changes();
    },
    on(names, call) {
      for (const name of names.split(" ")) {
        model.on(`change:${name}`, call);
        undo.push(() => model.off(`change:${name}`, call));
      }
    },
  };
  const clear = () => { for (const call of undo.splice(0)) call(); };
  const theme = followTheme(root);
  /** Build everything anew, for other data. */
  view.restart = () => {
    clear();
    root.replaceChildren();
    build(view);
  };
  build(view);
  return () => {
    clear();
    theme();
    root.remove();
  };
}

/** New children for a row; the focus stays on the button that has it, by its place. */
function renewed(row, ...children) {
  const at = [...row.querySelectorAll("button")].indexOf(row.getRootNode().activeElement);
  row.replaceChildren(...children);
  if (at >= 0) [...row.querySelectorAll("button")].slice(0, at + 1).pop()?.focus();
}

/** A polite line that says what is shown; quick changes are read out once. */
function liveLine(view) {
  const line = h("p", { class: "rdl-live", "aria-live": "polite" });
  let timer;
  view.undo.push(() => clearTimeout(timer));
  return {
    el: line,
    say(text) {
      clearTimeout(timer);
      timer = setTimeout(() => { if (line.textContent !== text) line.textContent = text; }, 120);
    },
  };
}

/** A labelled control; `hint` explains it on hover. */
const labelled = (label, control, hint) => h("label", { class: "rdl-control", title: hint }, h("span", {}, label), control);

/** Radio buttons in one bar. options: [value, label] each; `allowed(value)` greys out the others. */
function segmented(view, label, trait, options, allowed = () => true) {
  const name = `${view.id}-${view.serial++}`; // radio buttons of one name exclude each other in the whole document
  const inputs = options.map(([value, text]) => {
    const input = h("input", { type: "radio", name, onchange: () => view.set(trait, value) });
    return [value, input, h("label", {}, input, h("span", {}, text))];
  });
  const update = () => {
    for (const [value, input] of inputs) {
      input.checked = view.get(trait) === value;
      input.disabled = !allowed(value);
    }
  };
  view.on(trait, update);
  update();
  const bar = h("div", { class: "rdl-segments", role: "radiogroup", "aria-label": label }, inputs.map((i) => i[2]));
  return { el: h("div", { class: "rdl-control" }, h("span", {}, label), bar), update };
}

/** A slider tied to a number of the model. `show(value)` words it. */
function slider(view, label, trait, { min, max, step, show, hint }) {
  const input = h("input", { type: "range", min, max, step, "aria-label": label });
  const output = h("output", {});
  const update = () => {
    input.value = view.get(trait);
    output.textContent = show(view.get(trait));
    input.setAttribute("aria-valuetext", output.textContent);
    input.style.setProperty("--at", `${((input.value - min) / (max - min || 1)) * 100}%`);
  };
  input.addEventListener("input", () => view.set(trait, Number(input.value)));
  view.on(trait, update);
  update();
  return { el: labelled(label, h("span", { class: "rdl-slider" }, input, output), hint), input, update };
}

/** A drop-down list. `options()` gives [value, label, disabled] each and is asked again by update(). */
function choice(view, label, get, set, options, hint) {
  const list = h("select", { "aria-label": label, onchange: () => set(list.selectedOptions[0].rdl) });
  const update = () => {
    list.replaceChildren(...options().map(([value, text, disabled]) => {
      const option = h("option", { disabled }, text);
      option.rdl = value;
      option.selected = value === get();
      return option;
    }));
  };
  update();
  return { el: labelled(label, list, hint), list, update };
}

/** A yes-or-no of the model. */
function toggle(view, label, trait) {
  const box = h("input", { type: "checkbox", onchange: () => view.set(trait, box.checked) });
  const update = () => { box.checked = view.get(trait); };
  view.on(trait, update);
  update();
  return h("label", { class: "rdl-toggle" }, box, h("span", {}, label));
}

/**
 * Arrow keys walk over buttons; only one of them is a stop of the tab key. Left and right go to the one before or behind,
 * up and down to the nearest of the line above or below, or where all stand in one line, as left and right.
 */
function walkable(row, buttons) {
  const stop = (chosen) => { for (const b of buttons()) b.tabIndex = b === chosen ? 0 : -1; };
  row.addEventListener("focusin", (event) => { if (buttons().includes(event.target)) stop(event.target); });
  row.addEventListener("keydown", (event) => {
    const all = buttons();
    const i = all.indexOf(event.target);
    if (i < 0) return;
    const vertical = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const to = vertical ? all.indexOf(besides(all, event.target, vertical)) : { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined) return;
    all[clamp(to, 0, all.length - 1)].focus();
    event.preventDefault();
    event.stopPropagation();
  });
  return stop;
}

/** Of these elements the nearest in the line below (+1) or above (-1) one of them. */
function besides(all, from, sign) {
  const box = (el) => el.getBoundingClientRect();
  const here = box(from);
  const middle = (b) => b.left + b.width / 2;
  const beyond = all.map((el) => [el, box(el)]).filter(([, b]) => (sign > 0 ? b.top >= here.bottom - 1 : b.bottom <= here.top + 1));
  if (!beyond.length) { // the first or last line: stay, unless there is one line only
    const single = all.every((el) => Math.abs(box(el).top - here.top) < here.height);
    return single ? all[clamp(all.indexOf(from) + sign, 0, all.length - 1)] : from;
  }
  const line = sign * Math.min(...beyond.map(([, b]) => sign * b.top));
  const same = beyond.filter(([, b]) => Math.abs(b.top - line) < here.height / 2);
  return same.reduce((best, one) => (Math.abs(middle(one[1]) - middle(here)) < Math.abs(middle(best[1]) - middle(here)) ? one : best))[0];
}
