"""Three disjoint sets: seeded, stratified, by content, whatever the order of the rows."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensloc.datasets.split import NAMES, Split
from sensloc.dice import key, keys, lowest

LAW = settings(max_examples=50, deadline=None, derandomize=True)

SHARES = (0.75, 0.125, 0.125)

class_sizes = st.lists(st.integers(1, 60), min_size=1, max_size=5)
seeds = st.integers(0, 2**31)
shares = st.tuples(st.integers(0, 8), st.integers(0, 8)).map(
    lambda cuts: (min(cuts) / 8, (max(cuts) - min(cuts)) / 8, 1 - max(cuts) / 8)
)

Images = list[tuple[str, str]]
"""(content, wnid) of each image."""


def images(sizes: list[int]) -> Images:
    """Distinct images, so many of each class."""
    return [(f"{c}_{i}", f"n{c:02d}") for c, size in enumerate(sizes) for i in range(size)]


def split_of(rows: Images, shares: tuple[float, float, float] = SHARES, seed: int = 0) -> Split:
    contents, wnids = zip(*rows, strict=True)
    classes, codes = np.unique(wnids, return_inverse=True)
    return Split.from_keys(
        keys(contents, seed), codes.astype(np.int32), classes.tolist(), shares, seed
    )


def sets(rows: Images, shares: tuple[float, float, float] = SHARES, seed: int = 0) -> list[str]:
    split = split_of(rows, shares, seed)
    return [split(*row) for row in rows]


@LAW
@given(class_sizes, shares, seeds)
def test_every_class_is_cut_at_the_ranks_nearest_to_the_shares(
    sizes: list[int], shares: tuple[float, float, float], seed: int
):
    rows = images(sizes)
    found = Counter(
        (wnid, name) for (_, wnid), name in zip(rows, sets(rows, shares, seed), strict=True)
    )
    for (_, wnid), n in zip(images([1] * len(sizes)), sizes, strict=True):
        train, validation, test = (found[wnid, name] for name in NAMES)
        assert train == round(shares[0] * n)
        assert train + validation == round((shares[0] + shares[1]) * n)
        assert train + validation + test == n


@LAW
@given(class_sizes, seeds)
def test_the_same_seed_gives_the_same_answer_in_any_order(sizes: list[int], seed: int):
    rows = images(sizes)
    shuffled = random.Random(seed).sample(rows, len(rows))
    one, other = (
        dict(zip(order, sets(order, seed=seed), strict=True)) for order in (rows, shuffled)
    )
    assert one == other


def test_another_seed_gives_another_answer():
    rows = images([200])
    answers = [sets(rows, seed=seed) for seed in range(5)]
    for one, other in itertools.combinations(answers, 2):
        differing = sum(a != b for a, b in zip(one, other, strict=True))
        assert 40 < differing < 130  # of 200; two independent draws differ in 81 on average


def test_the_answer_does_not_depend_on_other_classes():
    alone = sets(images([50]))
    assert sets(images([50, 30, 7]))[:50] == alone


@LAW
@given(class_sizes, st.data())
def test_copies_fall_into_one_set_whatever_their_classes(sizes: list[int], data: st.DataObject):
    rows = images(sizes)
    wnids = st.sampled_from([*sorted({wnid for _, wnid in rows}), "n99", "a"])
    copies = st.lists(st.tuples(st.sampled_from([content for content, _ in rows]), wnids))
    rows += data.draw(copies)
    where: dict[str, set[str]] = {}
    for (content, _), name in zip(rows, sets(rows), strict=True):
        where.setdefault(content, set()).add(name)
    assert all(len(names) == 1 for names in where.values())


def test_a_copy_is_ranked_in_the_first_of_its_classes():
    """So its other classes are cut without it."""
    rows = [*images([8, 8]), ("0_0", "n01")]
    split = split_of(rows)
    assert split.owners == {key("0_0", 0): "n00"}
    assert split("0_0", "n01") == split("0_0", "n00") == sets(rows)[0]
    assert Counter(sets(rows[8:16])) == Counter(sets(rows)[8:16])


def test_copies_count_once():
    rows = [(f"{i % 40}", "n01") for i in range(160)]
    assert Counter(sets(rows)) == {"train": 120, "validation": 20, "test": 20}


def test_the_dice_never_change():
    """Another value here would move the images of every published split."""
    assert key("a", 0) == 0xBDE152EAF93EDEE5
    assert np.array_equal(keys(["a", "b"], 3), np.array([key("a", 3), key("b", 3)], np.uint64))
    assert len({key(text, seed) for text in ("a", "b", "0:a") for seed in (0, 1)}) == 6


@LAW
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, unique=True), st.data())
def test_lowest_gives_exactly_n(values: list[int], data: st.DataObject):
    array = np.array(values, np.uint64)
    n = data.draw(st.integers(1, len(values)))
    assert (array <= np.uint64(lowest(array, n))).sum() == n


def test_more_than_there_are_cannot_be_drawn():
    with pytest.raises(ValueError, match="the lowest 4 of 3"):
        lowest(np.arange(3, dtype=np.uint64), 4)
