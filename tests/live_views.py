"""Live explorers in a page, whose questions Python answers; for the browser tests and ``benchmarks/bench_explorers.py``."""

import base64

LIVE = """
async (states) => {
  window.models = states.map(({ state, block }, i) => {
    const calls = new Map();
    const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
    state._block = bytes(block);
    const emit = (event, ...rest) => { for (const f of [...(calls.get(event) ?? [])]) f(...rest); };
    return {
      state, emit, asked: [],
      get: (n) => state[n],
      set(n, v) { if (JSON.stringify(state[n]) === JSON.stringify(v)) return; state[n] = v; emit(`change:${n}`); window.changed(i, n, v); },
      save_changes() {},
      update(changes) { // as a message of the kernel does: all is set, then told one by one
        if ("_block" in changes) changes._block = bytes(changes._block);
        const names = Object.keys(changes).filter((n) => state[n] !== changes[n]);
        Object.assign(state, changes);
        for (const n of names) emit(`change:${n}`);
      },
      on: (e, f) => calls.set(e, (calls.get(e) ?? new Set()).add(f)),
      off: (e, f) => calls.get(e)?.delete(f),
      async send(content) {
        this.asked.push(content.ask);
        for (const [answer, block] of await window.kernel(i, content)) {
          await new Promise((done) => setTimeout(done, window.delay?.(content.ask) ?? 0));
          emit("msg:custom", answer, block ? [bytes(block)] : []);
        }
      },
    };
  });
  for (const [i, model] of window.models.entries()) {
    const url = URL.createObjectURL(new Blob([states[i].module], { type: "text/javascript" }));
    const { default: view } = await import(url + "#" + i);
    const el = document.createElement("div");
    el.id = `view${i}`;
    document.querySelector("main").append(el);
    view.render({ model, el });
  }
}
"""


def state_of(explorer):
    """What a kernel would send a page: every synchronised trait, the block as base64."""
    return explorer.state() | {"_block": base64.b64encode(explorer._block).decode()}


def show(page, *explorers, setup=""):
    """Put explorers into a page, each a module of its own as in a notebook; ``window.models`` are their models."""
    page.set_content(f"<!doctype html><style>{explorers[0]._css}</style><body class='rdl-page'><main></main>")
    if setup:
        page.evaluate(setup)

    def kernel(i, content):
        sent = []
        explorers[i].send = lambda answer, buffers=None: sent.append(
            [answer, base64.b64encode(buffers[0]).decode() if buffers else None]
        )
        explorers[i]._handle_custom_msg(content, [])  # as a message of the page reaches it
        return sent

    page.expose_function("kernel", kernel)
    page.expose_function("changed", lambda i, name, value: setattr(explorers[i], name, value))
    states = [{"state": e.state(), "block": base64.b64encode(e._block).decode(), "module": e._esm} for e in explorers]
    page.evaluate(LIVE, states)
    return page
