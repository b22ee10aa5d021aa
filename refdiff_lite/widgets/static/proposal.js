// The playground's side rooms: what CLIP sees of one proposal, and a picture of the reader's own.

/** A panel that opens on CLIP's two views of the proposal `shown()`; `find(name)` gives the arrays that may hold them. */
function clipPanel(view, asked, { find, shown, name }) {
  const heading = h("summary", {});
  const body = h("div", {});
  const el = h("details", { class: "rdl-sees", ontoggle: () => draw() }, heading, body);
  let drawn = null;
  const figure = (bytes, text) => h("figure", {}, h("img", { src: pictureUrl(bytes), alt: text }), h("figcaption", {}, text));
  function draw() {
    const i = shown();
    el.hidden = i === undefined;
    heading.textContent = `What CLIP sees of #${i}`;
    if (el.hidden || !el.open) return;
    const wanted = name(i);
    const arrays = find(wanted);
    const crop = arrays[`${wanted}/crop`];
    if (crop ? drawn === crop : false) return;
    drawn = crop;
    if (crop) return body.replaceChildren(figure(crop, "the masked crop"), figure(arrays[`${wanted}/masked`], "the masked tokens attend to the bright patches"));
    asked.want(wanted, "clip");
    body.replaceChildren(h("p", { class: "rdl-note" }, asked.error(wanted) ?? (view.get("_live") ? "asking …" : "This page keeps it for the winner alone.")));
  }
  return { el, draw };
}

/** A button that takes a picture to the kernel, which the whole view also takes by drop. */
function ownPicture(view, say) {
  async function give(file) {
    if (!file) return;
    if (file.size > 8e6) say(`${file.name} has ${(file.size / 1e6).toFixed(0)} MB; at most 8 go through the notebook`);
    else view.model.send({ picture: file.name }, undefined, [await file.arrayBuffer()]);
  }
  const chooser = h("input", { type: "file", accept: "image/*", hidden: true, "aria-label": "own picture", onchange: () => { give(chooser.files[0]); chooser.value = ""; } });
  const { root } = view;
  const drop = (event) => {
    event.preventDefault();
    root.classList.toggle("rdl-dropping", event.type === "dragover");
    if (event.type === "drop") give(event.dataTransfer.files[0]);
  };
  for (const kind of ["dragover", "drop"]) root.addEventListener(kind, drop);
  root.addEventListener("dragleave", () => root.classList.remove("rdl-dropping"));
  return [chooser, h("button", { type: "button", class: "rdl-quiet", title: "or drop a picture anywhere here", onclick: () => chooser.click() }, "own picture …")];
}
