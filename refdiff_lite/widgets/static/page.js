
// An exported page has no kernel: this model keeps the state in the page itself.
{
  const state = JSON.parse(document.getElementById("state").textContent);
  const coded = atob(document.getElementById("block").textContent);
  const block = new Uint8Array(coded.length);
  for (let i = 0; i < coded.length; i++) block[i] = coded.charCodeAt(i);
  state._block = new DataView(block.buffer);
  const listeners = new Map();
  const model = {
    get: (name) => state[name],
    set(name, value) {
      if (JSON.stringify(state[name]) === JSON.stringify(value)) return;
      state[name] = value;
      for (const call of [...(listeners.get(`change:${name}`) ?? [])]) call();
    },
    save_changes() {},
    on: (event, call) => listeners.set(event, (listeners.get(event) ?? new Set()).add(call)),
    off: (event, call) => listeners.get(event)?.delete(call),
  };
  // The address keeps what was chosen: a link or a reload brings the same view back.
  const el = document.getElementById("explorer");
  el.replaceChildren(); // the still that stands there without JavaScript
  const chosen = Object.keys(state).filter((n) => !n.startsWith("_"));
  const kind = (x) => (Array.isArray(x) ? "list" : typeof x);
  const start = Object.fromEntries(chosen.map((n) => [n, state[n]]));
  try {
    const told = JSON.parse(decodeURIComponent(location.hash.slice(1)) || "{}");
    for (const n of chosen) if (n in told && kind(told[n]) === kind(state[n])) state[n] = told[n];
    render({ model, el });
  } catch (error) { // an address that fits no view, such as an older page's
    Object.assign(state, start);
    listeners.clear();
    el.replaceChildren();
    render({ model, el });
  }
  let timer;
  const remember = () => {
    const changed = Object.fromEntries(chosen.filter((n) => JSON.stringify(state[n]) !== JSON.stringify(start[n])).map((n) => [n, state[n]]));
    const text = Object.keys(changed).length ? `#${encodeURIComponent(JSON.stringify(changed))}` : " ";
    if ((location.hash || " ") !== text) history.replaceState(null, "", text === " " ? location.href.split("#")[0] : text);
  };
  for (const n of chosen) model.on(`change:${n}`, () => { clearTimeout(timer); timer = setTimeout(remember, 200); });
}
