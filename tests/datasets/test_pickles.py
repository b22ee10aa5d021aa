"""Pickles as REFER wrote them, and pickles that want more than to hold data."""

import os
import pickle
import time

import numpy as np
import pytest
from builders import Evil, as_pickle, family

from refdiff_lite.datasets import pickles
from refdiff_lite.datasets.pickles import read_pickle


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_pickles_of_every_age(tmp_path, protocol):
    as_pickle(tmp_path, protocol=protocol)
    assert read_pickle(tmp_path / "refcoco" / "refs(unc).p") == family()[1]


def test_a_pickle_as_python_2_wrote_it(tmp_path):
    """Byte strings (opcode U) are latin1, unicode (opcode X) is UTF-8, long is int."""
    path = tmp_path / "refs(unc).p"
    path.write_bytes(
        b"\x80\x02]q\x00}q\x01(U\x04sentq\x02U\x03caf\x00U\x02idq\x03\x8a\x01\x05X\x01\x00\x00\x00sX\x02\x00\x00\x00\xc3\xb1ua.".replace(
            b"caf\x00", b"ca\xe9"
        )
    )
    assert read_pickle(path) == [{"sent": "caé", "id": 5, "s": "ñ"}]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (Evil(os.system, "touch {}"), "posix.system"),
        (Evil(eval, "open('{}', 'w')"), r"(builtins|__builtin__)\.eval"),
        (Evil(getattr, "x", "y"), r"(builtins|__builtin__)\.getattr"),
        (Evil(np.zeros, 3), "zeros"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_is_refused_by_name_and_runs_nothing(tmp_path, call, named, protocol):
    trace = tmp_path / "trace"
    call.args = tuple(a.format(trace) if isinstance(a, str) else a for a in call.args)
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([call], protocol=protocol))
    with pytest.raises(ValueError, match=named):
        read_pickle(tmp_path / "refs(unc).p")
    assert not trace.exists()


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02]q\x00}", b"hello", b"\x80\x02cfoo\nbar\n.", b"\x80\x02Pwhere\n.", b"\x80\x02\x82\x01."]
)
def test_a_damaged_pickle_is_one_line(tmp_path, content):
    (tmp_path / "x.p").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.p is refused"):
        read_pickle(tmp_path / "x.p")


def laughs():
    """A list that holds a list twice that holds a list twice ..."""
    found = b"\x80\x02]q\x00"
    for i in range(100):
        found += b"]q" + bytes([i + 1]) + b"(h" + bytes([i]) + b"h" + bytes([i]) + b"e"
    return found + b"."


def endless_hash():
    """A tuple that holds a tuple twice that holds ..., as the key of a dictionary."""
    found = b"\x80\x02})q\x00"
    for i in range(100):
        found += b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1])
    return found + b"Ns."


def meeting_hashes():
    numbers = (n * (2**61 - 1) for n in range(1, 200_000))
    return b"\x80\x02}(" + b"".join(b"\x8a\x18" + n.to_bytes(24, "little") + b"N" for n in numbers) + b"u."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80\x02Nr\xff\xff\xff\x0f.", "memo index 268435455"),
        (b"Np999999999\n.", "memo index 999999999"),
        (b"\x96\xff\xff\xff\x0f\0\0\0\0", "no data"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "cut short"),
        (b"\x80\x04\x95\xff\xff\xff\xff\x01\0\0\0].", "truncated"),
        (b"T\xff\xff\xff\x7f.", "cut short"),
        (laughs(), "over and over"),
        (b"\x80\x02]q\0h\0a.", "over and over"),
        (endless_hash(), "twice"),
        (meeting_hashes(), "beyond any id"),
        (b"L" + b"9" * 100_000 + b"L\n.", "beyond any id"),
        (b"\x80\x02]2.", "no data"),
        (b"\x80\x02}]b.", "no data"),
    ],
)
def test_a_pickle_that_asks_for_memory_or_time_is_refused_at_once(tmp_path, content, said):
    (tmp_path / "x.p").write_bytes(content)
    start = time.process_time()
    with pytest.raises(ValueError, match=rf"x\.p is refused: .*{said}"):
        read_pickle(tmp_path / "x.p")
    assert time.process_time() - start < 1


def test_limits_of_size(tmp_path, monkeypatch):
    (tmp_path / "x.p").write_bytes(pickle.dumps(family()[1]))
    monkeypatch.setattr(pickles, "MAX_STEPS", 20)
    with pytest.raises(ValueError, match="more than 20 parts"):
        read_pickle(tmp_path / "x.p")
    monkeypatch.setattr(pickles, "MAX_BYTES", 100)
    with pytest.raises(ValueError, match="larger than"):
        read_pickle(tmp_path / "x.p")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_what_a_pickle_may_share_and_hold(tmp_path, protocol):
    tokens = ["the", "man"]
    content = [{"tokens": tokens, "box": (1.5, -2, (3,)), "flags": [True, None, 2**62]}, {"tokens": tokens}, "é人"]
    (tmp_path / "x.p").write_bytes(pickle.dumps(content, protocol=protocol))
    assert read_pickle(tmp_path / "x.p") == content
    (tmp_path / "x.p").write_bytes(b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".")
    assert len(read_pickle(tmp_path / "x.p")) == 1
