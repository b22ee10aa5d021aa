
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
  render({ model, el: document.getElementById("explorer") });
}
