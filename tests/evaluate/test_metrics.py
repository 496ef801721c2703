import dataclasses

import pytest
import torch

from raysweep import rng
from raysweep.evaluate.metrics import confusion, scores
from tests.reference import metrics as reference

SIZES = [(1, 1, 1, 1), (1, 1, 1, 3), (1, 4, 5, 1), (3, 1, 7, 2), (4, 6, 5, 4), (2, 3, 3, 34)]
SUMMARY = ("miou", "foreground_miou", "weighted_miou", "pixel_accuracy")


def labels(count, height, width, num_classes, *, seed=0):
    generator = rng.generator(seed, "labels", num_classes)
    drawn = torch.randint(0, num_classes, (count, height, width), generator=generator)
    return drawn.to(torch.uint8)


def total(prediction, truth, num_classes):
    return confusion(prediction, truth, num_classes).sum(0)


@pytest.mark.parametrize("size", SIZES)
def test_confusion_counts_image_by_image(size):
    guess, truth = labels(*size, seed=0), labels(*size, seed=1)
    found = confusion(guess, truth, size[-1])
    assert found.dtype == torch.int64
    assert found.shape == (size[0], size[-1], size[-1])
    for at in range(size[0]):
        expected = reference.confusion(
            guess[at : at + 1].tolist(), truth[at : at + 1].tolist(), size[-1]
        )
        assert found[at].tolist() == expected


@pytest.mark.parametrize("absent", ["zero", "skip"])
@pytest.mark.parametrize("size", SIZES)
def test_scores_equal_the_loops(size, absent):
    guess, truth = labels(*size, seed=0), labels(*size, seed=1)
    found = scores(total(guess, truth, size[-1]), absent=absent)
    expected = reference.summary(guess.tolist(), truth.tolist(), size[-1], absent=absent)
    assert {name: getattr(found, name) for name in SUMMARY} == pytest.approx(expected)
    by_class = reference.class_iou(guess.tolist(), truth.tolist(), size[-1])
    if absent == "zero":
        by_class = [value or 0.0 for value in by_class]
    assert len(found.per_class) == size[-1]
    for ours, theirs in zip(found.per_class, by_class, strict=True):
        assert ours == (None if theirs is None else pytest.approx(theirs))


def test_scores_of_a_case_worked_by_hand():
    truth, guess = torch.tensor([[[0, 0, 0, 1]]]), torch.tensor([[[0, 0, 1, 1]]])
    found = scores(total(guess, truth, 3), absent="zero")
    assert found.per_class == pytest.approx((2 / 3, 1 / 2, 0))
    assert found.miou == pytest.approx((2 / 3 + 1 / 2) / 3)
    assert found.foreground_miou == pytest.approx(1 / 4)
    assert found.weighted_miou == pytest.approx(3 / 4 * 2 / 3 + 1 / 4 * 1 / 2)
    assert found.pixel_accuracy == pytest.approx(3 / 4)
    skipped = scores(total(guess, truth, 3), absent="skip")
    assert skipped.per_class[2] is None
    assert skipped.miou == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert skipped.foreground_miou == pytest.approx(1 / 2)
    assert skipped.weighted_miou == pytest.approx(found.weighted_miou)


def test_class_that_is_only_predicted_counts_as_wrong_and_is_not_skipped():
    truth, guess = torch.tensor([[[0, 0]]]), torch.tensor([[[0, 1]]])
    for absent in ("zero", "skip"):
        found = scores(total(guess, truth, 2), absent=absent)
        assert found.per_class == (0.5, 0.0)
        assert found.miou == 0.25


@pytest.mark.parametrize("num_classes", [1, 2, 8])
def test_a_prediction_agrees_with_itself(num_classes):
    truth = labels(3, 9, 9, num_classes)
    found = scores(total(truth, truth, num_classes), absent="zero")
    assert found.miou == found.pixel_accuracy == 1
    assert found.weighted_miou == pytest.approx(1)
    assert found.foreground_miou == (1 if num_classes > 1 else 0)  # there is no foreground


def test_images_are_pooled_before_division():
    truth = torch.tensor([[[1, 1, 1, 1]], [[0, 0, 0, 1]]])
    guess = torch.tensor([[[1, 1, 1, 1]], [[0, 0, 0, 0]]])
    counts = confusion(guess, truth, 2)
    pooled = scores(counts.sum(0), absent="skip").foreground_miou
    per_image = [scores(one, absent="skip").foreground_miou for one in counts]
    assert pooled == pytest.approx(4 / 5)
    assert sum(per_image) / 2 == pytest.approx(1 / 2)


def test_order_of_images_and_cut_into_batches_do_not_matter():
    guess, truth = labels(6, 5, 4, 5, seed=0), labels(6, 5, 4, 5, seed=1)
    whole = confusion(guess, truth, 5)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    assert torch.equal(confusion(guess[order], truth[order], 5), whole[order])
    parts = zip(guess.split([1, 3, 2]), truth.split([1, 3, 2]), strict=True)
    merged = torch.cat([confusion(a, b, 5) for a, b in parts])
    assert torch.equal(merged, whole)
    shuffled = scores(whole[order].sum(0), absent="zero")
    assert shuffled == scores(whole.sum(0), absent="zero")


def test_renaming_foreground_classes_renames_their_scores():
    guess, truth = labels(3, 5, 4, 4, seed=0), labels(3, 5, 4, 4, seed=1)
    renamed = torch.tensor([0, 3, 1, 2])
    before = scores(total(guess, truth, 4), absent="zero")
    after = scores(total(renamed[guess.long()], renamed[truth.long()], 4), absent="zero")
    assert after.miou == pytest.approx(before.miou)
    assert [after.per_class[at] for at in renamed.tolist()] == list(before.per_class)


def test_transposing_prediction_and_truth_keeps_the_iou():
    guess, truth = labels(3, 5, 4, 4, seed=0), labels(3, 5, 4, 4, seed=1)
    one = scores(total(guess, truth, 4), absent="zero")
    other = scores(total(truth, guess, 4), absent="zero")
    assert one.per_class == other.per_class
    assert one.weighted_miou != other.weighted_miou


def test_no_images_give_no_counts_and_cannot_be_scored():
    empty = torch.zeros(0, 4, 4, dtype=torch.uint8)
    counts = confusion(empty, empty, 3)
    assert counts.shape == (0, 3, 3)
    with pytest.raises(ValueError, match="no pixel was scored"):
        scores(counts.sum(0), absent="zero")


@pytest.mark.parametrize(("bad", "named"), [(3, "label 3"), (-1, "label -1"), (255, "label 255")])
def test_labels_out_of_range_are_refused_by_name(bad, named):
    good, wrong = torch.tensor([[[0, 2]]]), torch.tensor([[[0, bad]]])
    with pytest.raises(ValueError, match=f"prediction holds {named}: allowed are 0 to 2"):
        confusion(wrong, good, 3)
    with pytest.raises(ValueError, match=f"truth holds {named}: allowed are 0 to 2"):
        confusion(good, wrong, 3)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 2, 2\), truth \(1, 2, 3\)"):
        confusion(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3), 2)


def test_integer_types_do_not_matter():
    guess, truth = labels(2, 3, 3, 4, seed=0), labels(2, 3, 3, 4, seed=1)
    expected = dataclasses.astuple(scores(total(guess, truth, 4), absent="zero"))
    mixed = dataclasses.astuple(scores(total(guess.short(), truth.long(), 4), absent="zero"))
    assert mixed == expected
