
// An exported page has no kernel: this model keeps the state in the page itself.
{
  const state = JSON.parse(document.getElementById("state").textContent);
  const coded = atob(document.getElementById("block").textContent);
  state._block = new DataView(Uint8Array.from(coded, (c) => c.charCodeAt(0)).buffer);
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
  render({ model, el: document.getElementById("explorer") });
}
