import pytest
import torch

from refdiff_lite import RefDiff
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.expression import parse
from refdiff_lite.variants.relations import Relations, chances, distinct, in_order, measure

FLAT = Relations(temperature=0.05, margin=0.2)


def columns(n=5):
    return torch.eye(n, dtype=torch.bool)[:, None, :].expand(n, n, n).contiguous()


def test_in_order_counts_uncertain_members():
    member, amount = torch.tensor([0.5, 1.0, 0.8]), torch.tensor([3.0, 2.0, 1.0])
    assert in_order(member, amount, 1).tolist() == pytest.approx([0.5, 1 * 0.5, 0.8 * 0.5 * 0])
    assert in_order(member, amount, 2).tolist() == pytest.approx([0, 0.5, 0.8 * 0.5])
    assert in_order(member, amount, 3).tolist() == pytest.approx([0, 0, 0.8 * 0.5])
    assert in_order(member, amount, 7).tolist() == [0, 0, 0]


def test_places_of_all_members_sum_to_their_chance():
    member, amount = torch.rand(6, generator=torch.Generator().manual_seed(0)), torch.randperm(6).float()
    total = sum(in_order(member, amount, k) for k in range(1, 7))
    torch.testing.assert_close(total, member)


def test_distinct_counts_each_thing_once():
    masks = torch.zeros(3, 2, 4, dtype=torch.bool)
    masks[0, :, :2], masks[1, 0, :2], masks[2, :, 2:] = True, True, True  # the second is a part of the first
    assert distinct(masks, torch.tensor([1.0, 2.0, 0.0]), 0.5).tolist() == [False, True, True]
    assert distinct(masks, torch.tensor([2.0, 1.0, 0.0]), 0.5).tolist() == [True, False, True]


def test_measures():
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, :, 0], masks[1, :2, 1:] = True, True  # four pixels high, and six pixels in two rows
    found = {
        by: int(measure(masks, by).argmax()) for by in ("largest", "smallest", "tallest", "shortest", "left", "top")
    }
    assert found == {"largest": 1, "smallest": 0, "tallest": 0, "shortest": 1, "left": 0, "top": 1}


@pytest.mark.parametrize(
    ("text", "best"),
    [
        ("the first cup from the left", 1), ("the second cup from the left", 3), ("the second cup from the right", 3),
        ("the third cup from the left", 4), ("the last cup from the left", 4), ("second from the left", 1),
    ],
)  # fmt: skip
def test_orders_count_what_clip_takes_for_cups(text, best):
    cups = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0])
    assert int(chances(parse(text), columns(), cups, torch.zeros(5), FLAT).argmax()) == best


@pytest.mark.parametrize(("side", "best"), [("left", 1), ("right", 3)])
def test_a_relation_asks_which_side_of_the_landmark(side, best):
    cups, dog = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])
    found = chances(parse(f"the cup {side} of the dog"), columns(), cups, dog, FLAT)
    assert int(found.argmax()) == best
    assert found[best] == pytest.approx(
        float(torch.sigmoid(torch.tensor(4.0)) * torch.sigmoid(torch.tensor(0.2 / 0.05))), abs=1e-3
    )


def test_without_a_relation_it_is_the_full_method(nets):
    sample = next(s for s in load_toyref("test", "noun") if s.records)
    scene = RefDiff(nets).set_image(sample.path, oracle=sample.masks)
    a, b = (scene.segment(sample.records[0].text, v).scores["S"] for v in ("full", "relations"))
    assert torch.equal(a, b)


@pytest.mark.slow
def test_the_trained_toy_answers_more_of_vals_orders():
    model, hits = RefDiff.from_preset("toy"), {"full": 0, "relations": 0}
    for sample in load_toyref("val", "toyref-ord", 12):
        scene = model.set_image(sample.image(), oracle=sample.masks)
        for record in sample.records:
            for variant in hits:
                hits[variant] += bool((scene.segment(record.text, variant).mask == sample.masks[record.target]).all())
    assert hits["relations"] > 1.3 * hits["full"]
