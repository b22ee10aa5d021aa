"""What a run evaluates, with what: refused with words before any network is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..config import BASELINES, PROPOSALS, VARIANTS, ProposalKind, RefDiffConfig
from ..datasets import Sample
from .journal import code_digest

METHODS = (*VARIANTS, *BASELINES)


@dataclass(frozen=True)
class Plan:
    """Images, methods and constants of a run; made by :func:`make_plan`.

    Attributes:
        data: the images that have expressions. chosen: the first of them, as many as the limit says.
        mine: every n-th of these, from the i-th on, for the shard (i, n).
        about: what the summary says of the data.
    """

    data: list[Sample]
    chosen: list[Sample]
    shard: tuple[int, int]
    variants: list[str]
    proposals: ProposalKind
    config: RefDiffConfig
    about: dict[str, Any]

    @property
    def mine(self) -> list[Sample]:
        return self.chosen[self.shard[0] - 1 :: self.shard[1]]

    @property
    def identity(self) -> dict[str, Any]:
        """What the results depend on, but for networks; any change of it makes another run."""
        from ..networks.compat import versions

        return {
            "data": {k: self.about[k] for k in ("data", "split", "split_by", "style") if k in self.about},
            "variants": self.variants,
            "proposals": self.proposals,
            "config": self.config.to_dict(),
            "code": code_digest(),
            "versions": versions(),
        }


def make_plan(
    data: Sequence[Sample],
    variants: Sequence[str],
    proposals: ProposalKind,
    config: RefDiffConfig,
    about: dict[str, Any] | None = None,
    limit: int | None = None,
    shard: tuple[int, int] = (1, 1),
) -> Plan:
    """Check what is asked for; the arguments are those of :func:`run.evaluate`. A variant that comes twice counts once.

    Raises:
        ValueError: an unknown variant or generator of proposals; nothing to evaluate; an image, or a sentence of one,
            comes twice in the data.
    """
    if unknown := [v for v in variants if v not in METHODS]:
        raise ValueError(f"unknown variant {unknown[0]!r}: choose among {', '.join(METHODS)}")
    if not variants:
        raise ValueError(f"no variant is given: choose among {', '.join(METHODS)}")
    if proposals not in PROPOSALS:
        raise ValueError(f"unknown proposals {proposals!r}: choose one of {', '.join(PROPOSALS)}")
    if limit is not None and limit < 1:
        raise ValueError(f"a limit of {limit} images leaves nothing to evaluate: take 1 or more, or none for all")
    if not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"there is no shard {shard[0]}/{shard[1]}: write i/n with i from 1 to n")
    for number, times in Counter(s.image_id for s in data).items():
        if times > 1:
            raise ValueError(f"image {number} comes {times} times in the data, and would count as often: keep one")
    for s in data:
        if len({r.sent_id for r in s.records}) < len(s.records):
            raise ValueError(f"two sentences of image {s.image_id} have the same sent_id: give each its own")
    said = [s for s in data if s.records]
    if not said:
        raise ValueError(f"none of the {len(data)} images has an expression to evaluate: check split and style")
    chosen = said[:limit]
    if shard[0] > len(chosen):
        raise ValueError(
            f"shard {shard[0]}/{shard[1]} of {len(chosen)} images is empty: take at most {len(chosen)} shards, or "
            "raise the limit"
        )
    about = {"data": "custom", "split": "–"} | (about or {})
    return Plan(said, chosen, shard, list(dict.fromkeys(variants)), proposals, config, about)
