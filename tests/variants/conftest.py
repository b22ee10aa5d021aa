"""The bundled networks, which the successors are tried on."""

import pytest

from refdiff_lite.networks import load


@pytest.fixture(scope="session")
def nets():
    return load("toy")
