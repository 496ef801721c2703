from __future__ import annotations

import numpy as np
import pytest
import torch

from raysweep.data.labels import LABEL_SETS, MERGES, LabelSet, Merge, compose, merge, palette
from tests.reference.labels import (
    CAR20,
    CELEBAMASK10,
    CELEBAMASK_LAGM,
    FACE12,
    FACE34_LAGM,
    merge_pixels,
)

GANORCON_FACE8 = ("background", "skin", "nose", "eye", "brow", "ear", "mouth", "hair")
LAGM_FACE8 = ("background", "ear", "eye", "brow", "skin", "hair", "mouth", "nose")


def _every_label(source: LabelSet) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(source.classes)).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "groups", "rest"),
    [
        ("face34_to_face8_lagm", FACE34_LAGM, 4),
        ("celebamask19_to_face8_lagm", CELEBAMASK_LAGM, 0),
        ("celebamask19_to_celebamask10", CELEBAMASK10, 0),
        ("car20_to_car12", {t: [s] for s, t in CAR20.items()}, 1),
    ],
)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 5, 4)])
def test_merges_agree_with_the_printed_tables(name, groups, rest, shape):
    rule = MERGES[name]
    mask = np.resize(_every_label(rule.source), shape)
    expected = merge_pixels(mask, groups=groups, rest=rest)
    np.testing.assert_array_equal(merge(mask, rule), expected)
    every = _every_label(rule.source)
    np.testing.assert_array_equal(merge(every, rule), merge_pixels(every, groups=groups, rest=rest))


def test_builtin_faces_merge_by_name():
    rule = MERGES["face17_to_face12"]
    for index, part in enumerate(LABEL_SETS["face17"].classes):
        merged = merge(np.array([index], dtype=np.uint8), rule)
        assert LABEL_SETS["face12"].classes[merged[0]] == FACE12[part]


@pytest.mark.parametrize("source", ["face34", "celebamask19"])
def test_the_two_orders_of_the_eight_face_classes_name_the_same_parts(source):
    assert LABEL_SETS["face8"].classes == GANORCON_FACE8
    assert LABEL_SETS["face8_lagm"].classes == LAGM_FACE8
    every = np.arange(len(LABEL_SETS[source].classes), dtype=np.uint8)
    ganorcon = merge(every, MERGES[f"{source}_to_face8"])
    lagm = merge(every, MERGES[f"{source}_to_face8_lagm"])
    assert [GANORCON_FACE8[i] for i in ganorcon] == [LAGM_FACE8[i] for i in lagm]


def test_composition_equals_merging_twice():
    first, second = MERGES["face17_to_face12"], MERGES["face12_to_face8"]
    mask = _every_label(first.source)
    both = compose(first, second)
    np.testing.assert_array_equal(merge(mask, both), merge(merge(mask, first), second))
    assert both == MERGES["face17_to_face8"]


def test_composition_refuses_merges_that_do_not_meet():
    with pytest.raises(ValueError, match="ends in 'car8', but 'face12_to_face8' begins"):
        compose(MERGES["car16_to_car8"], MERGES["face12_to_face8"])


@pytest.mark.parametrize("rule", MERGES.values(), ids=MERGES)
def test_every_target_class_is_reached_and_background_stays(rule):
    assert rule.table[0] == 0
    assert set(rule.table) == set(range(len(rule.target.classes)))


@pytest.mark.parametrize("rule", MERGES.values(), ids=MERGES)
def test_merging_commutes_with_mirroring(rule):
    mask = np.arange(len(rule.source.classes), dtype=np.uint8)
    mirrored_first = merge(_swap(mask, rule.source), rule)
    np.testing.assert_array_equal(mirrored_first, _swap(merge(mask, rule), rule.target))


def _swap(mask: np.ndarray, labels: LabelSet) -> np.ndarray:
    table = np.arange(len(labels.classes), dtype=np.uint8)
    for left, right in labels.flip_pairs:
        table[left], table[right] = right, left
    return table[mask]


def test_sides_of_the_face_are_flip_pairs_and_lips_are_not():
    for name in ("face17", "celebamask19"):
        labels = LABEL_SETS[name]
        pairs = {(labels.classes[a], labels.classes[b]) for a, b in labels.flip_pairs}
        assert {("l_brow", "r_brow"), ("l_eye", "r_eye")} <= pairs
        assert not any("lip" in part for pair in pairs for part in pair)


def test_tensors_and_arrays_merge_alike():
    rule = MERGES["car16_to_car8"]
    mask = np.resize(_every_label(rule.source), (2, 3, 9))
    merged = merge(torch.from_numpy(mask), rule)
    assert merged.dtype == torch.uint8
    np.testing.assert_array_equal(merged.numpy(), merge(mask, rule))
    assert merge(np.zeros((0, 4, 4), dtype=np.uint8), rule).shape == (0, 4, 4)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_unknown_labels_are_named(kind):
    mask = kind(np.array([[3, 12]], dtype=np.uint8))
    with pytest.raises(ValueError, match="label 12; 'face12' has labels 0 to 11"):
        merge(mask, MERGES["face12_to_face8"])


def test_labels_must_be_bytes():
    with pytest.raises(ValueError, match="mask is int64; labels are uint8"):
        merge(np.zeros((2, 2), dtype=np.int64), MERGES["face12_to_face8"])


@pytest.mark.parametrize("count", [1, 2, 21, 256])
def test_palette_is_distinct_and_starts_black(count):
    colours = palette(count)
    assert len(set(colours)) == count
    assert colours[0] == (0, 0, 0)
    assert colours == palette(256)[:count]


def test_palette_is_the_pascal_voc_colour_map():
    aeroplane, bicycle, tvmonitor = (128, 0, 0), (0, 128, 0), (0, 64, 128)
    colours = palette(21)
    assert (colours[1], colours[2], colours[20]) == (aeroplane, bicycle, tvmonitor)


@pytest.mark.parametrize("count", [0, 257])
def test_palette_refuses_what_a_byte_cannot_hold(count):
    with pytest.raises(ValueError, match=f"num_classes = {count}"):
        palette(count)


@pytest.mark.parametrize("labels", LABEL_SETS.values(), ids=LABEL_SETS)
def test_classes_of_a_label_set_can_be_told_apart(labels):
    assert labels.classes[0] == "background"
    assert labels.palette[0] == (0, 0, 0)
    assert len(set(labels.palette)) == len(labels.classes)


def test_label_sets_and_merges_are_filed_under_their_names():
    assert all(labels.name == name for name, labels in LABEL_SETS.items())
    assert all(rule.name == name for name, rule in MERGES.items())
    assert all(rule.source == LABEL_SETS[rule.source.name] for rule in MERGES.values())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ("a", "a")}, "distinct names"),
        ({"palette": palette(3)}, "3 colours; give one for each of the 2"),
        ({"flip_pairs": ((0, 2),)}, "each index from 0 to 1"),
        ({"flip_pairs": ((0, 1), (1, 0))}, "may occur once"),
    ],
)
def test_inconsistent_label_sets_are_refused(fields, message):
    valid = {"name": "toy", "classes": ("background", "a"), "palette": palette(2)}
    with pytest.raises(ValueError, match=message):
        LabelSet(**(valid | fields))


@pytest.mark.parametrize(("table", "message"), [((0,), "1 entries"), ((0, 2), "holds 2")])
def test_inconsistent_merges_are_refused(table, message):
    toy = LabelSet("toy", ("background", "a"), palette(2))
    with pytest.raises(ValueError, match=message):
        Merge("toy_to_toy", toy, toy, table)
