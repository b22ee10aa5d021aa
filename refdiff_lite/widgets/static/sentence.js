// Another sentence, asked from the page where a kernel with networks is there.

/** A field for a sentence; null where nobody could answer. What was wrong with it is told beside it. */
function sentenceField(view, text) {
  if (!(view.get("_live") && view.get("_asks"))) return null;
  const error = h("p", { class: "rdl-error", role: "alert" }, view.get("_error"));
  const send = () => {
    const same = field.value.trim().replace(/\s+/g, " ") === text;
    if (same && !view.get("_error")) return; // the kernel would have nothing new to tell
    view.root.setAttribute("aria-busy", "true");
    view.model.send({ sentence: field.value });
  };
  const field = h("input", {
    type: "text", class: "rdl-field", "aria-label": "sentence", spellcheck: "false", autocomplete: "off", value: text,
    onkeydown: (event) => { if (event.key === "Enter" && !event.isComposing) { event.preventDefault(); send(); } },
  });
  view.on("_error", () => { error.textContent = view.get("_error"); view.root.setAttribute("aria-busy", "false"); });
  return h("div", {}, h("div", { class: "rdl-ask" }, field, h("button", { type: "button", class: "rdl-button", onclick: send }, "Look")), error);
}
