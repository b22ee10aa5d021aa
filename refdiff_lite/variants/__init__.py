"""What came after Ref-Diff, on the same stages and the same proposals: each idea a module, its constants beside it.

``refam`` (attention magnets), ``concept`` (similarity of attention outputs), ``hybridgl`` (relations and coherence on
CLIP's side), and ``relations``, which is ours. What a constant's text begins with says how sure it is: [P] the paper's
project page, [F] a figure there, [C] the authors' code, [I] inferred by us, [V] chosen on ToyRef val.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config import Variant
from ..expression import Expression
from ..proposals import Proposals
from . import concept, hybridgl, refam, relations
from .common import Scored

if TYPE_CHECKING:
    from ..scene import Scene

__all__ = ["Scored", "concept", "hybridgl", "refam", "relations", "score"]
_MODULES: dict[str, Any] = {"refam": refam, "concept": concept, "hybridgl": hybridgl, "relations": relations}


def score(variant: Variant, scene: Scene, expression: Expression, proposals: Proposals) -> Scored:
    """Scores of every proposal by a successor, with the constants that suit the scene's networks.

    Raises:
        ValueError: the networks cannot give what the variant reads; says which can.
    """
    module = _MODULES[variant]
    return module.score(scene, expression, proposals, module.constants(scene.model.networks.name))
