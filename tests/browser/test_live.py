"""The live page: what it answers is what Python answers, from disk and from a server, with the network cut."""

import base64
import csv
import functools
import http.server
import io
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from refdiff_lite import RefDiff
from refdiff_lite.datasets.toyref import ORDINALS, load_toyref
from refdiff_lite.expression import parse, pieces, token_positions
from refdiff_lite.live import data, page
from refdiff_lite.proposals import felzenszwalb
from refdiff_lite.toy.scenes import make_scene

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
READY = 60_000


@pytest.fixture(scope="module")
def toy():
    return RefDiff.from_preset("toy")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The page in one file, and as a folder."""
    try:
        page.runtime()
    except OSError as error:
        pytest.skip(f"no live page here: {error}")
    out = tmp_path_factory.mktemp("live")
    for name in ("page.html", "site"):
        command = [sys.executable, "-m", "refdiff_lite.cli", "live", "--out", str(out / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    return out / "page.html", out / "site" / "index.html"


def opened(chromium, watched, address, *, width=1280, **options):
    context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
    tab = watched(context.new_page())
    tab.asked = []
    tab.on("request", lambda r: tab.asked.append(r.url) if not r.url.startswith(("blob:", "data:")) else None)
    tab.goto(address)
    tab.wait_for_selector(".rdl-ranking button", timeout=READY)
    return tab


@pytest.fixture
def live(chromium, watched, built):
    """The one-file page from disk, with the network cut."""
    tab = opened(chromium, watched, built[0].as_uri(), offline=True)
    yield tab
    assert tab.asked == [built[0].as_uri()]  # no other request left the page
    tab.context.close()


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def settle(tab):
    """Until everything that was asked is answered."""
    tab.evaluate("refdiff.idle()")


def type_sentence(tab, text):
    tab.fill(".rdl-field", text)
    tab.press(".rdl-field", "Enter")
    settle(tab)


def best(tab):
    return int(tab.get_attribute(".rdl-best", "data-i"))


def test_the_rule_and_the_tokens_are_python_s(chromium, toy):
    with open(ROOT / "tests" / "expressions.tsv") as file:
        texts = [row["text"] for row in csv.DictReader(file, delimiter="\t")]
    for split, styles in (("test", (None, ORDINALS)), ("unseen", (None,))):
        for style in styles:
            samples = load_toyref(split, style) if style else load_toyref(split)
            texts += sorted({r.text for sample in samples for r in sample.records})
    texts += [
        "кошка слева", "猫 on the left", "the cafe\u0301 on the left", "<|endoftext|> cat", "dog's!! 🐱 on top-left", "don't",
        "’s cat", "a" * 50 + " cup", "İstanbul cup on right", "please show me the Left-most DOG", "", "?!", "x" * 1001,
    ]  # fmt: skip
    rng = random.Random(0)
    texts += [
        "".join(rng.choice("abc dé'’,-!?🐱1২ cat left the\u0301 İ") for _ in range(rng.randint(1, 30)))
        for _ in range(300)
    ]
    tokenizer = toy.networks.tokenizer

    def units(text, i):  # JavaScript counts in units of 16 bits
        return len(text[:i].encode("utf-16-le")) // 2

    def told(text):
        try:
            e = parse(text)
        except ValueError:
            return None
        try:
            places = token_positions(tokenizer, e.text, e.span)
        except ValueError:
            places = []
        ids = tokenizer(e.text, padding="max_length", max_length=tokenizer.model_max_length, truncation=True).input_ids
        span = [units(e.text, i) for i in e.span]
        return [e.text, e.head, span, list(e.cues), ids, places, list(pieces(tokenizer, e.text))]

    source = "".join((page.web_dir() / f"{n}.js").read_text() for n in ("grammar", "tokens"))
    tab = chromium.new_page()
    found = tab.evaluate(
        f"""([texts, lists, vocabulary]) => {{ {source}
        const parser = makeParser(lists), tokenizer = makeTokenizer(vocabulary);
        return texts.map((text) => {{
          try {{
            const e = parser.parse(text), ids = [...tokenizer.ids(e.text)];
            const pieces = ids.slice(0, Math.min(ids.length, tokenizer.count(e.text) + 2)).map(tokenizer.decode);
            return [e.text, e.head, e.span, e.cues, ids, tokenizer.positions(e.text, e.span), pieces];
          }} catch (error) {{ if (error instanceof RangeError) return null; throw error; }}
        }}); }}""",
        [texts, data.lists(), data.tokenizer(toy.networks)],
    )
    tab.close()
    assert len(found) > 1500
    assert [(text, got) for text, got in zip(texts, found, strict=True) if got != told(text)] == []


def test_felzenszwalb_finds_the_same_masks(chromium):
    images = [make_scene("test", 200 + i).image for i in range(40)]
    images += [np.full((128, 128, 3), 77, np.uint8), make_scene("val", 0).image[::-1].copy()]
    source = (page.web_dir() / "felzenszwalb.js").read_text()
    tab = chromium.new_page()
    found = tab.evaluate(
        f"""(pictures) => {{ {source}
        return pictures.map((text) => felzenszwalb(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)), 128, {{ scale: 5, edge: 9, minArea: 0.004 }})
          .map((mask) => btoa(String.fromCharCode(...mask)))); }}""",
        [base64.b64encode(image.tobytes()).decode() for image in images],
    )
    tab.close()
    for image, masks in zip(images, found, strict=True):
        got = [np.frombuffer(base64.b64decode(m), np.uint8).reshape(128, 128) == 1 for m in masks]
        assert np.array_equal(np.array(got).reshape(-1, 128, 128), felzenszwalb(image).numpy())


def test_two_hundred_expressions_are_answered_as_in_python(live, toy):
    """Pictures go in as files, sentences through the page's own path, answers are read from what it shows."""
    count, disagree, worst = 0, [], 0.0
    for sample in load_toyref("test")[100:]:
        scene = toy.set_image(sample.image())
        live.set_input_files(
            "input[aria-label='own picture']",
            {"name": "scene.png", "mimeType": "image/png", "buffer": png(sample.image())},
        )
        settle(live)
        for record in sample.records:
            live.evaluate("(text) => refdiff.work(() => refdiff.ask(text))", record.text)
            # A view redraws at once; what it shows is what is read here.
            found = live.evaluate(
                """() => {
                  const { model, answers } = refdiff, arrays = decode(model.get("_meta").index, model.get("_block"));
                  const told = () => ({ best: Number(document.querySelector(".rdl-best")?.dataset.i ?? -1), count: document.querySelectorAll(".rdl-ranking button").length });
                  const full = told();
                  model.set("variant", "g");
                  const g = told();
                  model.set("variant", "full");
                  const masks = arrays["masks/felzenszwalb"];
                  return { full, g, error: model.get("_error"), parts: answers()[model.get("current")].parts.felzenszwalb, masks: [...masks], shape: masks.shape, map: [...answers()[model.get("current")].map] };
                }"""
            )
            assert found["error"] == ""
            result, alone = scene.segment(record.text), scene.segment(record.text, "g")
            bits = np.array(found["masks"], np.uint8).reshape(found["shape"])
            masks = np.unpackbits(bits, axis=1, bitorder="little")[:, : 128 * 128].reshape(-1, 128, 128) == 1
            assert np.array_equal(masks, result.proposals)
            s_g, _, _, crop, _, masked, _ = np.array(found["parts"])
            beta = toy.config.beta
            worst = max(
                worst, np.abs(s_g - result.scores["S_G"].numpy()).max(),
                np.abs(beta * masked + (1 - beta) * crop - result.scores["S_D"].numpy()).max(),
                np.abs(np.array(found["map"]).reshape(128, 128) - result.word_map).max(),
            )  # fmt: skip
            if found["full"]["best"] != result.best or found["g"]["best"] != alone.best:
                disagree.append((sample.image_id, record.text, found["full"], result.best, found["g"], alone.best))
            count += 1
        if count >= 200:
            break
    assert count >= 200
    assert disagree == []
    assert worst < 1e-4


def test_a_sentence_is_typed_and_its_mask_is_seen(live):
    type_sentence(live, "the bus over the star")
    assert live.inner_text(".rdl-words [aria-pressed=true]") == "bus"
    first = best(live)
    type_sentence(live, "the star on the left")
    assert best(live) != first
    assert "IoU" in live.inner_text(".rdl-legend")  # ToyRef's own sentence: its truth is known
    type_sentence(live, "   ")
    assert "has no word" in live.inner_text(".rdl-error >> nth=1")
    live.click(".live-word >> nth=0")
    settle(live)
    live.click(".rdl-sees summary")
    live.wait_for_selector(".rdl-sees img")
    widths = live.eval_on_selector_all(
        ".rdl-sees img", "all => Promise.all(all.map(async i => { await i.decode(); return i.naturalWidth; }))"
    )
    assert widths == [64, 128]


def test_noise_and_layers_change_the_map_and_nothing_stale_stays(live):
    def current():
        return live.evaluate("[...refdiff.answers()[refdiff.model.get('current')].map]")

    type_sentence(live, "dog")
    before = current()
    live.eval_on_selector(
        ".live-knobs input",
        "e => { e.value = 12; e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')); }",
    )
    settle(live)
    assert "t = 601" in live.inner_text(".live-knobs output")
    noisy = current()
    assert np.abs(np.subtract(before, noisy)).max() > 0.2
    assert live.evaluate("refdiff.answers().length") == 1
    live.select_option(".live-knobs select", "mid_block.attentions.0")
    settle(live)
    assert np.abs(np.subtract(noisy, current())).max() > 0.05


def test_weak_proposals_are_ranked_by_clip_only_once_that_is_worked_out(live, toy):
    image = load_toyref("test")[data.SCENES[0]].image()
    type_sentence(live, "large bus")
    live.evaluate("refdiff.model.set('proposals', 'weak')")
    settle(live)
    found = live.evaluate("refdiff.answers()[refdiff.model.get('current')].parts.weak")
    scene = toy.set_image(image)
    result = scene.segment("large bus", "full", "weak")
    assert np.abs(0.5 * np.array(found[5]) + 0.5 * np.array(found[3]) - result.scores["S_D"].numpy()).max() < 1e-4
    assert best(live) == result.best


def test_any_picture_is_cut_to_its_middle_square_and_junk_is_refused_in_words(live):
    wide = np.zeros((90, 300, 3), np.uint8)
    wide[:, 105:195] = (0, 200, 0)
    live.set_input_files(
        "input[aria-label='own picture']", {"name": "wide.png", "mimeType": "image/png", "buffer": png(wide)}
    )
    settle(live)
    colour = live.evaluate(
        """async () => { const image = new Image(); image.src = document.querySelector(".live-view .rdl-stage img").src; await image.decode();
        const canvas = new OffscreenCanvas(128, 128), c = canvas.getContext("2d"); c.drawImage(image, 0, 0);
        return [image.naturalWidth, ...c.getImageData(3, 64, 1, 1).data, ...c.getImageData(124, 64, 1, 1).data]; }"""
    )
    assert colour == [128, 0, 200, 0, 255, 0, 200, 0, 255]
    live.set_input_files(
        "input[aria-label='own picture']", {"name": "notes.txt", "mimeType": "image/png", "buffer": b"no picture"}
    )
    settle(live)
    assert "notes.txt is no picture" in live.inner_text(".rdl-error >> nth=0")
    live.click(".live-scene >> nth=1")
    settle(live)
    assert live.inner_text(".rdl-error >> nth=0") == ""


def test_the_address_brings_the_same_view_back(chromium, watched, live, built):
    live.click(".live-scene >> nth=2")
    settle(live)
    type_sentence(live, "small apple")
    live.evaluate("refdiff.model.set('variant', 'gs')")
    live.wait_for_timeout(400)
    address, shown = live.evaluate("location.href"), best(live)
    other = opened(chromium, watched, address, offline=True)
    assert other.input_value(".rdl-field") == "small apple"
    assert other.evaluate("refdiff.model.get('variant')") == "gs"
    assert best(other) == shown
    other.context.close()


def test_a_long_drag_seldom_writes_the_address(live):
    live.evaluate("globalThis.written = 0; history.replaceState = () => { written += 1; }")
    for i in range(60):
        live.evaluate(f"refdiff.model.set('alpha', {i / 100})")
    live.wait_for_timeout(400)
    assert 1 <= live.evaluate("written") <= 5  # Safari allows 100 in half a minute


def test_a_browser_that_hides_pixels_is_told_of(chromium, watched, built):
    """As Firefox does under resistFingerprinting: nonsense must not look like an answer."""
    context = chromium.new_context(offline=True)
    context.add_init_script(
        "const read = OffscreenCanvasRenderingContext2D.prototype.getImageData;"
        "OffscreenCanvasRenderingContext2D.prototype.getImageData = function (...given) {"
        "const got = read.apply(this, given); got.data[0] ^= 1; return got; }"
    )
    tab = watched(context.new_page())
    tab.goto(built[0].as_uri())
    tab.wait_for_selector(".rdl-error:has-text('fingerprinting')", timeout=READY)
    assert tab.locator(".rdl-ranking button").count() == 0
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_cut_off_and_axe_has_no_serious_finding(chromium, watched, built, scheme):
    tab = opened(
        chromium,
        watched,
        built[0].as_uri(),
        width=390,
        offline=True,
        color_scheme=scheme,
        has_touch=True,
        is_mobile=True,
    )
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    found = Axe().run(tab).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:120]) for v in found if v["impact"] in ("serious", "critical")] == []
    tab.context.close()


def test_the_folder_goes_on_without_its_server(chromium, watched, built):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(built[1].parent))
    handler.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    context = chromium.new_context()
    tab = watched(context.new_page())
    tab.goto(address)
    tab.wait_for_selector(".rdl-ranking button", timeout=READY)
    tab.evaluate("navigator.serviceWorker.ready.then(() => 1)")
    server.shutdown()
    server.server_close()
    tab.goto(f"{address}index.html")  # after a single visit, and by its other name
    tab.wait_for_selector(".rdl-ranking button", timeout=READY)
    type_sentence(tab, "the large bus")
    assert best(tab) >= 0
    context.close()


def file_of(name, content):
    return {"name": name, "mimeType": "image/png", "buffer": content}


def map_of(tab):
    return np.array(tab.evaluate("[...refdiff.answers()[refdiff.model.get('current')].map]"))


def alert(tab):
    return tab.inner_text(".rdl-error >> nth=0")


def test_a_scene_chosen_before_the_networks_are_here_comes_when_they_are(chromium, watched, built):
    context = chromium.new_context(offline=True)
    tab = watched(context.new_page())
    tab.goto(built[0].as_uri(), wait_until="commit")
    tab.click(".live-scene >> nth=3")
    tab.wait_for_selector(".rdl-ranking button", timeout=READY)
    settle(tab)
    assert alert(tab) == ""
    assert tab.get_attribute(".live-scene >> nth=3", "aria-pressed") == "true"
    context.close()


def test_knobs_turned_while_the_networks_run_all_count(chromium, watched, live):
    live.evaluate(
        """() => { refdiff.work(() => refdiff.ask("the red star", "red", ["top"]));
        const [noise, layers] = document.querySelectorAll(".live-knobs :is(input, select)");
        noise.value = 12; noise.dispatchEvent(new Event("change"));
        layers.value = "all"; layers.dispatchEvent(new Event("change")); }"""
    )
    settle(live)
    live.wait_for_timeout(400)
    assert '"step":12,"layers":"all","head":"red","cues":["top"]' in live.evaluate("decodeURIComponent(location.hash)")
    other = opened(chromium, watched, live.evaluate("location.href"), offline=True)
    assert np.abs(map_of(live) - map_of(other)).max() < 1e-6
    assert other.inner_text(".rdl-words [aria-pressed=true]") == "red"
    other.context.close()


def test_weak_chosen_while_another_sentence_is_computed_is_ranked_by_clip(live):
    live.evaluate("refdiff.model.set('proposals', 'weak')")
    settle(live)
    live.evaluate("refdiff.model.set('proposals', 'felzenszwalb')")
    live.evaluate(
        """async () => { refdiff.work(() => refdiff.ask("the red star"));
        await new Promise((done) => setTimeout(done, 10)); refdiff.model.set("proposals", "weak"); }"""
    )
    settle(live)
    settle(live)
    assert all(
        live.evaluate("refdiff.answers()[refdiff.model.get('current')].parts.weak[3].map((x) => x !== 0 && x === x)")
    )


def test_half_a_sentence_outlives_the_answer_to_the_last_and_the_focus_stays(live):
    live.fill(".rdl-field", "the dog")
    live.press(".rdl-field", "Enter")
    live.fill(".rdl-field", "the star ne")
    settle(live)
    assert live.input_value(".rdl-field") == "the star ne"
    for place in (".rdl-words button >> nth=0", ".rdl-cue >> nth=1", ".live-word >> nth=1"):
        live.focus(place)
        live.keyboard.press("Enter")
        settle(live)
        assert live.evaluate("(el) => el === document.activeElement", live.query_selector(place)), place


def test_undo_reaches_over_pictures_and_waits_for_the_networks(live):
    live.evaluate("refdiff.model.set('proposals', 'oracle')")
    live.wait_for_timeout(400)
    live.set_input_files("input[aria-label='own picture']", file_of("mine.png", png(make_scene("val", 1).image)))
    settle(live)
    live.wait_for_timeout(400)
    assert live.evaluate("location.hash") == ""  # of another picture than the one seen
    live.click("[aria-label=undo]")
    assert "mine.png has no oracle proposals" in alert(live)
    assert live.evaluate("refdiff.model.get('proposals')") == "felzenszwalb"
    live.evaluate("refdiff.model.set('proposals', 'weak')")
    settle(live)
    live.wait_for_timeout(400)
    live.evaluate("refdiff.model.set('proposals', 'felzenszwalb')")
    live.wait_for_timeout(400)
    live.click(".live-scene >> nth=1")
    settle(live)
    live.click("[aria-label=undo]")
    settle(live)
    live.wait_for_timeout(400)
    assert live.evaluate("refdiff.model.get('proposals')") == "weak"
    assert live.is_enabled("[aria-label=redo]")


def test_texts_are_mended_for_clip_as_in_python(live, toy):
    scene = toy.set_image(load_toyref("test")[data.SCENES[0]].image())
    for text in (
        "the dog’s “red” star",
        "a &amp; b &lt;cat&gt;",
        "ﬁsh on the left",
        "ＣＡＴ",
        "the cat\x01 left",
        "cat\ufeffdog left",
    ):
        live.evaluate("(text) => refdiff.work(() => refdiff.ask(text))", text)
        settle(live)
        parts = live.evaluate("refdiff.answers()[refdiff.model.get('current')].parts.felzenszwalb")
        result = scene.segment(text, "full", "felzenszwalb")
        assert np.abs(np.array(parts[0]) - result.scores["S_G"].numpy()).max() < 1e-4, text
        s_d = 0.5 * np.array(parts[5]) + 0.5 * np.array(parts[3])
        assert np.abs(s_d - result.scores["S_D"].numpy()).max() < 1e-4, text


def test_what_is_too_long_is_said_and_what_is_not_read_is_marked(chromium, watched, live, built):
    type_sentence(live, "the cat " * 200)
    assert "1599 characters" in live.inner_text(".rdl-error >> nth=1")
    type_sentence(live, "cat" + " and so on" * 12)
    assert live.inner_text(".rdl-word:last-child small") == "not read"
    narrow = opened(chromium, watched, built[0].as_uri(), width=320, offline=True)
    type_sentence(narrow, "a" * 1000)
    narrow.wait_for_timeout(300)  # the line below the picture is written a little later
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 320
    narrow.context.close()


def test_the_largest_pictures_do_not_turn_white(live):
    buffer = io.BytesIO()
    Image.new("L", (17000, 17000), 90).save(buffer, "PNG")
    live.set_input_files("input[aria-label='own picture']", file_of("huge.png", buffer.getvalue()))
    settle(live)
    colour = live.evaluate(
        """async () => { const image = new Image(); image.src = document.querySelector(".live-view .rdl-stage img").src; await image.decode();
        const c = new OffscreenCanvas(128, 128).getContext("2d"); c.drawImage(image, 0, 0); return c.getImageData(64, 64, 1, 1).data[0]; }"""
    )
    assert colour == 90


def test_what_is_dropped_is_taken_once_or_refused_in_words(live):
    def drop(items):
        live.evaluate(
            """([items, picture]) => { const given = new DataTransfer();
            const bytes = Uint8Array.from(atob(picture), (c) => c.charCodeAt(0));
            (new Function("given", "bytes", items))(given, bytes);
            document.querySelector(".rdl-ranking").dispatchEvent(new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true })); }""",
            [items, base64.b64encode(png(make_scene("val", 2).image)).decode()],
        )
        settle(live)

    drop("given.setData('text/uri-list', 'https://example.org/cat.png')")
    assert "is no file" in alert(live)
    drop("for (const name of ['one.png', 'two.png']) given.items.add(new File([bytes], name))")
    assert "the first, one.png" in alert(live)
    drop("given.items.add(new File([bytes, new Uint8Array(9e6)], 'large.png'))")
    assert live.evaluate("[...document.querySelectorAll('.rdl-error')].map((e) => e.textContent).join('')") == ""
    drop("given.items.add(new File([], 'none.png'))")
    assert "none.png is empty" in alert(live)
    live.evaluate(
        """(picture) => { const clipboardData = new DataTransfer();
        const bytes = Uint8Array.from(atob(picture), (c) => c.charCodeAt(0));
        clipboardData.items.add(new File([bytes], "pasted.png"));
        document.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true })); }""",
        base64.b64encode(png(make_scene("val", 3).image)).decode(),
    )
    settle(live)
    assert live.evaluate("[...document.querySelectorAll('.rdl-error')].map((e) => e.textContent).join('')") == ""
    pressed = "document.querySelectorAll(\".live-scene[aria-pressed='true']\").length"
    assert live.evaluate(pressed) == 0  # a picture of one's own is shown


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ("junk", "all of it"), ('{"scene":"length","old":1}', "scene, old"), ('{"alpha":5,"threshold":2.5}', "alpha, threshold"),
        ('{"variant":"nope","sentence":"large bus"}', "variant"), ('{"sentence":"?!"}', "has no word"),
        ('{"sentence":"\\ud800 cat"}', "half of a character"),
    ],
)  # fmt: skip
def test_an_address_with_junk_brings_the_view_and_says_what_was_left_out(chromium, watched, built, told, wanted):
    tab = opened(chromium, watched, f"{built[0].as_uri()}#{quote(told)}", offline=True)
    tab.wait_for_function(
        "(text) => [...document.querySelectorAll('.rdl-error')].some((e) => e.textContent.includes(text))", arg=wanted
    )
    assert tab.evaluate("[refdiff.model.get('alpha'), refdiff.model.get('threshold')]") == [pytest.approx(0.2), 0]
    if "large bus" in told:
        assert tab.input_value(".rdl-field") == "large bus"
    tab.context.close()


def test_another_link_in_the_same_tab_is_followed(chromium, watched, built):
    tab = opened(chromium, watched, built[0].as_uri(), offline=True)
    tab.goto(f"{built[0].as_uri()}#{quote(json.dumps({'scene': 2, 'sentence': 'small apple'}))}")
    tab.wait_for_function("() => document.querySelector('.rdl-field')?.value === 'small apple'", timeout=READY)
    tab.context.close()


@pytest.mark.parametrize(
    ("script", "wanted"),
    [
        ("delete globalThis.WebAssembly", "has no WebAssembly"),
        ("globalThis.Worker = class { constructor() { throw new Error('not here') } }", "did not start (not here). Load"),
        ("globalThis.Worker = class { constructor() { setTimeout(() => this.onerror(new Event('error')), 300) } postMessage() {} }", "take another browser"),
    ],
)  # fmt: skip
def test_a_browser_that_cannot_run_the_networks_is_told_so_at_every_question(chromium, watched, built, script, wanted):
    context = chromium.new_context(offline=True)
    context.add_init_script(script)
    tab = watched(context.new_page())
    tab.goto(built[0].as_uri())
    for _ in range(2):
        tab.wait_for_function(
            "(text) => document.querySelector('.rdl-error').textContent.includes(text)", arg=wanted, timeout=READY
        )
        tab.click(".live-scene >> nth=1")
    context.close()


def test_a_folder_with_a_broken_file_says_which_and_a_reload_mends_it(chromium, built, tmp_path):
    folder = shutil.copytree(built[1].parent, tmp_path / "site")
    broken = folder / "assets" / "unet.js"
    whole = broken.read_bytes()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    context = chromium.new_context()
    tab = context.new_page()  # its console tells of the broken file
    said = "(text) => document.querySelector('.rdl-error').textContent.includes(text)"
    broken.unlink()
    tab.goto(f"http://127.0.0.1:{server.server_address[1]}/")
    tab.wait_for_function(said, arg="unet.js could not be loaded", timeout=READY)
    broken.write_bytes(whole[: len(whole) // 2])
    tab.reload()
    tab.wait_for_function(said, arg="unet.js is not whole", timeout=READY)
    tab.reload()  # by now the service worker has kept it
    tab.wait_for_function(said, arg="unet.js is not whole", timeout=READY)
    broken.write_bytes(whole)
    later = broken.stat().st_mtime + 10  # a server knows seconds, and would call the two files the same
    os.utime(broken, (later, later))
    tab.reload()
    tab.wait_for_selector(".rdl-ranking button", timeout=READY)
    context.close()
    server.shutdown()
    server.server_close()


def test_files_kept_hold_what_is_known_and_name_what_they_are(live):
    live.evaluate("refdiff.model.set('variant', 'g')")  # whose weak proposals CLIP has not seen

    def kept(name):
        with live.expect_download() as told:
            live.click(f".rdl-keep button:text-is('{name}')")
        return Path(told.value.path()).read_text()

    rows = list(csv.DictReader(io.StringIO(kept("CSV"))))
    assert len(rows) == live.evaluate("refdiff.answers()[0].parts.weak[0].length")
    assert all(r["S_D"] == "" and float(r["S"]) > 0 for r in rows)
    assert "data:image/jpeg" not in kept("SVG")  # it is a PNG, and some viewers take its name at its word


def test_forced_colours_leave_no_control_unseen(chromium, watched, built):
    tab = opened(chromium, watched, built[0].as_uri(), offline=True, forced_colors="active")
    style = "([el, name]) => getComputedStyle(document.querySelector(el))[name]"
    assert tab.evaluate(style, [".rdl-slider input", "appearance"]) == "auto"
    for el in (".rdl-chip[aria-pressed=true]", ".rdl-segments input:checked + span"):
        chosen = tab.evaluate(style, [el, "backgroundColor"])
        assert chosen not in (tab.evaluate(style, [el, "color"]), tab.evaluate(style, [".rdl", "backgroundColor"]))
        assert tab.evaluate(style, [el, "forcedColorAdjust"]) == "none"  # else white lies behind white letters
    tab.context.close()


def test_one_file_holds_the_licence_and_a_policy_and_tells_its_size(built):
    text = built[0].read_text()
    assert "Copyright (c) Microsoft Corporation" in text
    assert "default-src 'none'" in text
    told = json.loads(text.split('id="told">')[1].split("</script>")[0])
    assert sum(told["parts"].values()) < 15e6
    assert len(text) < 21e6
