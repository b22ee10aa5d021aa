"""What a run evaluates is settled, or refused with words, before any network is loaded."""

from dataclasses import replace

import pytest

from refdiff_lite import RefDiffConfig
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.plan import make_plan


@pytest.fixture(scope="module")
def data():
    return load_toyref("val")[:7]


def plan(data, variants=("g", "full"), proposals="oracle", **more):
    return make_plan(data, variants, proposals, RefDiffConfig.toy(), **more)


def test_shards_part_the_images(data):
    parts = [plan(data, shard=(i, 3)).mine for i in (1, 2, 3)]
    assert [len(p) for p in parts] == [3, 2, 2]
    assert sorted(s.image_id for p in parts for s in p) == sorted(s.image_id for s in data)


def test_images_without_expressions_do_not_count_and_a_limit_takes_the_first(data):
    found = plan([replace(data[0], records=()), *data[1:]], limit=2)
    assert found.chosen == data[1:3]
    assert found.data == data[1:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(variants=("g", "best")), "unknown variant 'best'"),
        (dict(variants=()), "no variant is given"),
        (dict(proposals="magic"), "unknown proposals 'magic'"),
        (dict(limit=0), "a limit of 0 images"),
        (dict(shard=(0, 2)), "there is no shard 0/2"),
        (dict(shard=(3, 2)), "there is no shard 3/2"),
        (dict(limit=2, shard=(3, 3)), "shard 3/3 of 2 images is empty"),
    ],
)
def test_what_cannot_be_planned(data, change, said):
    with pytest.raises(ValueError, match=said):
        plan(data, **change)


def test_doubled_images_and_sentences_are_named(data):
    with pytest.raises(ValueError, match=f"image {data[0].image_id} comes 2 times"):
        plan([data[0], *data])
    doubled = replace(data[0], records=data[0].records[:1] * 2)
    with pytest.raises(ValueError, match=f"two sentences of image {data[0].image_id}"):
        plan([doubled])
    with pytest.raises(ValueError, match="none of the 1 images has an expression"):
        plan([replace(data[0], records=())])


@pytest.mark.parametrize(
    "change",
    [dict(variants=("full",)), dict(proposals="weak"), dict(about={"data": "toyref", "split": "test"})],
    ids=str,
)
def test_the_identity_changes_with_what_results_depend_on(data, change):
    assert plan(data).identity == plan(data, limit=3).identity  # shards and limits are parts of one run
    assert plan(data, **change).identity != plan(data).identity
    other = make_plan(data, ("g", "full"), "oracle", RefDiffConfig.toy(seed=1))
    assert other.identity != plan(data).identity
