import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import refdiff_lite
from refdiff_lite.files import data_dir

ROOT = Path(__file__).parents[1]


def test_environment_lists_the_projects_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert pip == {"pip": [*project["dependencies"], "-e .[dev,teach]"]}
    assert f"python{project['requires-python']}" in conda


def test_data_dir_of_a_clone():
    assert data_dir() == ROOT / "data"
    assert (data_dir() / "toyref" / "sprites" / "LICENSE").is_file()


def test_data_that_are_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(refdiff_lite.files, "_PACKAGE", tmp_path / "refdiff_lite")
    with pytest.raises(FileNotFoundError, match="install refdiff-lite again"):
        data_dir()
    (tmp_path / "data" / "toyref").mkdir(parents=True)
    assert data_dir() == tmp_path / "data"
    (tmp_path / "refdiff_lite" / "_data" / "toyref").mkdir(parents=True)
    assert data_dir() == tmp_path / "refdiff_lite" / "_data"  # a wheel's own data come first


CHECK = """
from pathlib import Path
import refdiff_lite
from refdiff_lite.datasets.toyref import SPLITS, load_toyref
from refdiff_lite.files import data_dir
print(refdiff_lite.__version__)
print(data_dir())
print([len(load_toyref(split)) for split in SPLITS])
print(all(s.path.is_file() for split in SPLITS for s in load_toyref(split, limit=3)))
"""


@pytest.mark.slow
def test_a_wheel_brings_its_data_and_segments(tmp_path):
    """Built, installed and read from elsewhere, so that nothing of the clone is seen."""
    wheels, target, elsewhere = tmp_path / "wheels", tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()

    def python(*args, **kwargs):
        done = subprocess.run([sys.executable, *args], capture_output=True, text=True, **kwargs)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    python("-m", "build", "--no-isolation", "--wheel", "--outdir", str(wheels), str(ROOT), cwd=elsewhere)
    (wheel,) = wheels.glob("refdiff_lite-*.whl")
    python("-m", "pip", "install", "--no-deps", "--quiet", "--target", str(target), str(wheel), cwd=elsewhere)
    environment = os.environ | {"PYTHONPATH": str(target)}
    version, folder, counts, images = python("-c", CHECK, cwd=elsewhere, env=environment).splitlines()
    assert version == refdiff_lite.__version__
    assert Path(folder) == target / "refdiff_lite" / "_data"
    assert (counts, images) == ("[160, 160, 60]", "True")
    installed, ours = (
        {p.relative_to(root) for p in root.rglob("*") if p.is_file() and ".partial" not in str(p)}
        for root in (Path(folder), ROOT / "data")
    )
    assert installed == ours
    image = target / "refdiff_lite" / "_data" / "toyref" / "test" / "images" / "030000.jpg"
    python("-m", "refdiff_lite.cli", "segment", str(image), "the car on the right", cwd=elsewhere, env=environment)
    assert (elsewhere / "out" / "mask.png").is_file()
