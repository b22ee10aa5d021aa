// A wall of cards of which only those in sight exist, however many there are.

/**
 * `card(i)` makes the button of item i, `order()` gives the items in order. All cards are equally high. One card is a
 * stop of the tab key; arrows, Home, End and the page keys walk, also to cards that do not exist yet.
 */
function virtualWall(view, label, card, order) {
  const [gap, edge] = [14, 6];
  const space = h("div", {});
  const el = h("div", { class: "rdl-wall", role: "group", "aria-label": label }, space);
  const made = new Map(); // item -> its card
  let list = [], at = 0, columns = 1, width = 0, high = 0;

  function measure() {
    const room = el.clientWidth - 2 * edge;
    if (room <= 0) return false;
    columns = Math.max(1, Math.floor((room + gap) / ((room < 520 ? 104 : 148) + gap)));
    width = (room - (columns - 1) * gap) / columns;
    const probe = card(list[0]);
    Object.assign(probe.style, { width: `${width}px`, visibility: "hidden" });
    space.append(probe);
    high = probe.offsetHeight + 18;
    probe.remove();
    space.style.height = `${Math.ceil(list.length / columns) * high + edge}px`;
    return high > 18;
  }

  function place() {
    if (!list.length || !high) return;
    const first = Math.max(0, Math.floor(el.scrollTop / high) - 1) * columns;
    const last = Math.min(list.length, (Math.ceil((el.scrollTop + (el.clientHeight || 640)) / high) + 1) * columns);
    const wanted = new Map();
    for (let k = first; k < last; k++) wanted.set(list[k], k);
    wanted.set(list[at], at);
    for (const [i, it] of made) if (!wanted.has(i)) { it.remove(); made.delete(i); }
    let before = null;
    for (const [i, k] of [...wanted].sort((a, b) => a[1] - b[1])) {
      let it = made.get(i);
      if (!it) made.set(i, (it = card(i)));
      Object.assign(it.style, { width: `${width}px`, left: `${edge + (k % columns) * (width + gap)}px`, top: `${edge + Math.floor(k / columns) * high}px` });
      it.tabIndex = k === at ? 0 : -1;
      // What stands right is not moved: a moved element loses the focus.
      if ((before ? before.nextSibling : space.firstChild) !== it) space.insertBefore(it, before ? before.nextSibling : space.firstChild);
      before = it;
    }
  }

  function go(to, focus = true) {
    if (!list.length || (!high && !measure())) return; // it was hidden when it was made
    at = clamp(to, 0, list.length - 1);
    const top = Math.floor(at / columns) * high;
    if (top < el.scrollTop) el.scrollTop = top;
    else if (top + high > el.scrollTop + el.clientHeight) el.scrollTop = top + high - el.clientHeight + edge;
    place();
    if (focus) made.get(list[at])?.focus({ preventScroll: true });
  }

  el.addEventListener("scroll", place);
  el.addEventListener("focusin", (event) => {
    for (const [i, it] of made) if (it === event.target) at = list.indexOf(i);
    for (const it of made.values()) it.tabIndex = it === event.target ? 0 : -1;
  });
  el.addEventListener("keydown", (event) => {
    const page = columns * Math.max(1, Math.floor(el.clientHeight / high));
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page }[event.key];
    const to = by ? at + by : { Home: 0, End: list.length - 1 }[event.key];
    if (to === undefined) return;
    if (to >= 0 && to < list.length) go(to);
    else if (Math.abs(by) > columns) go(to); // the page keys stop at the ends, the up and down arrows stay
    event.preventDefault();
    event.stopPropagation();
  });
  const resized = new ResizeObserver(() => { if (list.length && measure()) place(); });
  resized.observe(el);
  view.undo.push(() => resized.disconnect());
  return {
    el,
    /** The filters or the order have changed. */
    update() {
      list = order();
      for (const it of made.values()) it.remove();
      made.clear();
      at = 0;
      el.scrollTop = 0;
      space.style.height = "0";
      if (list.length && measure()) place();
    },
    go: (i, focus) => go(Math.max(0, list.indexOf(i)), focus),
    /** Paint a card anew, now that its arrays are here. */
    repaint(i, paint) { if (made.has(i)) paint(made.get(i)); },
    cards: made,
  };
}
