"""How the page is put together, and what is said where something is missing."""

import hashlib
import subprocess
import sys

import pytest

from refdiff_lite.live import page


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REFDIFF_CACHE", str(tmp_path))
    return tmp_path


def test_a_script_cannot_end_itself():
    assert page._inline("a</script><!-- b") == "a<\\/script><\\!-- b"


def test_without_npm_it_says_what_to_install(cache, monkeypatch):
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    monkeypatch.setattr(page.shutil, "which", lambda name: None)
    with pytest.raises(OSError, match=r"refdiff-lite\[web\]"):
        page.runtime()


def test_another_archive_is_refused_and_removed(cache):
    (cache / "live").mkdir()
    kept = cache / "live" / f"onnxruntime-web-{page.RUNTIME}.tgz"
    kept.write_bytes(b"something else")
    with pytest.raises(OSError, match="not the one expected"):
        page.runtime()
    assert not kept.exists()


def test_npm_s_own_words_are_passed_on(cache, monkeypatch):
    monkeypatch.setattr(
        page, "_npm", lambda: [sys.executable, "-c", "import sys; sys.exit('no route to the registry')"]
    )
    with pytest.raises(OSError, match="no route to the registry"):
        page.runtime()


def test_a_fetched_archive_is_kept(cache, monkeypatch):
    digest = hashlib.sha256(b"tar").hexdigest()
    make = "import sys, pathlib; pathlib.Path(sys.argv[-1], 'some-package-1.0.tgz').write_bytes(b'tar')"
    monkeypatch.setattr(page, "_npm", lambda: [sys.executable, "-c", make])
    first = page.fetch("some-package", "1.0", digest)
    monkeypatch.setattr(page, "_npm", lambda: [sys.executable, "-c", "import sys; sys.exit(1)"])
    assert page.fetch("some-package", "1.0", digest) == first


@pytest.mark.slow
def test_the_types_that_the_comments_name_hold(tmp_path):
    """TypeScript reads the page's JavaScript; any error in it is an error here."""
    try:
        archive = page.fetch("typescript", "5.9.3", "10e108c9cf7d5f2879053dff18515fb405abf2ccef63eaaf017d9c571687a1d3")
        npm = page._npm()
    except OSError as error:
        pytest.skip(f"no TypeScript here: {error}")
    subprocess.run(["tar", "xzf", str(archive), "-C", str(tmp_path)], check=True)
    node = npm[0] if len(npm) > 1 else "node"
    command = [node, str(tmp_path / "package" / "lib" / "tsc.js"), "-p", str(page.web_dir())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout


def test_a_registry_that_does_not_answer_is_told(cache, monkeypatch):
    def late(*_, **__):
        raise subprocess.TimeoutExpired("npm", 240)

    monkeypatch.setattr(page.subprocess, "run", late)
    with pytest.raises(OSError, match="check the connection"):
        page.runtime()
