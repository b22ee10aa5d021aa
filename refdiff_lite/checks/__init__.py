"""Checks of the lessons' exercises: one line when the answer is right, one helpful line when it is not.

A :class:`Check` knows the right answer and the usual mistakes. A mistake that it recognises is named; that each
mistake is caught is what the tests assert. One module per lesson, with the lesson's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

Answer = Any
"""A function that the student wrote, or a value."""


class CheckFailed(AssertionError):
    """An exercise is not solved yet. A notebook shows its one line, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"✗ {self}"]


def same(a: Any, b: Any, tolerance: float = 1e-4) -> bool:
    """Whether two answers agree: same kind and shape, numbers within the tolerance (relative and absolute)."""
    if isinstance(b, torch.Tensor | np.ndarray):
        if not isinstance(a, torch.Tensor | np.ndarray) or tuple(a.shape) != tuple(b.shape):
            return False
        return bool(np.allclose(np.asarray(a, float), np.asarray(b, float), rtol=tolerance, atol=tolerance))
    if isinstance(b, Mapping):
        return isinstance(a, Mapping) and a.keys() == b.keys() and all(same(a[k], b[k], tolerance) for k in b)
    if isinstance(b, Sequence) and not isinstance(b, str):
        both = isinstance(a, Sequence) and not isinstance(a, str) and len(a) == len(b)
        return both and all(same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if isinstance(b, float) and not isinstance(a, str):
        try:
            return bool(abs(float(a) - b) <= tolerance * (1 + abs(b)))
        except (TypeError, ValueError):
            return False
    return bool(type(a) is type(b) and a == b)


def _show(x: Any) -> str:
    if isinstance(x, torch.Tensor | np.ndarray):
        first = np.asarray(x, float).ravel()[:3].round(3).tolist()
        return f"shape {tuple(x.shape)}, first values {first}"
    return f"{x:.4g}" if isinstance(x, float) else repr(x)


class Check:
    """Compare an answer with the right one; call it with the student's function or value.

    Args:
        right: the right function, or the right value.
        mistakes: what is said of a mistake -> the wrong function or value; at least two.
        done: what is said of a right answer; a sentence that is worth reading.
        cases: arguments to call the functions with, one tuple per call; small and seeded.
        tolerance: relative and absolute.
    """

    def __init__(
        self,
        right: Answer,
        mistakes: Mapping[str, Answer],
        done: str,
        cases: Sequence[tuple] | Callable[[], Sequence[tuple]] = (),
        tolerance: float = 1e-4,
    ) -> None:
        self.right, self.mistakes, self.done, self.tolerance = right, mistakes, done, tolerance
        self._cases = cases

    @property
    def cases(self) -> Sequence[tuple]:
        return self._cases if isinstance(self._cases, Sequence) else self._cases()

    def __call__(self, answer: Answer) -> None:
        """Print one line if the answer is right.

        Raises:
            CheckFailed: with one line that says what is wrong, or that the exercise is not filled in.
        """
        if callable(self.right) and not callable(answer):
            raise CheckFailed(f"give the function itself, not {_show(answer)}: check(my_function), without brackets")
        results = [self._one(answer, case) for case in (self.cases if callable(self.right) else [None])]
        wrong = next(((got, want, case) for got, want, case in results if not same(got, want, self.tolerance)), None)
        if wrong is None:
            print(f"✓ {self.done}")
            return
        for message, mistake in self.mistakes.items():
            made = [mistake(*case) if callable(mistake) else mistake for _, _, case in results]
            if all(same(got, m, self.tolerance) for (got, _, _), m in zip(results, made, strict=True)):
                raise CheckFailed(message)
        got, want, _ = wrong
        expected = f" where {_show(want)} is right" if callable(self.right) else ", look at the hint"
        raise CheckFailed(f"not yet: got {_show(got)}{expected}")

    def _one(self, answer: Answer, case: tuple | None) -> tuple[Any, Any, tuple]:
        if case is None:
            got, want = answer, self.right
        else:
            try:
                got, want = answer(*case), self.right(*case)
            except NotImplementedError:
                name = getattr(answer, "__name__", "the function")
                raise CheckFailed(
                    f"{name} is not filled in yet: replace the NotImplementedError by your code"
                ) from None
        if got is ... or (isinstance(got, dict) and ... in got.values()):
            raise CheckFailed("not filled in yet: replace the ... by your answer")
        if got is None:
            raise CheckFailed("the answer is None: does the function return its result?")
        return got, want, case or ()
