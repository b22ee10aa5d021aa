"""Checks of the lessons' exercises: one line when the answer is right, one helpful line when it is not.

A :class:`Check` knows the right answer and the usual mistakes. A mistake that it recognises is named; that each
mistake is caught is what the tests assert. One module per lesson, with the lesson's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from math import isclose, isnan
from typing import Any

import numpy as np
import torch

Answer = Any
"""A function that the student wrote, or a value."""


class CheckFailed(AssertionError):
    """An exercise is not solved yet. A notebook shows its one line, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"✗ {self}"]


def _plain(x: Any) -> Any:
    """An answer as Python's own lists, numbers and strings, so that the type that carries a value does not matter."""
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu().numpy()
    if isinstance(x, np.ndarray | np.generic):
        return _plain(x.tolist())
    if isinstance(x, Mapping):
        return {_plain(key): _plain(value) for key, value in x.items()}
    if isinstance(x, str):
        return x.strip(" \t\n().:\"'").casefold()
    return [_plain(y) for y in x] if isinstance(x, Sequence) else x


def same(a: Any, b: Any, tolerance: float = 1e-4) -> bool:
    """Whether answer ``a`` has the value of ``b``, whatever its type: "(C)" is "c", a 0-d tensor a number, a tuple a list.

    Floats agree within the tolerance (relative and absolute); integers, truth values and strings exactly.
    """
    return _same(_plain(a), _plain(b), tolerance)


def _same(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(b, dict):
        return isinstance(a, dict) and a.keys() == b.keys() and all(_same(a[k], b[k], tolerance) for k in b)
    if isinstance(b, list):
        if isinstance(a, str) and len(b) == 1:  # ("right") is no tuple, but it is meant as one
            a = [a]
        return (
            isinstance(a, list) and len(a) == len(b) and all(_same(x, y, tolerance) for x, y in zip(a, b, strict=True))
        )
    if isinstance(b, int | float):
        if not isinstance(a, int | float) or (isinstance(a, bool) and not isinstance(b, bool)):
            return False
        close = isclose(a, b, rel_tol=tolerance, abs_tol=tolerance) or (isnan(a) and isnan(b))
        return close if isinstance(b, float) else a == b
    return bool(type(a) is type(b) and a == b)


def _show(x: Any) -> str:
    if isinstance(x, torch.Tensor | np.ndarray) and x.ndim:
        values = x.detach().cpu() if isinstance(x, torch.Tensor) else x
        return f"shape {tuple(x.shape)}, first values {np.asarray(values, float).ravel()[:3].round(3).tolist()}"
    x = _plain(x)
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
            made = [mistake(*deepcopy(case)) if callable(mistake) else mistake for _, _, case in results]
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
                got, want = answer(*deepcopy(case)), self.right(*deepcopy(case))
            except NotImplementedError:
                name = getattr(answer, "__name__", "the function")
                raise CheckFailed(f"{name} is not filled in yet: replace the line with Todo by your code") from None
        if got is ... or (isinstance(got, dict) and ... in got.values()):
            raise CheckFailed("not filled in yet: replace the ... by your answer")
        if got is None:
            raise CheckFailed("the answer is None: does the function return its result?")
        return got, want, case or ()


class Guess:
    """A prediction to commit to before a later cell measures it. It is noted, never graded: being wrong is how one learns.

    Args:
        about: what is predicted, as the reply names it.
        choices: the letters to choose from; empty asks for a number.
    """

    def __init__(self, about: str, choices: str = "") -> None:
        self.about, self.choices = about, choices
        self.noted: Answer = None

    def __call__(self, guess: Answer) -> None:
        """Note the guess.

        Raises:
            CheckFailed: it is missing, or not one of the choices, or no number.
        """
        self.noted, plain = None, _plain(guess)
        if guess is ...:
            raise CheckFailed("no guess yet: replace the ... by yours, it cannot be wrong")
        if self.choices and not (isinstance(plain, str) and len(plain) == 1 and plain in self.choices):
            raise CheckFailed(f"choose one of the letters {', '.join(self.choices)}")
        if not self.choices and (isinstance(plain, bool) or not isinstance(plain, int | float)):
            raise CheckFailed("a number, please")
        self.noted = plain
        print(f"✓ noted, {self.about}: {plain}. Run on to see what is measured")

    def against(self, measured: Answer) -> None:
        """Print what was measured beside what was guessed; nothing depends on either."""
        guessed = "no guess was made" if self.noted is None else f"the guess was {self.noted}"
        shown = f"{measured:.3g}" if isinstance(measured, float) else measured
        print(f"{self.about}: measured {shown}, {guessed}")
