"""Whatever people and files hand in: an answer of the right shape or one of our own errors, in bounded time and memory.

Each example runs in a second process, which may ask for 1 GB at most and is killed after 10 seconds: a crash or a hang in C
code is then a failure like any other. ``FUZZ=2000 pytest tests/test_fuzz.py`` tries so many examples of each kind, at random.
"""

import contextlib
import copy
import io
import json
import multiprocessing
import os
import pickle
import pickletools
import resource
import signal
import struct
import traceback
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.slow
SECONDS, ROOM = 10, 2**30
EXAMPLES = int(os.environ.get("FUZZ", "0"))
fuzzed = settings(
    max_examples=EXAMPLES or 1000, derandomize=not EXAMPLES, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


# What runs in the second process. Each returns whether the answer is of the right shape.


def picture(source):
    from refdiff_lite.images import load_image

    found = load_image(source)
    return found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3 and min(found.shape[:2]) >= 8


def expression(text):
    from refdiff_lite.expression import parse

    found = parse(text)
    return found.head in found.text and set(found.cues) <= {"left", "right", "top", "bottom", "middle"}


def segmentation(given):
    from refdiff_lite.masks import decode

    found = decode(*given)
    return found.dtype == bool and found.shape == tuple(given[1])


def some_masks(given):
    from refdiff_lite.masks import as_masks

    found = as_masks(given, (9, 12))
    return found.dtype == bool and found.shape[1:] == (9, 12)


def oracle(content):
    from refdiff_lite.datasets.records import masks_of

    path = Path(os.environ["FUZZ_FOLDER"]) / "instances.json"
    path.write_bytes(content)
    found = masks_of(path, "a.jpg", (9, 12))
    return found.dtype == bool and found.shape[1:] == (9, 12)


def references(given):
    """Every sentence is one row, with an answer or a reason; what one row lacks costs no other."""
    import warnings

    from refdiff_lite.datasets.records import build_samples

    warnings.simplefilter("ignore")
    instances, refs = given
    samples = build_samples(instances, refs, lambda image: (Path("none.jpg"), None), "refcoco")
    rows = [(s, r) for s in samples for r in s.records]
    for sample, record in rows:
        json.dumps([record.text, sample.why_not(record), sample.digest()]).encode()
        assert sample.masks.shape[1:] == sample.size
        assert record.target >= 0
    return len({r.sent_id for _, r in rows}) == len(rows)


def pickled(content):
    from refdiff_lite.datasets.pickles import read_pickle

    path = Path(os.environ["FUZZ_FOLDER"]) / "refs.p"
    path.write_bytes(content)
    read_pickle(path)
    return True


def work(pipe):
    """Answer one example after the other, with what went wrong or nothing."""
    for target in (picture, expression, segmentation, some_masks, references):
        with contextlib.suppress(Exception):  # imports come before memory is bounded
            target(None)
    import refdiff_lite.datasets.pickles  # noqa: F401

    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    while True:
        try:
            target, given = pipe.recv()
        except EOFError:
            return
        signal.alarm(SECONDS)
        how = "answered"
        try:
            wrong = "" if globals()[target](given) else "an answer of another shape"
        except (ValueError, OSError) as error:
            how, told = "refused", str(error)
            short = len(told) < 12 or " at 0x" in told or "Traceback" in told
            ours = any("refdiff_lite" in f.filename for f in traceback.extract_tb(error.__traceback__)[-1:])
            wrong = "" if ours and not short else f"not worded by us: {type(error).__name__}: {told}"
        except BaseException:
            wrong = traceback.format_exc()
        signal.alarm(0)
        pipe.send((how, wrong))


class Second:
    """The second process; a new one where the last has died."""

    def __init__(self):
        self.process = None

    def ask(self, target, given):
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=work, args=(theirs,), daemon=True)
            self.process.start()
            theirs.close()
        self.pipe.send((target.__name__, given))
        try:
            how, wrong = self.pipe.recv()
            event(how)
        except EOFError:
            self.process.join()
            code, self.process = self.process.exitcode, None
            wrong = f"the process ended by signal {-code}" + (" after 10 s" if -code == signal.SIGALRM else "")
        assert not wrong, wrong


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    os.environ["FUZZ_FOLDER"] = str(tmp_path_factory.mktemp("fuzz"))
    yield Second()
    del os.environ["FUZZ_FOLDER"]


# What is handed in.

ODD = st.sampled_from(
    [None, True, -1, 0, 1, 9, 12, 2**31, 2**63, 10**400, -(2**70), 0.5, 1e308, "", "a", "\ud800", "\0", [], {}, [[]], [None], {"a": 1}]
) | st.integers() | st.floats() | st.text(max_size=8)  # fmt: skip
NESTED = st.recursive(ODD, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3))


@st.composite
def changed_bytes(draw, whole):
    """A sound file with bytes changed, cut out, put in or cut off."""
    content = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(0, len(content) - 1)) | st.integers(0, min(80, max(0, len(content) - 1))))
        kind = draw(st.sampled_from(["set", "put", "cut", "off"]))
        if kind == "set":
            content[at : at + 1] = draw(st.binary(min_size=1, max_size=4) | st.just(b"\xff\xff\xff\xff"))
        elif kind == "put":
            content[at:at] = draw(st.binary(max_size=12))
        elif kind == "cut":
            del content[at : at + draw(st.integers(1, 40))]
        else:
            del content[max(at, 8) :]
    return bytes(content)


@st.composite
def changed(draw, whole):
    """Nested lists and dictionaries with some of their parts replaced, removed or doubled."""
    root = [copy.deepcopy(draw(whole))]
    for _ in range(draw(st.integers(0, 4))):
        place, key = root, 0
        while isinstance(place[key], (list, dict)) and place[key] and draw(st.integers(0, 5)):
            place = place[key]
            key = draw(st.sampled_from(sorted(place, key=str) if isinstance(place, dict) else range(len(place))))
        kind = draw(st.sampled_from(["set", "set", "remove", "double"]))
        if kind == "set" or place is root:
            place[key] = copy.deepcopy(draw(NESTED))
        elif kind == "remove":
            del place[key]
        elif isinstance(place, list):
            place.insert(key, place[key])
    return root[0]


@st.composite
def encoded_picture(draw):
    from PIL import Image

    mode = draw(st.sampled_from(["RGB", "L", "P", "1", "RGBA", "LA", "I;16", "I", "F", "CMYK", "YCbCr"]))
    size = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    image = (
        Image.frombytes("L", size, bytes(i * i % 251 for i in range(size[0] * size[1])))
        .convert("RGB" if mode in ("YCbCr", "CMYK", "RGBA", "P") else "L")
        .convert(mode)
    )
    formats = {
        "I;16": ["PNG", "TIFF"],
        "I": ["TIFF"],
        "F": ["TIFF"],
        "CMYK": ["TIFF", "JPEG"],
        "YCbCr": ["JPEG", "TIFF"],
        "LA": ["PNG"],
        "RGBA": ["PNG", "WEBP", "TIFF"],
        "1": ["PNG", "TIFF", "BMP"],
    }
    file, kind = io.BytesIO(), draw(st.sampled_from(formats.get(mode, ["PNG", "TIFF", "BMP", "GIF"])))
    more = {}
    if kind in ("JPEG", "PNG", "WEBP", "TIFF") and draw(st.booleans()):
        more["exif"] = (
            b"Exif\0\0II*\0\x08\0\0\0"
            + struct.pack("<HHHIHH", 1, 0x0112, draw(st.integers(0, 9)), 1, draw(st.integers(0, 99)), 0)
            + draw(st.binary(max_size=20))
        )
    try:
        image.save(file, kind, **more)
    except Exception:
        image.save(file, kind)
    return file.getvalue()


@st.composite
def array(draw):
    shape = draw(
        st.lists(st.integers(0, 20), max_size=4) | st.tuples(st.just(9), st.just(12), st.sampled_from([1, 3, 4]))
    )
    kind = draw(
        st.sampled_from(
            "bool uint8 int8 uint16 int32 int64 float16 float32 float64 complex64 object U3 datetime64[s]".split()
        )
    )
    values = draw(
        st.lists(st.sampled_from([0, 1, 0.5, -1, 255, 256, 65535, 1e9, np.nan, np.inf]), min_size=1, max_size=4)
    )
    with np.errstate(all="ignore"):
        found = np.resize(np.array(values, object), tuple(shape))
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            found = found.astype(kind)
    return found.tolist() if draw(st.integers(0, 3)) == 0 else found


def compressed(runs):
    """COCO's text for run lengths; also for those that are none."""
    text = []
    for i, run in enumerate(runs):
        x = run - (runs[i - 2] if i > 2 else 0)
        more = True
        while more and len(text) < 4000:
            piece = x & 31
            x >>= 5
            more = x != (-1 if piece & 16 else 0)
            text.append(chr((piece | 32 * more) + 48))
    return "".join(text)


RUNS = st.lists(st.integers(0, 60) | st.sampled_from([108, 107, 2**40, -5]), max_size=12)
RUNS |= RUNS.map(lambda runs: [*runs, 108 - sum(runs)])  # that they fill the image is not enough
SOUND = [
    {"size": [9, 12], "counts": [50, 20, 38]},
    {"size": [9, 12], "counts": compressed([50, 20, 38])},
    [[1, 1, 8, 1, 8, 7]],
]
SEGMENTATION = st.one_of(
    changed(st.sampled_from(SOUND)),
    st.builds(lambda r: {"size": [9, 12], "counts": r}, RUNS),
    st.builds(lambda r: {"size": [9, 12], "counts": compressed(r)}, RUNS),
    st.builds(lambda t: {"size": [9, 12], "counts": t}, st.text("0123oPQ`_n~ ", max_size=40) | st.builds(lambda n: "o" * n, st.integers(0, 2000))),
    st.lists(st.lists(st.floats(-50, 50) | st.sampled_from([1e9, float("nan")]), max_size=9), max_size=4),
    st.builds(lambda n: [[0, 0, 9, 9] * n], st.integers(0, 20_000)),
)  # fmt: skip
SIZE = st.just((9, 12)) | st.tuples(*[st.sampled_from([9, 12, 0, -3, 10**6, 7000, 2.5, None])] * 2)
INSTANCES = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "height": 9, "width": 12},
        {"id": 2, "file_name": "b.jpg", "height": 9, "width": 12},
    ],
    "categories": [{"id": 3, "name": "cat"}],
    "annotations": [
        {"id": i, "image_id": 1 + i // 2, "category_id": 3, "segmentation": s} for i, s in enumerate(SOUND)
    ],
}
REFS = [
    {
        "ref_id": i,
        "ann_id": i,
        "image_id": 1 + i // 2,
        "split": "val",
        "sentences": [{"sent_id": 2 * i + j, "sent": "the cat"} for j in (0, 1)],
    }
    for i in range(3)
]
INSTANCES, REFS = json.loads(json.dumps(INSTANCES)), json.loads(json.dumps(REFS))
OPCODES = [op.code.encode("latin1") for op in pickletools.opcodes]
# Sizes and places in the memo that ask for memory, lists and dictionaries that hold one another.
GREEDY = [code + n for code in (b"r", b"j", b"B", b"X", b"T") for n in (b"\xff\xff\xff\x7f", b"\xff\xff\xff\0")] + [
    b"]q\0", b"h\0", b"(h\0h\0h\0h\0l", b"q\0", b"a", b"e", b"(", b"}", b"s", b"0", b"2", b"\x8a\xff" + b"\x7f" * 255, b"N"
]  # fmt: skip


@fuzzed
@given(source=changed_bytes(encoded_picture()))
def test_encoded_pictures(second, source):
    second.ask(picture, source)


@fuzzed
@given(source=array() | NESTED)
def test_pictures_in_memory(second, source):
    second.ask(picture, source)


WORDS = "the a left right dog two red car(s) 2nd orange, with w/ of : (car:1.3) – next-to in front who's none 'café' \n\t".split(
    " "
)


@fuzzed
@given(text=st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=200) | st.builds(lambda t, n: t * n, st.text(max_size=5), st.integers(0, 20_000)) | ODD)  # fmt: skip
def test_expressions(second, text):
    second.ask(expression, text)


@fuzzed
@given(found=SEGMENTATION, size=SIZE)
def test_segmentations(second, found, size):
    second.ask(segmentation, (found, size))


@fuzzed
@given(masks=array() | SEGMENTATION | st.lists(SEGMENTATION, max_size=3))
def test_masks(second, masks):
    second.ask(some_masks, masks)


@fuzzed
@given(content=changed(st.just(INSTANCES)).map(lambda x: json.dumps(x).encode()) | changed_bytes(st.just(json.dumps(INSTANCES).encode())))  # fmt: skip
def test_annotations_for_the_oracle(second, content):
    second.ask(oracle, content)


@fuzzed
@given(instances=changed(st.just(INSTANCES)), refs=changed(st.just(REFS)))
def test_references(second, instances, refs):
    second.ask(references, (instances, refs if isinstance(refs, list) else [refs]))


@fuzzed
@given(content=changed_bytes(st.sampled_from([pickle.dumps(REFS, p) for p in range(6)])) | st.lists(st.sampled_from(OPCODES) | st.sampled_from(GREEDY) | st.binary(max_size=9), max_size=40).map(lambda x: b"".join(x) + b"."))  # fmt: skip
def test_pickles(second, content):
    second.ask(pickled, content)
