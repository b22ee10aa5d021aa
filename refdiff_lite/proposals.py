"""Lesson 5: where the candidate masks come from. Every generator returns (N, H, W) bool masks, N may be 0."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy.cluster.vq import kmeans2
from scipy.ndimage import binary_fill_holes, distance_transform_edt, find_objects, label
from skimage import graph
from skimage.color import rgb2lab
from skimage.filters import sobel
from skimage.morphology import h_maxima
from skimage.segmentation import felzenszwalb as _felzenszwalb
from skimage.segmentation import watershed
from torch import Tensor

from .attention import AttentionMaps, finest, finest_self_attention, resize
from .masks import cached, stack, unique
from .networks import Networks, hub


@dataclass(eq=False)
class Proposals:
    """Candidate masks of one image, with what later stages computed of exactly these masks.

    Attributes:
        kind: the generator that they come from.
        masks: (N, H, W) bool, none of them empty; N may be 0.
        image: (H, W, 3) uint8 RGB, the picture that they belong to.
        features: CLIP's features, kept by :func:`ranking.visual_features` under all that they depend on.
    """

    kind: str
    masks: torch.Tensor
    image: np.ndarray = field(repr=False)
    features: dict[tuple[Any, ...], torch.Tensor] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.masks)


def weak(word: Float[Tensor, "h w"], thresholds: int = 19) -> Bool[Tensor, "n h w"]:
    """The paper's weak proposals, no network needed: ``{c >= mu}`` for mu = 5 %, 10 %, …, 95 %.

    Args:
        word: map c, (H, W) in [0, 1].
    """
    levels = torch.arange(1, thresholds + 1, device=word.device) / (thresholds + 1)
    return word[None] >= levels[:, None, None]


def otsu_choice(word: Float[Tensor, "h w"], masks: Bool[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Between-class variance of c for each mask: ``p (1 - p) (mean inside - mean outside)^2`` (Otsu 1979).

    Unlike S_G it weighs the area p, so a mask of a few peak pixels does not win.

    Returns:
        (N,) float32.
    """
    flat = masks.flatten(1).float()
    p = flat.mean(1)
    inside = (flat * word.flatten()).mean(1)
    gap = inside / p.clamp_min(1e-8) - (word.mean() - inside) / (1 - p).clamp_min(1e-8)
    return p * (1 - p) * gap**2


def felzenszwalb(
    image: UInt8[np.ndarray, "h w 3"], scale: float = 5, edge: float = 9, min_area: float = 0.004
) -> Bool[Tensor, "n h w"]:
    """Objects on a calm ground, from colour alone: Felzenszwalb's segments, merged so that objects come out whole.

    Segments whose common border is no edge in the image are joined; the largest one is then the ground, and every
    connected region that is not ground is an object. A region with a waist is also split there by a watershed, for
    it may be two objects that touch. The numbers were chosen on ToyRef's training scenes.

    Args:
        image: (H, W, 3) uint8 RGB.
        scale: Felzenszwalb's k; larger gives larger segments.
        edge: mean gradient (CIELAB units a pixel) along a border, up to which two segments are joined.
        min_area: smallest proposal, as a share of the image.
    """
    lab = rgb2lab(image)
    edges = np.linalg.norm([sobel(lab[..., i]) for i in range(3)], axis=0)
    segments = _felzenszwalb(image, scale=scale, sigma=0.5, min_size=max(4, image.shape[0] * image.shape[1] // 2700))
    if segments.max() == 0:
        return stack([], image.shape[:2])
    merged = graph.cut_threshold(segments, graph.rag_boundary(segments, edges), edge)
    objects = binary_fill_holes(merged != np.bincount(merged.ravel()).argmax())
    regions, _ = label(objects)
    masks = []
    for number, box in enumerate(find_objects(regions), start=1):
        region = regions[box] == number
        if region.sum() < min_area * regions.size:
            continue
        depth = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
        pieces = watershed(-depth, label(h_maxima(depth, 2))[0], mask=region)
        parts = [pieces == k for k in range(1, pieces.max() + 1)] if pieces.max() > 1 else []
        for part in (region, *parts):
            if part.sum() >= min_area * regions.size:
                masks.append(np.zeros(regions.shape, bool))
                masks[-1][box] = part
    return stack(masks, image.shape[:2])


def grouping(image: UInt8[np.ndarray, "h w 3"], scale: float = 100, min_area: float = 0.004) -> Bool[Tensor, "n h w"]:
    """Objects on any ground: neighbouring segments are joined, most alike first, and whatever comes up is a proposal.

    Selective Search (Uijlings et al. 2013) in its fast form, with their constants, but without texture: segments of
    Felzenszwalb with k = 100; alike are two whose colours agree, that are small, and that fill their common box.

    Args:
        scale: Felzenszwalb's k. min_area: smallest proposal, as a share of the image.
    """
    segments = _felzenszwalb(image, scale=scale, sigma=0.8, min_size=max(4, image.shape[0] * image.shape[1] // 5000))
    count, total = int(segments.max()) + 1, segments.size
    bins = np.clip((rgb2lab(image) + np.array([0, 110, 110])) * np.array([25 / 100, 25 / 220, 25 / 220]), 0, 24).astype(
        int
    )
    colours = [np.bincount(segments.ravel() * 25 + bins[..., c].ravel(), minlength=25 * count) for c in range(3)]
    sizes = dict(enumerate(np.bincount(segments.ravel()).tolist()))
    histograms = dict(enumerate(np.concatenate([c.reshape(count, 25) for c in colours], 1) / 3.0))
    boxes = {i: (s[0].start, s[1].start, s[0].stop, s[1].stop) for i, s in enumerate(find_objects(segments + 1))}
    members = {i: [i] for i in range(count)}
    near: dict[int, set[int]] = {i: set() for i in range(count)}
    for a, b in ((segments[:, :-1], segments[:, 1:]), (segments[:-1], segments[1:])):
        for i, j in {*zip(a[a != b].tolist(), b[a != b].tolist(), strict=True)}:
            near[i].add(j)
            near[j].add(i)

    def unlike(i: int, j: int) -> float:
        shared = np.minimum(histograms[i] / sizes[i], histograms[j] / sizes[j]).sum()
        top, left, bottom, right = (
            f(*pair) for f, pair in zip((min, min, max, max), zip(boxes[i], boxes[j], strict=True), strict=True)
        )
        hole = (bottom - top) * (right - left) - sizes[i] - sizes[j]
        return -(shared + (1 - (sizes[i] + sizes[j]) / total) + (1 - hole / total))

    heap = [(unlike(i, j), i, j) for i in near for j in near[i] if i < j]
    heapify(heap)
    while heap:
        _, i, j = heappop(heap)
        if i not in near or j not in near:  # one of them has been joined already
            continue
        new = len(members)
        members[new] = members[i] + members[j]
        sizes[new], histograms[new] = sizes[i] + sizes[j], histograms[i] + histograms[j]
        boxes[new] = (*map(min, boxes[i][:2], boxes[j][:2]), *map(max, boxes[i][2:], boxes[j][2:]))
        near[new] = (near.pop(i) | near.pop(j)) - {i, j}
        for k in near[new]:
            near[k] = near[k] - {i, j} | {new}
            heappush(heap, (unlike(k, new), k, new))
    kept = [members[i] for i in members if min_area <= sizes[i] / total <= 0.6]
    return unique(stack([np.isin(segments, m) for m in kept], image.shape[:2]), 0.9)


def self_attention(
    attention: AttentionMaps, size: tuple[int, int], clusters: int = 6, seed: int = 0
) -> Bool[Tensor, "n h w"]:
    """Pixels that look at the same places, grouped: k-means on rows of self-attention, then connected regions.

    Args:
        attention: recorded with ``kind="self"``; its finest grid is used.
        size: (H, W) of the masks.
    """
    grid, rows = finest(attention.maps.values()), finest_self_attention(attention).cpu().numpy()
    _, ids = kmeans2(np.sqrt(rows), clusters, seed=np.random.default_rng(seed), minit="++")
    onehot = torch.nn.functional.one_hot(torch.from_numpy(ids).long(), clusters).T.reshape(clusters, *grid).float()
    labels = resize(onehot, size).argmax(0).numpy()
    masks = []
    for cluster in np.unique(labels):
        regions, count = label(labels == cluster)
        masks += [regions == i for i in range(1, count + 1)]
    return stack([m for m in masks if 0.004 <= m.mean() <= 0.5], size)


def kept_sam(image: UInt8[np.ndarray, "h w 3"], networks: Networks) -> Bool[Tensor, "n h w"]:
    """:func:`sam` by the preset's SAM, from disk if it has seen this image before."""
    points = 16 if networks.low_memory else 64  # a batch of 64 holds 3 × 64 masks at full size
    if networks.sam_id not in hub.WEIGHTS:  # a network of the user's own may change under the same name
        return sam(image, networks.use("sam"), points)
    about = {"sam": networks.sam_id, "revision": hub.WEIGHTS[networks.sam_id].revision, "dtype": str(networks.dtype)}
    return cached(image, about, lambda: sam(image, networks.use("sam"), points))


def sam(image: UInt8[np.ndarray, "h w 3"], generator: Any, points_per_batch: int = 64) -> Bool[Tensor, "n h w"]:
    """Segment Anything's automatic masks, near-duplicates removed.

    Args:
        generator: transformers' ``pipeline("mask-generation", model=...)``, with its defaults: 32 × 32 points,
            predicted IoU above 0.88, stability above 0.95, boxes that overlap by more than 0.7 suppressed.
    """
    masks = generator(Image.fromarray(image), points_per_batch=points_per_batch)["masks"]
    return unique(stack([np.asarray(torch.as_tensor(m).cpu(), dtype=bool) for m in masks], image.shape[:2]))
