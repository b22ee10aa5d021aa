"""Pickles that can do nothing but hold data, and that cost no more than their size lets expect."""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

MAX_BYTES = 128 * 2**20
"""Largest file that is read; REFER's have up to about 60 MiB."""
MAX_STEPS = 12_000_000
"""Most opcodes; REFER's files have up to about 7 million."""

_NAMES, _NUMBERS = ("GLOBAL", "STACK_GLOBAL", "INST"), ("INT", "LONG", "LONG1", "LONG4")
_PUTS, _GETS = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")
_SHARED = (
    "EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS STRING BINSTRING SHORT_BINSTRING UNICODE "
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8".split()
)
_OTHERS = (
    "PROTO FRAME MARK STOP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 FLOAT BINFLOAT EMPTY_TUPLE TUPLE TUPLE1 "
    "TUPLE2 TUPLE3 MEMOIZE".split()
)
_REFUSED, _LINE = -3, -2
_COUNTED = {pickletools.TAKEN_FROM_ARGUMENT1: -1, pickletools.TAKEN_FROM_ARGUMENT4: -4,
            pickletools.TAKEN_FROM_ARGUMENT4U: -4, pickletools.TAKEN_FROM_ARGUMENT8U: -8}  # fmt: skip
_CODE = {op.name: ord(op.code) for op in pickletools.opcodes}
_WIDTH = [_REFUSED] * 256
"""By opcode, what stands behind it: so many bytes, a line, or a text whose length stands there in 1, 4 or 8 bytes."""
for _op in pickletools.opcodes:
    if _op.name in (*_NAMES, *_NUMBERS, *_PUTS, *_GETS, *_SHARED, *_OTHERS):
        _n = _op.arg.n if _op.arg else 0
        _WIDTH[ord(_op.code)] = _n if _n >= 0 else _LINE if _n == pickletools.UP_TO_NEWLINE else _COUNTED[_n]
_PUT, _GET, _NUMBER, _MAY_SHARE, _END = (
    frozenset(_CODE[n] for n in names) for names in (_PUTS, _GETS, _NUMBERS, _SHARED, (*_NAMES, "STOP"))
)
_SPECIAL = _PUT | _GET | _NUMBER | _END | {_CODE["MEMOIZE"]}


class _PlainUnpickler(pickle.Unpickler):
    """Builds lists, dictionaries, text and numbers; every name in the pickle is refused before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, and only plain lists, texts and numbers are admitted")


def read_pickle(path: Path) -> Any:
    """Read a pickle, of Python 2 too, of lists, dictionaries, texts and numbers.

    Raises:
        FileNotFoundError, ValueError: no such file; it is damaged, larger than :data:`MAX_BYTES` and
            :data:`MAX_STEPS` allow, holds anything else, or repeats its parts without end.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; check the path")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is refused: it is larger than {MAX_BYTES // 2**20} MiB")
    data = path.read_bytes()
    try:
        _check(data)
        found = _PlainUnpickler(io.BytesIO(data), encoding="latin1").load()
        _check_tree(found, len(data))
        return found
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is refused: {error or 'it is cut short'}") from error
    except (MemoryError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is refused: it asks for too much memory") from error


def _check(data: bytes) -> None:
    """Walk over the opcodes before any of them is obeyed, up to a name, at which the unpickler itself stops.

    Refused are opcodes that do more than hold data; a memo index beyond the file's length, for the unpickler makes
    room up to it; a second use of a tuple, whose hash may take for ever when tuples hold each other twice; and
    numbers of more than 22 bytes, whose hashes can be made to meet.
    """
    at, size, before, memo = 0, len(data), -1, dict[int, int]()
    for _ in range(MAX_STEPS):
        if at >= size:
            raise pickle.UnpicklingError("it is cut short")
        code, start = data[at], at + 1
        width = _WIDTH[code]
        if width >= 0:
            at = start + width
        elif width == _LINE:
            at = data.find(b"\n", start) + 1 or size + 1
        elif width == _REFUSED:
            raise pickle.UnpicklingError(f"byte {at} of it is {data[at : at + 1]!r}, which holds no data")
        else:
            at = start - width + int.from_bytes(data[start : start - width], "little")
        if at > size:
            raise pickle.UnpicklingError("it is cut short")
        if code not in _SPECIAL:
            before = code
        elif code in _END:
            return
        elif code in _NUMBER:
            if at - start > 22:
                raise pickle.UnpicklingError("a number in it is beyond any id")
            before = code
        else:
            before = _remember(data[start:at], code, before, memo, size)
    raise pickle.UnpicklingError(f"it has more than {MAX_STEPS} parts")


def _remember(argument: bytes, code: int, before: int, memo: dict[int, int], size: int) -> int:
    """Follow the memo: which opcode made what lies on top of the stack."""
    if code == _CODE["MEMOIZE"]:
        memo[len(memo)] = before
        return before
    index = int(argument) if _WIDTH[code] == _LINE else int.from_bytes(argument, "little")
    if not 0 <= index <= size:
        raise pickle.UnpicklingError(f"its memo index {index} is beyond its length")
    if code in _GET:
        before = memo.get(index, -1)
        if before not in _MAY_SHARE:
            raise pickle.UnpicklingError("it uses something twice that is neither text, list nor dictionary")
    memo[index] = before
    return before


def _check_tree(found: Any, most: int) -> None:
    """Refuse lists that hold each other twice, or themselves: written out they would fill any memory."""
    waiting, seen = [found], 0
    while waiting:
        value = waiting.pop()
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        seen += len(inner)
        if seen > most:
            raise ValueError("its parts hold each other over and over")
        waiting.extend(v for v in inner if isinstance(v, (dict, list, tuple)))
