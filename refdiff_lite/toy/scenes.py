"""ToyRef scenes: sprites on soft backgrounds, drawn from a seed, with the mask of every object.

A scene is small enough to know by heart and rich enough to need a referring expression: two to five
objects of 45 categories, often two of one kind that differ by tint, by size, or by place alone.
Sprites: Microsoft Fluent Emoji, 3D style (MIT licence, ``data/toyref/sprites/LICENSE``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
from PIL import Image
from skimage.color import hsv2rgb, rgb2hsv

from ..files import data_dir

SIDE = 128
"""Side of a scene in pixels."""
TINTS = {"red": 0.99, "yellow": 0.14, "green": 0.34, "blue": 0.60, "purple": 0.77, "pink": 0.91}
"""Colour word -> hue in [0, 1). "orange" is left to the fruit."""
TINTED = 0.2
"""Share of things in a colour that is not their own (of two that differ by tint alone, one always is)."""
SMALL, LARGE = 0.28, 0.36
"""Objects up to SMALL (a share of the side) are called "small", from LARGE on "large"."""
SPLIT_SEEDS = {"train": 1, "val": 2, "test": 3, "unseen": 4, "closeup": 5}
HELD_OUT = frozenset(
    {
        ("cat", "purple"),
        ("dog", "blue"),
        ("car", "green"),
        ("apple", "blue"),
        ("horse", "pink"),
        ("star", "purple"),
        ("fish", "red"),
        ("cup", "green"),
        ("boat", "pink"),
    }
)
"""(category, tint) pairs that no split but "unseen" ever draws."""


@dataclass(frozen=True)
class Thing:
    """One object: what it is and where. Lengths are shares of the scene's side, (x, y) its centre."""

    category: str
    tint: str | None
    size: float
    x: float
    y: float
    angle: float = 0.0
    mirror: bool = False

    @property
    def size_word(self) -> str | None:
        return "small" if self.size <= SMALL else "large" if self.size >= LARGE else None


@dataclass(frozen=True)
class ToyScene:
    """A drawn scene: ``image`` (H, W, 3) uint8 RGB, ``masks`` (N, H, W) bool, visible pixels of each thing."""

    things: tuple[Thing, ...]
    image: np.ndarray
    masks: np.ndarray


@lru_cache(maxsize=1)
def categories() -> tuple[str, ...]:
    """The 45 category names, sorted: one sprite file each."""
    return tuple(sorted(p.stem for p in (data_dir() / "toyref" / "sprites").glob("*.webp")))


@cache
def sprite(category: str, tint: str | None = None) -> Image.Image:
    """The 96-px RGBA sprite, recoloured if a tint is asked for (hue replaced; black and white stay)."""
    image = Image.open(data_dir() / "toyref" / "sprites" / f"{category}.webp").convert("RGBA")
    if tint is None:
        return image
    rgba = np.asarray(image).astype(np.float32) / 255
    hsv = rgb2hsv(rgba[..., :3])
    s, v = hsv[..., 1], hsv[..., 2]
    hsv[..., 0] = TINTS[tint]
    most = {"pink": 0.5, "green": 0.75}.get(tint, 0.9)
    hsv[..., 1] = np.clip(0.45 + 0.5 * s, 0, most) * np.clip((1.12 - v * (1 - s)) * 3, 0.25, 1)
    if tint in ("red", "yellow", "pink"):  # these words mean bright colours
        hsv[..., 2] = np.where(v > 0.3, 0.25 + 0.75 * v, v)
    rgb = np.concatenate([hsv2rgb(hsv), rgba[..., 3:]], axis=-1)
    return Image.fromarray((rgb * 255).round().astype(np.uint8))


@cache
def allowed_tints(category: str) -> tuple[str, ...]:
    """Tints that a person would tell apart from the category's natural colour."""
    rgba = np.asarray(sprite(category)).astype(np.float32) / 255
    hue, saturation, _ = rgb2hsv(rgba[rgba[..., 3] > 0.5][None, :, :3])[0].T

    def share(h: float) -> float:
        away = np.abs(hue - h)
        return float(((np.minimum(away, 1 - away) < 0.09) & (saturation > 0.35)).mean())

    return tuple(tint for tint, h in TINTS.items() if share(h) < 0.2)


def background(rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """A smooth gradient between 2×2 to 4×4 random colours, faint texture, faint noise: (side, side, 3) float in [0, 255]."""
    knots = int(rng.integers(2, 5))
    hsv = np.stack(
        [
            (rng.uniform() + rng.uniform(-0.08, 0.08, (knots, knots))) % 1,
            rng.uniform(0.12, 0.5, (knots, knots)),
            rng.uniform(0.55, 0.95) + rng.uniform(-0.12, 0.05, (knots, knots)),
        ],
        axis=-1,
    )
    base = Image.fromarray((hsv2rgb(hsv) * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    texture = Image.fromarray(rng.normal(0, rng.uniform(0.5, 3), (side // 8, side // 8)).astype(np.float32))
    out = np.asarray(base).astype(np.float32)
    out += np.asarray(texture.resize((side, side), Image.Resampling.BICUBIC))[..., None]
    return out + rng.normal(0, 1.5, out.shape)


def draw(things: tuple[Thing, ...], rng: np.random.Generator, side: int = SIDE, plain: bool = False) -> ToyScene:
    """Paint the things in order on a background (black if ``plain``)."""
    canvas = np.zeros((side, side, 3), np.float32) if plain else background(rng, side)
    masks = np.zeros((len(things), side, side), bool)
    for i, thing in enumerate(things):
        image = sprite(thing.category, thing.tint)
        if thing.mirror:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = max(4, round(thing.size * side))
        # Premultiplied alpha, or the invisible colour of transparent pixels bleeds into the rim.
        image = image.convert("RGBa").resize((pixels, pixels), Image.Resampling.BICUBIC).convert("RGBA")
        image = image.rotate(thing.angle, Image.Resampling.BICUBIC, expand=True)
        layer = Image.new("RGBA", (side, side))
        layer.paste(image, (round(thing.x * side - image.width / 2), round(thing.y * side - image.height / 2)))
        rgba = np.asarray(layer).astype(np.float32)
        alpha = rgba[..., 3:] / 255
        canvas = canvas * (1 - alpha) + rgba[..., :3] * alpha
        solid = alpha[..., 0] > 0.5
        masks[:i] &= ~solid
        masks[i] = solid
    return ToyScene(things, canvas.round().clip(0, 255).astype(np.uint8), masks)


def _place(rng: np.random.Generator, size: float, placed: list[Thing]) -> tuple[float, float] | None:
    """A centre where a square of this size stays inside and covers at most 12 % of any other's square."""
    for _ in range(60):
        x, y = rng.uniform(size / 2, 1 - size / 2, 2)
        if all(
            max(0, (size + t.size) / 2 - abs(x - t.x)) * max(0, (size + t.size) / 2 - abs(y - t.y))
            <= 0.12 * min(size, t.size) ** 2
            for t in placed
        ):
            return float(x), float(y)
    return None


def _kinds(rng: np.random.Generator, n: int) -> list[tuple[str, str | None, float]]:
    """(category, tint, size) of n things; in half of the scenes two are of one category."""

    def kind(category: str) -> tuple[str, str | None, float]:
        u = rng.uniform()  # a tint is drawn more often than used, so that TINTED changes colours and no layout
        tint = str(rng.choice(allowed_tints(category))) if u < 0.5 else None
        tint = None if u >= TINTED or (category, tint) in HELD_OUT else tint
        return category, tint, float(rng.uniform(0.22, 0.42))

    kinds = [kind(str(c)) for c in rng.choice(categories(), n, replace=False)]
    if n >= 2 and rng.uniform() < 0.5:
        category, tint, size = kinds[0]
        how = rng.uniform()
        if how < 0.5:  # told apart by tint
            others = [t for t in (None, *allowed_tints(category)) if t != tint and (category, t) not in HELD_OUT]
            kinds[1] = (category, others[rng.integers(len(others))], size)
        elif how < 0.8:  # told apart by size
            kinds[0] = (category, tint, float(rng.uniform(0.22, SMALL)))
            kinds[1] = (category, tint, float(rng.uniform(LARGE, 0.42)))
        else:  # twins: told apart by place alone
            kinds[1] = (category, tint, size)
    return kinds


def make_scene(split: str, index: int, side: int = SIDE) -> ToyScene:
    """Scene number ``index`` of a split; the same arguments always give the same pixels.

    ``closeup`` shows one object at 35 to 95 % of the side, half of them on black; ``unseen`` turns one
    thing of a scene into a held-out pair of category and tint.
    """
    if split not in SPLIT_SEEDS:
        raise ValueError(f"unknown split {split!r}; one of {', '.join(SPLIT_SEEDS)}")
    rng = np.random.default_rng([SPLIT_SEEDS[split], index])
    closeup = split == "closeup"
    n = 1 if closeup else int(rng.choice([2, 3, 4, 5], p=[0.2, 0.35, 0.3, 0.15]))
    kinds = _kinds(rng, n)
    if split == "unseen":
        pair = sorted(HELD_OUT)[rng.integers(len(HELD_OUT))]
        kinds = [*[k for k in kinds if k[:2] != pair][: n - 1], (*pair, kinds[-1][2])]
    things: list[Thing] = []
    for category, tint, size in sorted(
        kinds, key=lambda k: (k[:2] not in HELD_OUT, -k[2])
    ):  # big ones first: easier to place
        size = float(rng.uniform(0.35, 0.95)) if closeup else size
        if (at := _place(rng, size, things)) is None:
            continue
        things.append(
            Thing(category, tint, size, *at, angle=float(rng.uniform(-12, 12)), mirror=bool(rng.uniform() < 0.5))
        )
    if closeup:  # an object may reach over the edge, as in a crop
        shift = rng.uniform(-0.06, 0.06, 2)
        things = [replace(t, x=t.x + float(shift[0]), y=t.y + float(shift[1])) for t in things]
    return draw(tuple(things), rng, side, plain=closeup and rng.uniform() < 0.5)
