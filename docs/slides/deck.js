// Typeset, make full slides fit, then start. "ready" on the body says that all of this is done.
const printing = /view=print|print-pdf/.test(location.search);
const theme = (dark) => (document.documentElement.dataset.theme = dark ? "dark" : "light");
theme(!printing && matchMedia("(prefers-color-scheme: dark)").matches);

/** Until nothing sticks out, make a tall picture smaller, then the type. */
function fit(slide) {
  const body = slide.querySelector(".body");
  const over = () => body.scrollHeight > body.clientHeight + 1 || body.scrollWidth > body.clientWidth + 1
    || slide.scrollHeight > slide.clientHeight + 1;
  const tall = slide.matches(".tall") && slide.querySelector("img");
  for (let height = 560; tall && over() && height > 320; ) tall.style.maxHeight = `${(height -= 20)}px`;
  for (let size = 30; over() && size > 18; ) slide.style.fontSize = `${--size}px`;
}

async function start() {
  await MathJax.startup.promise;
  await MathJax.typesetPromise();
  await Promise.all([...document.images].map((image) => image.decode().catch(() => {})));
  document.body.classList.add("measuring");
  document.querySelectorAll(".slides > section").forEach(fit);
  document.body.classList.remove("measuring");
  await Reveal.initialize({
    width: 1280, height: 720, margin: 0, center: false, hash: true, slideNumber: "c/t", transition: "none", backgroundTransition: "none",
    plugins: [RevealNotes], keyboard: { 68: () => theme(document.documentElement.dataset.theme === "light") },
    scrollLayout: "compact", pdfMaxPagesPerSlide: 1, pdfSeparateFragments: false,
  });
  document.body.classList.add("ready");
}
start();
