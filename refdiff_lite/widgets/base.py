"""What all explorers share: their data as one block of bytes, a still picture, and one self-contained HTML file."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import numpy as np
import traitlets
from IPython.display import display
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from ..files import write_text, write_whole
from ..viz import CMAP

EXPORT_BYTES = 4_000_000
"""An exported file is at most this long; base64 makes four bytes of three."""
DATA_BYTES = EXPORT_BYTES * 3 // 4 - 120_000
"""What an explorer may pack, so that its export stays within EXPORT_BYTES."""
_STATIC = Path(__file__).parent / "static"
_EXPORT = "\nexport default { render };\n"
_TYPES = {"u1": np.uint8, "f4": np.float32}
Index = dict[str, list[Any]]
"""Where an array lies in the block: name -> [type, shape, offset]."""


def pack(arrays: Mapping[str, np.ndarray]) -> tuple[Index, bytes]:
    """Arrays as one block of bytes and its index; each starts at a multiple of four, as JavaScript wants it.

    Args:
        arrays: uint8 or float32 of any shape, by name.
    """
    index: Index = {}
    block = bytearray()
    for name, array in arrays.items():
        kind = next((k for k, t in _TYPES.items() if array.dtype == t), None)
        if kind is None:
            raise TypeError(f"{name} is {array.dtype}; pack takes uint8 and float32")
        index[name] = [kind, list(array.shape), len(block)]
        block += np.ascontiguousarray(array).tobytes()
        block += bytes(-len(block) % 4)
    return index, bytes(block)


def unpack(index: Index, block: bytes) -> dict[str, np.ndarray]:
    """The inverse of :func:`pack`."""
    return {
        name: np.frombuffer(block, _TYPES[kind], int(np.prod(shape)), offset).reshape(shape)
        for name, (kind, shape, offset) in index.items()
    }


def quantise(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps (..., h, w) to 256 levels between each one's own least and greatest value.

    Returns:
        (..., h, w) uint8, and the ranges (..., 2) float32.
    """
    low, high = maps.min((-2, -1)), maps.max((-2, -1))
    span = np.maximum(high - low, 1e-12)[..., None, None]
    levels = np.round((maps - low[..., None, None]) / span * 255).astype(np.uint8)
    return levels, np.stack([low, high], -1).astype(np.float32)


def picture(image: np.ndarray, side: int = 512, quality: int = 92) -> np.ndarray:
    """An (H, W, 3) uint8 image as the bytes of a JPEG whose longer side is at most ``side``, (n,) uint8."""
    small = Image.fromarray(image)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality, subsampling=0)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def bits(masks: np.ndarray) -> np.ndarray:
    """(N, H, W) bool masks, eight pixels a byte, the first in the lowest bit: (N, ceil(H W / 8)) uint8."""
    return np.packbits(masks.reshape(len(masks), -1), axis=1, bitorder="little")


def palette() -> np.ndarray:
    """The 256 colours of every map, (256, 3) uint8: perceptually even, and clear to the colour-blind."""
    return (colormaps[CMAP](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def view_module(*names: str) -> str:
    """JavaScript of a view as a module: what all share, its own parts, and the export that a notebook asks for."""
    return "\n".join((_STATIC / f"{n}.js").read_text(encoding="utf-8") for n in ("base", "pictures", *names)) + _EXPORT


class Explorer(anywidget.AnyWidget):
    """One explorer. What it shows lies in ``_meta`` and ``_block``, what a person chose in its other traits.

    The model is the one truth: two views of one explorer stay in step, and Python reads the same traits.
    """

    _esm: ClassVar[str]
    _css = (_STATIC / "base.css").read_text(encoding="utf-8")
    _meta = traitlets.Dict().tag(sync=True)
    _block = traitlets.Bytes().tag(sync=True)
    _live = traitlets.Bool(True).tag(sync=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.on_msg(self._asked_by_a_view)

    def _asked_by_a_view(self, _: Any, content: Any, __: Any) -> None:
        """Send the arrays that a view asks for by name, or what was wrong, to all views; they know by the name."""
        name = content.get("ask") if isinstance(content, dict) else None
        if not isinstance(name, str):
            return
        try:
            index, block = pack(self.answer(name))
        except (ValueError, KeyError, IndexError) as error:
            self.send({"answer": name, "error": str(error)})
        else:
            self.send({"answer": name, "index": index}, [block])

    def answer(self, name: str) -> dict[str, np.ndarray]:
        """Arrays that a view asks the kernel for, beside those that it has.

        Raises:
            ValueError: nothing bears this name.
        """
        raise ValueError(f"{type(self).__name__} has nothing named {name!r}")

    def show(self, meta: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Hand new data to all views."""
        index, block = pack({"palette": palette(), **arrays})
        with self.hold_sync():
            self._meta = {**meta, "index": index}
            self._block = block

    def choose(self, **choices: Any) -> None:
        """Set several choices at once.

        Raises:
            TypeError: no such choice. traitlets.TraitError: a value out of its range.
        """
        known = {name for name in self.state() if not name.startswith("_")}
        if unknown := sorted(choices.keys() - known):
            raise TypeError(
                f"{type(self).__name__} has no {', '.join(unknown)}; choose among {', '.join(sorted(known))}"
            )
        for name, value in choices.items():
            setattr(self, name, value)

    def arrays(self) -> dict[str, np.ndarray]:
        """What the views draw from, by name."""
        return unpack(self._meta["index"], self._block)

    def close(self) -> None:
        """Let go of the views and of the layout, which ipywidgets would keep for ever."""
        if self.layout is not None:
            self.layout.close()
        super().close()

    def figure(self) -> Figure:
        """The still picture, for places where no widget can run."""
        raise NotImplementedError

    def still(self) -> bytes:
        """:meth:`figure` as PNG."""
        buffer = io.BytesIO()
        self.figure().savefig(buffer, format="png")
        return buffer.getvalue()

    def save_png(self, path: str | Path) -> Path:
        """Write :meth:`still`: what is shown, with what was chosen, as a picture."""
        write_whole(Path(path), lambda file: file.write_bytes(self.still()))
        return Path(path)

    def save_svg(self, path: str | Path) -> Path:
        """Write :meth:`figure` with text and axes as vectors; pictures stay pictures."""
        write_whole(Path(path), lambda file: self.figure().savefig(file, format="svg"))
        return Path(path)

    def _ipython_display_(self, **kwargs: Any) -> None:
        """Show the widget, and behind it the still picture as an output of its own.

        A saved notebook keeps the picture alone: where no kernel runs, the widget's output says "model not found", and
        nothing else in it is shown. While the widget is there, the page's style hides the picture.
        """
        bundle = self._repr_mimebundle_(**kwargs)
        if bundle is not None:
            display(bundle[0], metadata=bundle[1] if len(bundle) > 1 else {}, raw=True)
        still = {"image/png": base64.b64encode(self.still()).decode(), "text/plain": repr(self)}
        display(still, metadata={"image/png": {"alt": f"A still of {self!r}; run the cell to use it."}}, raw=True)

    def state(self) -> dict[str, Any]:
        """The synchronised traits that a view reads, without widget machinery and without the block."""
        ours = {name for cls in type(self).__mro__ if issubclass(cls, Explorer) for name in vars(cls)}
        ours -= {"_block", "_css", "_esm", "_anywidget_id"}
        return {n: getattr(self, n) for n in self.trait_names(sync=True) if n in ours}

    def kept(self) -> tuple[dict[str, Any], bytes]:
        """What an exported page holds: ``_meta`` and ``_block``, within DATA_BYTES."""
        return self._meta, self._block

    def to_html(self) -> str:
        """One page with everything inside; its policy forbids the browser any request."""
        meta, block = self.kept()
        data = json.dumps({**self.state(), "_meta": meta, "_live": False}, ensure_ascii=True).replace("<", "\\u003c")
        page = dict(
            title=html.escape(str(self._meta.get("title", type(self).__name__))),
            css=self._css,
            script=self._esm.removesuffix(_EXPORT) + (_STATIC / "page.js").read_text(encoding="utf-8"),
            data=data,
            told=html.escape(repr(self)),
            block=base64.b64encode(block).decode(),
        )
        room = EXPORT_BYTES - len(_PAGE.format(still="", **page))
        stills = (base64.b64encode(_small(self.still(), width)).decode() for width in (900, 450, 225))
        return _PAGE.format(still=next((s for s in stills if len(s) <= room), ""), **page)

    def save_html(self, path: str | Path) -> Path:
        """Write :meth:`to_html`, to be opened from disk or handed out.

        Raises:
            ValueError: the file would be longer than EXPORT_BYTES.
        """
        text = self.to_html()
        if len(text) > EXPORT_BYTES:
            raise ValueError(
                f"the page would have {len(text) / 1e6:.1f} MB, more than {EXPORT_BYTES / 1e6:.0f}; show fewer things"
            )
        write_text(Path(path), text)
        return Path(path)


def _small(png: bytes, width: int) -> bytes:
    """A picture as JPEG of at most this width, for readers without JavaScript."""
    with Image.open(io.BytesIO(png)) as image:
        image = image.convert("RGB")
        image.thumbnail((width, 4 * width))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>{css}</style>
</head>
<body class="rdl-page">
<main id="explorer">
<p>{told}. To explore it, switch JavaScript on. Here is how it begins:</p>
<img alt="{told}" src="data:image/jpeg;base64,{still}">
</main>
<script type="application/json" id="state">{data}</script>
<script type="application/octet-stream" id="block">{block}</script>
<script type="module">{script}</script>
</body>
</html>
"""
