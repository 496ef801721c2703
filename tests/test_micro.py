import contextlib
import threading

import pytest
import torch
from torch import nn

from raysweep import micro, rng
from raysweep.config import override
from raysweep.distill.student import PREDICT_BATCH, label_images
from raysweep.features.representation import RawColour
from raysweep.fewshot.projector import predict
from tests.micro_cases import (
    CONTRASTIVE,
    FIT,
    GAN,
    GAN1,
    STUDENT,
    assert_alike,
    batch_at,
    build,
    trained,
)

# how a batch is cut


@pytest.mark.parametrize("least", [1, 2])
def test_parts_are_consecutive_and_as_equal_as_can_be(least):
    for count in range(1, 10):
        for rows in range(26):
            with micro.batches(count):
                found = micro.parts(rows, least=least)
            sizes = [len(range(rows)[part]) for part in found]
            assert [row for part in found for row in range(rows)[part]] == list(range(rows))
            assert len(found) == max(1, min(count, rows // least))
            assert max(sizes) - min(sizes) <= 1
            assert min(sizes) >= min(least, rows)


@pytest.mark.parametrize("group", [2, 3, 4])
def test_groups_stay_whole_while_there_are_enough_of_them(group):
    for count in range(1, 10):
        for groups in range(1, 7):
            rows = group * groups
            with micro.batches(count):
                found = micro.parts(rows, least=2, group=group)
            sizes = [part.stop - part.start for part in found]
            assert [row for part in found for row in range(rows)[part]] == list(range(rows))
            assert min(sizes) >= 2
            if count <= groups:
                assert len(found) == count
                assert all(size % group == 0 for size in sizes)
                assert max(sizes) - min(sizes) <= group
            else:
                assert max(sizes) <= group


def test_groups_that_do_not_fill_the_batch_lose_no_rows():
    with micro.batches(2):
        assert micro.parts(10, group=4) == [slice(0, 5), slice(5, 10)]


def test_one_part_is_the_default_and_returns_after_a_failure():
    def cut():
        return micro.parts(6), micro.rows_at_once(6)

    whole = ([slice(0, 6)], 6)
    elsewhere = []
    assert cut() == whole
    with micro.batches(2):
        with contextlib.suppress(RuntimeError), micro.batches(3):
            assert cut() == ([slice(0, 2), slice(2, 4), slice(4, 6)], 2)
            raise RuntimeError
        assert cut() == ([slice(0, 3), slice(3, 6)], 3)
        thread = threading.Thread(target=lambda: elsewhere.append(cut()))
        thread.start()
        thread.join(timeout=10)
    assert cut() == whole
    assert elsewhere == [whole]


@pytest.mark.parametrize("count", [0, -1])
def test_no_parts_are_refused(count):
    with pytest.raises(ValueError, match=f"parts = {count}"), micro.batches(count):
        pass


# a step in parts is the step in one piece

EXACT = {
    "student": (STUDENT, True),
    "student, hard labels": (override(STUDENT, {"loss": "hard", "network": "unet"}), True),
    "projector": (FIT, False),
    "moco": (override(CONTRASTIVE, {"method": "moco"}), False),
    "simsiam": (override(CONTRASTIVE, {"method": "simsiam"}), False),
    "moco, fixed statistics": (
        override(CONTRASTIVE, {"method": "moco", "batch": 7, "bn_groups": 1, "moco.queue": 14}),
        True,
    ),
    "simsiam, fixed statistics": (
        override(CONTRASTIVE, {"method": "simsiam", "batch": 7, "bn_groups": 1}),
        True,
    ),
    "stylegan2": (GAN, False),
    "stylegan1": (GAN1, False),
}


@pytest.mark.parametrize("name", EXACT)
def test_parts_give_what_one_piece_gives(name):
    config, evaluating = EXACT[name]
    whole, rows = trained(config, 1, evaluating=evaluating)
    for parts in (2, 3, 4):
        learner, found = trained(config, parts, evaluating=evaluating)
        for ours, theirs in zip(found, rows, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-6, rel=1e-6)
        assert_alike(learner.state_dict(), whole.state_dict())
    untrained, _ = trained(config, 1, steps=0, evaluating=evaluating)
    with pytest.raises(AssertionError):
        assert_alike(untrained.state_dict(), whole.state_dict(), without=("step", "optimizer"))


class Seen(nn.Module):
    """Wraps a network and notes how many rows it is given at a time."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.rows = []

    def forward(self, first, *others, **options):
        self.rows.append(len(first[0] if isinstance(first, list) else first))
        return self.network(first, *others, **options)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (STUDENT, [2, 2, 3]),
        (FIT, [1, 2, 2, 2]),
        (override(FIT, {"projector.norm": "batch", "batch": 5}), [2, 3]),
        (override(FIT, {"projector.standardise": True, "batch": 5}), [2, 3]),
        (override(FIT, {"projector.norm": "batch", "batch": 1}), [1]),
        (EXACT["moco, fixed statistics"][0], [2, 2, 3]),
        (EXACT["simsiam, fixed statistics"][0], [2, 2, 3]),
        (override(CONTRASTIVE, {"method": "simsiam", "bn_groups": 2}), [3, 3, 3, 3]),
    ],
)
def test_batch_norm_sees_two_images_or_more(config, expected):
    learner, _ = trained(config, 4, steps=1, wrap=Seen)
    assert vars(learner).get("encode", vars(learner).get("forward")).rows == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [(1, [12]), (2, [4, 8]), (3, [4, 4, 4]), (4, [3, 3, 3, 3]), (12, [2, 2, 2, 2, 2, 2])],
)
def test_discriminator_has_images_to_compare(parts, expected):
    config = override(GAN, {"gan.batch": 12, "gan.network.mbstd_group": 4})
    learner, judged = build(config), []
    learner.discriminator.register_forward_pre_hook(lambda _, given: judged.append(len(given[0])))
    with micro.batches(parts):
        learner.step(batch_at(0, config))
    assert judged[: len(expected)] == expected  # the generator's images; then both of the others
    assert set(judged) == set(expected)


def test_predictions_do_not_depend_on_the_parts():
    count = PREDICT_BATCH + 3
    images = torch.randint(0, 256, (count, 3, 16, 16), generator=rng.generator(1, "x")).byte()
    student, fit = Seen(build(STUDENT).network).eval(), Seen(build(FIT).projector).eval()

    def labels():
        found = label_images(student, images, px=16, out_px=8)
        return found, predict(RawColour(), fit, images, resolution=16, out_px=8)

    whole = labels()
    for parts, most in ((3, 5), (100, 1)):
        student.rows, fit.rows = [], []
        with micro.batches(parts):
            assert all(torch.equal(a, b) for a, b in zip(labels(), whole, strict=True))
        assert max(student.rows) == max(fit.rows) == most
        assert sum(student.rows) == sum(fit.rows) == count


def test_parts_draw_every_random_number_once(monkeypatch):
    names, draw = [], rng.generator
    learner, photos = build(GAN), batch_at(0, GAN)
    monkeypatch.setattr(rng, "generator", lambda *name: (names.append(name), draw(*name))[1])
    with micro.batches(3):
        learner.step(photos)
    assert len(names) == len(set(names)) == 3 + 1 + 4  # latents, directions, augmentations


def test_a_part_that_is_not_finite_is_not_learnt_from():
    learner, judged = build(GAN), []
    judge = learner._judge

    def spoilt(images, which):
        judged.append(len(images))
        return judge(images, which) * (torch.nan if len(judged) == 2 else 1.0)

    learner._judge = spoilt
    before = {name: value.clone() for name, value in learner.generator.named_parameters()}
    with micro.batches(2), pytest.raises(FloatingPointError, match="generator loss is nan"):
        learner.step(batch_at(0, GAN))
    assert judged == [5, 5]
    assert all(torch.equal(value, before[n]) for n, value in learner.generator.named_parameters())


# memory


class Saved:
    """Counts the bytes that autograd keeps for backward passes, now and at most."""

    def __init__(self):
        self.now = self.most = 0

    def pack(self, tensor):
        return _Kept(tensor, self)

    def __enter__(self):
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda kept: kept.tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error):
        self.hooks.__exit__(*error)


class _Kept:
    def __init__(self, tensor, counter):
        # with its history it would keep the graph that keeps it
        self.tensor, self.counter = tensor.detach(), counter
        counter.now += tensor.nbytes
        counter.most = max(counter.most, counter.now)

    def __del__(self):
        self.counter.now -= self.tensor.nbytes


@pytest.mark.parametrize(
    "config",
    [
        override(STUDENT, {"batch": 8}),
        override(FIT, {"batch": 8}),
        *(override(CONTRASTIVE, {"method": each}) for each in ("moco", "simsiam")),
        override(GAN, {"gan.batch": 16, "gan.path_weight": 0.0, "gan.r1_gamma": 0.0}),
        override(GAN, {"gan.batch": 16, "gan.path_weight": 0.0}),
        override(GAN, {"gan.batch": 16, "gan.path_shrink": 1, "gan.r1_gamma": 0.0}),
    ],
    ids=["student", "projector", "moco", "simsiam", "gan", "gan with R1", "gan with path length"],
)
def test_only_one_part_is_held_for_its_backward_pass(config):
    most = {}
    for parts in (1, 4):
        learner, batch = build(config), batch_at(0, config)
        with micro.batches(parts), Saved() as saved:
            learner.step(batch)
        most[parts] = saved.most
    assert most[4] < most[1] / 2.5, most
