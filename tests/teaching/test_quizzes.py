"""Quizzes: ten questions each, four different choices, one explained answer, and no letter that is always right."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUIZZES = sorted((ROOT / "teaching" / "quizzes").glob("*.md"))


@pytest.mark.parametrize("quiz", QUIZZES, ids=lambda p: p.stem)
def test_a_quiz_is_whole(quiz):
    text = quiz.read_text(encoding="utf-8")
    (lesson,) = (ROOT / "notebooks").glob(f"{quiz.stem}_*.ipynb")
    assert lesson.name in text
    questions = re.split(r"^## \d+ · ", text, flags=re.MULTILINE)[1:]
    assert len(questions) == 10
    letters = []
    for question in questions:
        choices = re.findall(r"^- \*\*([a-d])\.\*\* (.+)$", question, re.MULTILINE)
        assert [letter for letter, _ in choices] == list("abcd"), question
        assert len({told for _, told in choices}) == 4, question
        answer = re.search(r"<summary>Answer</summary>\s+\*\*([a-d])\.\*\* (.+?)</details>", question, re.DOTALL)
        assert answer, question
        assert len(answer[2].split()) >= 5, question
        letters.append(answer[1])
    assert len({q.split("\n")[0] for q in questions}) == 10
    assert max(Counter(letters).values()) <= 4
