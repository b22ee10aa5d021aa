"""Quizzes: ten questions each, four different choices, each explained, and no letter that is always right."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUIZZES = sorted((ROOT / "teaching" / "quizzes").glob("*.md"))


def test_every_lesson_has_one():
    lessons = {p.stem[:2] for p in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    assert {quiz.stem for quiz in QUIZZES} == lessons


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
        wrong = re.split(r"\*Not ([a-d]):\*", answer[2])[1:]
        assert all(len(told.split()) >= 3 for told in wrong[1::2]), question
        assert sorted(wrong[::2]) == sorted(set("abcd") - {answer[1]}), question
    assert len({q.split("\n")[0] for q in questions}) == 10
    assert max(Counter(letters).values()) <= 4
