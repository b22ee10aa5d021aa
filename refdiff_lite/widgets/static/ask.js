// Arrays on demand: what a page does not have yet, it asks its kernel for.

/**
 * Arrays that the kernel is asked for by name when they are first wanted. One question is under way at a time, and of
 * those that wait the newest of each kind is kept. Answers are kept by name, so a late one is never drawn as another.
 */
function askable(view, arrays, onanswer) {
  const [most, patience] = [48e6, 15000];
  const [next, kept, failed] = [new Map(), [], new Map()];
  let pending = null, bytes = 0, timer;
  const here = (name) => ["", "/heads", "/crop", "/rows"].some((part) => name + part in arrays);
  function pump() {
    if (pending !== null || !next.size) return;
    const [kind, name] = next.entries().next().value;
    next.delete(kind);
    pending = name;
    timer = setTimeout(() => done(name, "no answer: the kernel is busy or has stopped"), patience);
    view.model.send({ ask: name });
  }
  function done(name, error) {
    if (error) failed.set(name, { error, at: Date.now() });
    if (name === pending) {
      clearTimeout(timer);
      pending = null;
    }
    onanswer(name);
    pump();
  }
  function receive(message, buffers) {
    if (typeof message?.answer !== "string") return;
    const name = message.answer;
    if (message.error) return done(name, message.error);
    if (!here(name)) {
      const found = decode(message.index, buffers[0]);
      Object.assign(arrays, found);
      kept.push([Object.keys(found), buffers[0].byteLength]);
      bytes += buffers[0].byteLength;
      while (bytes > most && kept.length > 1) { // the page's memory stays flat
        const [names, size] = kept.shift();
        for (const n of names) delete arrays[n];
        bytes -= size;
      }
    }
    failed.delete(name);
    done(name);
  }
  view.model.on("msg:custom", receive);
  view.undo.push(() => { clearTimeout(timer); view.model.off("msg:custom", receive); });
  return {
    /** True if the arrays are here; else they are asked for, if there is a kernel. */
    want(name, kind) {
      if (here(name)) { next.delete(kind); return true; }
      const again = Date.now() - (failed.get(name)?.at ?? 0) > patience; // a kernel may have come back
      if (!view.get("_live") || !again || name === pending) return false;
      next.set(kind, name);
      pump();
      return false;
    },
    here,
    error: (name) => failed.get(name)?.error,
    forget(start) {
      for (const n of Object.keys(arrays)) if (n.startsWith(start)) delete arrays[n];
      failed.clear();
    },
  };
}
