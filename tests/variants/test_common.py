import pytest
import torch

from refdiff_lite.variants.common import along, centres


def masks():
    found = torch.zeros(2, 4, 8, dtype=torch.bool)
    found[0, 0, :2] = True  # a row at the top left
    found[1, 3, 6:] = True
    return found


def test_centres_are_means_of_pixel_centres():
    assert centres(masks()).tolist() == [[1 / 8, 0.5 / 4], [7 / 8, 3.5 / 4]]


@pytest.mark.parametrize(("direction", "first"), [("left", 0), ("top", 0), ("right", 1), ("bottom", 1)])
def test_further_along_is_more(direction, first):
    assert int(along(masks(), direction).argmax()) == first
