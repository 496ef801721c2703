import dataclasses

import pytest
import torch

from raysweep import rng
from raysweep.evaluate.metrics import Scores, confusion, scores
from raysweep.evaluate.protocols import Result, five_folds, held_out
from tests.reference.protocols import cross_validate

CLASSES = 3


def world(*, candidates=4, images=11, num_classes=CLASSES, seed=0):
    """Truth, and candidates that are more or less often right."""
    generator = rng.generator(seed, "world")
    truth = torch.randint(0, num_classes, (images, 3, 4), generator=generator)
    wrong = torch.randint(0, num_classes, (candidates, *truth.shape), generator=generator)
    keep = torch.rand(wrong.shape, generator=generator) < 0.6
    return truth, torch.where(keep, truth, wrong)


def counts_of(truth, guesses, num_classes=CLASSES):
    return torch.stack([confusion(guess, truth, num_classes) for guess in guesses])


def quality(right):
    """Counts of one image of ten pixels, ``right`` of them labelled correctly."""
    return torch.tensor([[right, 10 - right], [0, 0]])


def miou(right, images=1):
    return scores(images * quality(right), absent="zero").miou


@pytest.mark.parametrize("absent", ["zero", "skip"])
@pytest.mark.parametrize(("images", "candidates"), [(5, 1), (5, 3), (9, 2), (11, 4), (20, 3)])
@pytest.mark.parametrize("num_classes", [1, 3, 6])
def test_five_folds_equal_the_loops(images, candidates, num_classes, absent):
    names = [f"face_{at}" for at in range(images)]
    truth, guesses = world(candidates=candidates, images=images, num_classes=num_classes)
    found = five_folds(counts_of(truth, guesses, num_classes), names, absent=absent)
    chosen, folds, mean, spread = cross_validate(
        guesses.tolist(), truth.tolist(), names, num_classes, absent
    )
    assert list(found.selected) == chosen
    assert found.scores.miou == pytest.approx(mean)
    assert found.spread == pytest.approx(spread)
    for name in folds[0]:
        expected = sum(fold[name] for fold in folds) / 5
        assert getattr(found.scores, name) == pytest.approx(expected), name


def test_folds_follow_names_as_text():
    names = [f"face_{at}" for at in range(11)]  # as text: 0, 1, 10, 2, ...
    confusions = torch.stack([quality(5)] * 11).repeat(2, 1, 1, 1)
    confusions[1, 10] = quality(10)  # the second candidate is better on face_10 alone
    assert five_folds(confusions, names, absent="zero").selected == (0, 1, 0, 0, 0)
    padded = [f"face_{at:02}" for at in range(11)]  # face_10 is left over and in no fold
    assert five_folds(confusions, padded, absent="zero").selected == (0, 0, 0, 0, 0)


def test_order_of_the_images_does_not_matter_but_their_names_do():
    names = [f"face_{at}" for at in range(11)]
    confusions = counts_of(*world(seed=3))
    order = torch.randperm(11, generator=rng.generator(0, "order")).tolist()
    moved = five_folds(confusions[:, order], [names[at] for at in order], absent="zero")
    straight = five_folds(confusions, names, absent="zero")
    assert moved == straight
    assert five_folds(confusions[:, order], names, absent="zero") != straight


def test_small_fold_selects_and_the_complement_is_tested():
    # candidate 1 labels only the first image well; fold 0 falls for it and pays on the other four
    confusions = torch.stack([quality(8)] * 5 + [quality(10)] + [quality(2)] * 4).view(2, 5, 2, 2)
    found = five_folds(confusions, list("abcde"), absent="zero")
    assert found.selected == (1, 0, 0, 0, 0)
    assert found.scores.miou == pytest.approx((miou(2) + 4 * miou(8)) / 5)


def test_images_beyond_five_full_folds_are_tested_in_every_fold():
    confusions = torch.stack([quality(5)] * 6 + [quality(10)]).unsqueeze(0)
    found = five_folds(confusions, list("abcdefg"), absent="zero")
    pooled = scores(5 * quality(5) + quality(10), absent="zero").miou
    assert found.scores.miou == pytest.approx(pooled)
    assert found.spread == pytest.approx(0)


def test_spread_is_the_population_standard_deviation():
    confusions = torch.stack([quality(10)] * 4 + [quality(0)]).unsqueeze(0)
    found = five_folds(confusions, list("abcde"), absent="zero")
    with_miss = scores(3 * quality(10) + quality(0), absent="zero").miou
    folds = torch.tensor([with_miss] * 4 + [miou(10)], dtype=torch.float64)
    assert found.scores.miou == pytest.approx(folds.mean().item())
    assert found.spread == pytest.approx(folds.std(correction=0).item())
    assert found.spread != pytest.approx(folds.std(correction=1).item())


def test_per_class_is_the_mean_of_the_folds_that_count_the_class():
    only_in_a = torch.zeros(1, 5, 3, 3, dtype=torch.long)
    only_in_a[:, :, 0, 0] = 4
    only_in_a[:, 0, 1, 1] = only_in_a[:, 0, 1, 0] = 2
    found = five_folds(only_in_a, list("abcde"), absent="skip")
    assert found.scores.per_class[1] == pytest.approx(1 / 2)  # not 2 / 5: fold a tests without it
    assert found.scores.per_class[2] is None
    zeros = five_folds(only_in_a, list("abcde"), absent="zero")
    assert zeros.scores.per_class[1:] == (pytest.approx(4 / 5 * 1 / 2), 0)


@pytest.mark.parametrize("copies", [1, 2, 4])
def test_ties_keep_the_earlier_candidate(copies):
    good = torch.stack([quality(8)] * 5)
    bad = torch.stack([quality(1)] * 5)
    confusions = torch.stack([bad, *[good] * copies, bad])
    assert five_folds(confusions, list("abcde"), absent="zero").selected == (1,) * 5
    pooled = confusions.sum(1)
    assert held_out(pooled, pooled.__getitem__, absent="zero").selected == (1,)


@pytest.mark.parametrize("images", [1, 4])
def test_fewer_images_than_folds_are_refused(images):
    confusions = torch.stack([quality(5)] * images).unsqueeze(0)
    with pytest.raises(ValueError, match=f"needs 5 or more test images, got {images}; use --set"):
        five_folds(confusions, [str(at) for at in range(images)], absent="zero")


def test_held_out_selects_on_validation_and_scores_on_test():
    val = torch.stack([quality(3), quality(9), quality(6)])
    test = torch.stack([quality(10), quality(4), quality(7)])
    found = held_out(val, test.__getitem__, absent="zero")
    assert found == Result(scores(test[1], absent="zero"), (1,), miou(9))


def test_held_out_runs_only_the_chosen_candidate_over_the_test_split():
    asked = []

    def test(index):
        asked.append(index)
        return quality(5)

    held_out(torch.stack([quality(3), quality(9), quality(6)]), test, absent="zero")
    assert asked == [1]


def test_held_out_never_looks_at_the_test_split_to_select():
    val = torch.stack([quality(3), quality(9), quality(6)])
    for best in range(3):
        test = torch.stack([quality(10 if at == best else 0) for at in range(3)])
        assert held_out(val, test.__getitem__, absent="zero").selected == (1,)


def test_selection_treats_absent_classes_as_asked():
    # the third class does not exist; only the second candidate claims to see it
    without = torch.tensor([[4, 2, 0], [2, 4, 0], [0, 0, 0]])
    claiming = torch.tensor([[4, 1, 1], [1, 5, 0], [0, 0, 0]])
    val = torch.stack([without, claiming])
    assert held_out(val, val.__getitem__, absent="zero").selected == (1,)
    assert held_out(val, val.__getitem__, absent="skip").selected == (0,)
    assert held_out(val, val.__getitem__, absent="skip").scores.per_class == (0.5, 0.5, None)
    images = val[:, None].repeat(1, 5, 1, 1)
    assert five_folds(images, list("abcde"), absent="zero").selected == (1,) * 5
    assert five_folds(images, list("abcde"), absent="skip").selected == (0,) * 5


def test_scores_are_averaged_field_by_field():
    found = five_folds(counts_of(*world(seed=5)), [str(at) for at in range(11)], absent="zero")
    values = dataclasses.asdict(found.scores)
    assert set(values) == {field.name for field in dataclasses.fields(Scores)}
    assert values["miou"] == pytest.approx(sum(found.scores.per_class) / CLASSES)
