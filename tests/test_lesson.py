"""What the set-up cell of every lesson brings."""

import random
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from refdiff_lite import lesson as lesson_module


def test_a_claim_that_fails_stops_the_lesson_with_the_toy_networks_alone(capsys, monkeypatch):
    lesson_module.claim("two is more than one", 2 > 1)
    assert capsys.readouterr().out == "✓ two is more than one\n"
    with pytest.raises(AssertionError, match="one is more than two"):
        lesson_module.claim("one is more than two", 1 > 2)
    monkeypatch.setattr(lesson_module, "_preset", "sd15")
    lesson_module.claim("one is more than two", 1 > 2)
    assert capsys.readouterr().out == "✗ not with sd15: one is more than two\n"


def test_start_seeds_every_generator_and_says_where_it_runs(capsys):
    drawn = []
    for _ in range(2):
        lesson_module.start(seed=3)
        drawn.append((random.random(), np.random.random(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]
    assert "preset toy" in capsys.readouterr().out
    with pytest.raises(ValueError, match="unknown preset 'big'"):
        lesson_module.start("big")
    lesson_module.start("sd15")
    said = capsys.readouterr().out
    assert ("no GPU here: sd15 will take minutes" in said) == (not torch.cuda.is_available())
    lesson_module.start()


def test_a_picture_is_shown_with_its_text(monkeypatch):
    shown = []
    monkeypatch.setattr(lesson_module, "display", lambda figure, metadata: shown.append(metadata))
    plt.plot([1, 2])
    number = plt.gcf().number
    lesson_module.show("a line that rises")
    assert shown == [{"image/png": {"alt": "a line that rises"}, "image/jpeg": {"alt": "a line that rises"}}]
    assert not plt.fignum_exists(number)


def test_an_exercise_that_is_still_to_be_solved_is_one_line():
    (line,) = lesson_module.Todo()._render_traceback_()
    assert "needs your solution" in line


def test_a_photo_is_uploaded_in_colab_alone_and_a_cancelled_choice_is_told(monkeypatch, capsys):
    with pytest.raises(ValueError, match="works in Colab; here, write the path"):
        lesson_module.upload()
    for chosen, name, said in (({"me.jpg": b""}, "me.jpg", "me.jpg is here"), ({}, "", "no file was chosen")):
        files = SimpleNamespace(upload=lambda chosen=chosen: chosen)
        monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace(files=files))
        assert lesson_module.upload() == name
        assert said in capsys.readouterr().out
