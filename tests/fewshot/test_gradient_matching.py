import io

import pytest
import torch

from raysweep.config import override
from raysweep.data.joint import JointConfig
from raysweep.fewshot.matching_config import MatchingConfig, candidate_steps
from raysweep.fewshot.matching_inputs import matching_batch
from raysweep.fewshot.segmentors import SegmentorConfig
from raysweep.nets.deeplab import SeededDropout
from raysweep.represent.generators import read_generator, save_generator
from tests.fewshot.matching_cases import (
    BASE,
    DEEPLAB,
    advance,
    generator,
    labelled,
    learner,
    same,
    tensors,
)
from tests.reference import matching as reference


def trace(config, steps=3, **more):
    own = learner(config, **more)
    rows = [{name: float(value) for name, value in row.items()} for row in advance(own, steps)]
    sizes = [
        float(each.double().square().sum())
        for network in (own.annotator, own.segmentor)
        for each in network.state_dict().values()
    ]
    return rows, sizes, candidate_steps(config)


def parameters(network):
    return torch.cat([each.detach().flatten().clone() for each in network.parameters()])


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("interval", [1, 4, 16])
def test_networks_are_updated_in_their_intervals(every, interval):
    changes = {"segmentor_interval": interval, "annotator_interval": every}
    own, seen = learner(override(BASE, changes)), {"annotator": [], "segmentor": []}
    for step in range(17):
        before = {name: parameters(getattr(own, name)) for name in seen}
        (row,) = advance(own, 1, start=step)
        for name, steps in seen.items():
            if not torch.equal(parameters(getattr(own, name)), before[name]):
                steps.append(step)
            assert (f"loss/{name}" in row) == (step in steps)
    assert seen["annotator"] == reference.update_steps(17, every)
    assert seen["segmentor"] == reference.update_steps(17, interval)


def test_intervals_give_different_traces():
    first, fourth, last = (
        [row["loss/annotator"] for row in trace(override(BASE, {"segmentor_interval": k}), 17)[0]]
        for k in (1, 4, 16)
    )
    # alike as long as the segmentor is the same
    assert first[0] == fourth[0]
    assert first[1] != fourth[1]
    assert fourth[:4] == last[:4]
    assert all(a != b for a, b in zip(fourth[4:], last[4:], strict=True))


CHANGES = {
    "objective": "maml",
    "annotator.width": 5,
    "annotator.depth": 2,
    "layers": ["synthesis.b16.conv0", "synthesis.b4.conv1"],
    "segmentor.network": "deeplab_thin",
    "segmentor.unet.widths": [3, 4, 6],
    "block": "up",
    "state": "fixed",
    "annotator_interval": 2,
    "segmentor_interval": 2,
    "normaliser": "paper",
    "annotator_lr": 0.2,
    "segmentor_lr": 0.2,
    "optimizer": "adam",
    "momentum": 0.5,
    "lr_floor": 0.5,
    "labelled_batch": 4,
    "generated_batch": 4,
    "psi": 0.5,
    "cutoff": 2,
    "resolution": 8,
    "augment": JointConfig().model_dump(mode="json"),
    "clean_pixels": 20,
    "checkpoints": 2,
    "seed": 1,
}
ELSEWHERE = {  # settings that are read only beside others
    "steps": ({"lr_floor": 0.5}, 9),
    "pretrain_steps": ({"state": "pretrained"}, 2),
    "maml.inner_steps": ({"objective": "maml"}, 2),
    "maml.inner_lr": ({"objective": "maml"}, 0.5),
    "segmentor.thin.head_width": ({"segmentor.network": "deeplab_thin", "block": "head"}, 5),
}


def test_every_setting_matters():
    base = trace(BASE)
    assert base == trace(BASE)
    names = {name.split(".")[0] for name in (*CHANGES, *ELSEWHERE)}
    assert names == set(MatchingConfig.model_fields)
    assert set(SegmentorConfig.model_fields) == {"network", "unet", "thin"}
    for name, value in CHANGES.items():
        changes = {name: value}
        if name == "segmentor.network":
            changes["block"] = "all"  # the only one that both have
            assert trace(override(BASE, changes)) != trace(override(BASE, {"block": "all"}))
        assert trace(override(BASE, changes)) != base, name
    for name, (setting, value) in ELSEWHERE.items():
        start = override(BASE, {"pretrain_steps": 1} | setting)
        assert trace(override(start, {name: value})) != trace(start), name


STATES = ["trained", "reinitialised", "pretrained", "fixed", "pretrained_fixed"]


@pytest.mark.parametrize(("config", "more"), [(BASE, []), (DEEPLAB, ["scratch"])])
def test_states_of_the_segmentor_differ(config, more):
    trunk = learner(override(DEEPLAB, {"seed": 7})).segmentor.backbone.state_dict()
    start = override(config, {"pretrain_steps": 2})
    found = [trace(override(start, {"state": s}), 5, trunk=trunk) for s in (*STATES, *more)]
    assert len({str(each) for each in found}) == len(found)


def test_what_is_fixed_stays_and_what_is_pretrained_moves_first():
    own = learner(override(BASE, {"state": "pretrained_fixed", "pretrain_steps": 2}))
    first, annotator = parameters(own.segmentor), parameters(own.annotator)
    rows = advance(own, 2)
    pretrained = parameters(own.segmentor)
    assert not torch.equal(pretrained, first)
    assert torch.equal(parameters(own.annotator), annotator)
    assert [set(row) for row in rows] == [{"loss/pretrain", "lr"}] * 2
    assert set(advance(own, 1, start=2)[0]) == {"loss/annotator", "lr"}
    assert torch.equal(parameters(own.segmentor), pretrained)
    assert not torch.equal(parameters(own.annotator), annotator)


def test_new_weights_are_drawn_in_place_of_updates_and_the_trunk_stays():
    trunk = learner(override(DEEPLAB, {"seed": 7})).segmentor.backbone.state_dict()
    config = override(DEEPLAB, {"state": "reinitialised", "segmentor_interval": 2})
    own = learner(config, trunk=trunk)
    heads = []
    for step in range(4):
        advance(own, 1, start=step)
        heads.append(own.segmentor.classes.weight.detach().clone())
        assert torch.equal(own.segmentor.backbone.conv1.weight, trunk["conv1.weight"])
    assert torch.equal(heads[1], heads[2])
    assert not torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[1], heads[3])


def test_passes_have_the_released_modes_and_masks_of_their_own():
    own, seen = learner(DEEPLAB), []
    own.annotator.register_forward_hook(lambda net, *_: seen.append(("annotator", net.training)))
    dropout = next(each for each in own.segmentor.modules() if isinstance(each, SeededDropout))
    dropout.register_forward_hook(lambda net, *_: seen.append((net.aim, net.training)))
    norm = own.segmentor.backbone.bn1
    counts = [0]
    norm.register_forward_hook(lambda net, *_: counts.append(int(net.num_batches_tracked)))
    advance(own, 1)
    annotate, label, match, follow, learn = seen
    assert (annotate, follow) == (("annotator", True), ("annotator", False))
    assert [training for _, training in (label, match, learn)] == [True] * 3
    assert len({aim for aim, _ in (label, match, learn)}) == 3
    assert {aim[1:] for aim, _ in (label, match, learn)} == {(0, 0)}
    assert counts == [0, 1, 2, 3]  # statistics see labelled images as well
    advance(own, 1, start=1)
    assert {aim[1] for aim, _ in seen[6:8]} == {1}


LEARNERS = [
    {"segmentor_interval": 2, "augment": JointConfig().model_dump(mode="json")},
    {"segmentor.network": "deeplab_thin", "block": "head", "lr_floor": 0.1},
    {"objective": "maml", "maml.inner_steps": 2, "optimizer": "adam"},
    {"objective": "pseudo_labels", "pretrain_steps": 4},
    {"objective": "inversion"},
    {"state": "reinitialised", "segmentor_interval": 2},
]


@pytest.mark.parametrize("changes", LEARNERS)
def test_resumed_equals_straight_through(changes):
    config = override(BASE, changes)
    straight, first = learner(config), learner(config)
    rows = advance(straight, 6)
    advance(first, 3)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = learner(config)
    advance(second, 2, start=50)  # what it has learnt so far must not matter
    second.load_state_dict(torch.load(file, weights_only=True))
    torch.manual_seed(1234)  # nor the global generator
    assert same(advance(second, 3, start=3), rows[3:])
    assert same(second.state_dict(), straight.state_dict())
    assert straight.state_dict()["steps_taken"] == 6


def test_a_network_learns_what_it_is_shown():
    config = override(BASE, {"objective": "inversion", "steps": 60, "annotator_lr": 0.05})
    losses = [float(row["loss/annotator"]) for row in advance(learner(config), 60)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    config = override(BASE, {"objective": "pseudo_labels", "pretrain_steps": 30, "steps": 40})
    rows = advance(learner(config), 70)
    pretrain = [float(row["loss/pretrain"]) for row in rows[:30]]
    annotator = [float(row["loss/annotator"]) for row in rows[30:]]
    assert sum(pretrain[-5:]) < 0.8 * sum(pretrain[:5])
    assert sum(annotator[-5:]) < 0.8 * sum(annotator[:5])


def test_matching_brings_the_gradients_together():
    config = override(BASE, {"state": "fixed", "block": "output", "steps": 150, "cutoff": 0})
    losses = [float(row["loss/annotator"]) for row in advance(learner(config), 150)]
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])


def test_the_generator_of_a_file_is_left_alone(tmp_path):
    save_generator(generator(), tmp_path / "generator.safetensors")
    net = read_generator(tmp_path / "generator.safetensors")
    before = tensors(net)
    advance(learner(generator=net), 2)
    assert same(tensors(net), before)


POISON = [
    ("annotator", {}, "annotator"),
    ("annotator", {"objective": "maml"}, "annotator"),
    ("annotator", {"objective": "inversion"}, "annotator"),
    ("annotator", {"annotator_interval": 2}, "segmentor"),
    ("segmentor", {"state": "pretrained", "pretrain_steps": 9}, "pretrain"),
]


@pytest.mark.parametrize(("poisoned", "changes", "phase"), POISON)
def test_a_loss_that_is_not_finite_is_named_and_not_learnt_from(poisoned, changes, phase):
    own = learner(override(BASE, changes))
    advance(own, 2)
    with torch.no_grad():
        next(getattr(own, poisoned).parameters()).fill_(torch.nan)
    before = [parameters(each).nan_to_num() for each in (own.annotator, own.segmentor)]
    with pytest.raises(FloatingPointError, match=f"{phase} loss is nan at step 2"):
        advance(own, 1, start=2)
    for network, value in zip((own.annotator, own.segmentor), before, strict=True):
        assert torch.equal(parameters(network).nan_to_num(), value)
    assert own.steps_taken == 2


def test_another_number_of_images_is_refused():
    batch = matching_batch(labelled(), step=0, config=override(BASE, {"labelled_batch": 3}))
    with pytest.raises(ValueError, match="3 labelled images .* expected labelled_batch = 2"):
        learner().step(batch)


def test_flipped_classes_are_exchanged():
    always = JointConfig(crop_p=0.0, jitter_p=0.0, flip_p=1.0)
    config = override(BASE, {"augment": always.model_dump(mode="json")})
    batch = matching_batch(labelled(), step=0, config=config)
    plain = learner(config).inputs.labelled(batch, 0)[1]
    paired = learner(config, flip_pairs=[(1, 2)]).inputs.labelled(batch, 0)[1]
    assert torch.equal(plain, batch["mask"].long().flip(-1))
    assert torch.equal(paired, torch.tensor([0, 2, 1])[plain])


@pytest.mark.gpu
def test_one_step_on_the_gpu_agrees_with_the_cpu():
    found = [advance(learner(device=each), 1)[0] for each in ("cpu", "cuda")]
    for name, value in found[0].items():
        assert float(found[1][name]) == pytest.approx(float(value), rel=1e-2), name
