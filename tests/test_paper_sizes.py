"""Networks of the papers' settings on meta tensors, against the tables that the papers print."""

import itertools

import pytest
import torch

from raysweep.distill.student_config import build_student
from raysweep.fewshot.segmentors import build_segmentor, matched
from raysweep.nets.fpn import Fpn
from raysweep.nets.gans import build_discriminator, build_generator
from raysweep.nets.pixel_mlps import PixelMlp, pixel_widths
from raysweep.nets.projectors import build_projector
from raysweep.nets.resnet import build_trunk
from raysweep.orchestration.planning.shapes import generator_levels
from raysweep.paper_presets import datasetgan, ganorcon, lagm, lagm_generator, regan, stylegan2_ada
from raysweep.paper_presets.lagm import SIZES as LAGM_SIZES
from raysweep.represent.heads import moco_head, simsiam_predictor, simsiam_projector

CLASSES = {"face34": 34, "car20": 20, "cat16": 16}
BOTH = (False, True)


def every_preset():
    for target, released in itertools.product(CLASSES, BOTH):
        for kind in ("mlp", "conv"):
            yield ganorcon(target, projector=kind, released=released, distilled=True), target
        yield ganorcon(target, method="simsiam", released=released), target
        yield datasetgan(target, released=released), target
    for size, released in itertools.product(("mlp", "s", "m", "l"), BOTH):
        yield regan(size, released=released), None


def levels_of(experiment):
    """Build the representation; return the channels of its maps."""
    represent = experiment.pretrain
    if not represent.generative:
        return build_trunk(represent.trunk).channels
    build_discriminator(represent.network)
    generator = build_generator(represent.network)
    parts = dict(generator.named_modules())
    assert all(layer in parts for layer in experiment.fit.layers)
    return [channels for channels, _ in generator_levels(represent.network, experiment.fit.layers)]


def test_every_preset_builds():
    for experiment, target in every_preset():
        classes = CLASSES.get(target, 10)
        with torch.device("meta"):
            levels = levels_of(experiment)
            build_projector(experiment.fit.projector, levels, classes)
            build_student(experiment.student, classes)
        assert experiment.data.px == experiment.evaluate.px == experiment.label.px
    for target in LAGM_SIZES:
        with torch.device("meta"):
            build_generator(lagm_generator(target).network)


def shapes(module):
    return [tuple(p.shape) for name, p in module.named_parameters() if p.dim() == 4]


def projector_of(target, kind):
    experiment = ganorcon(target, projector=kind)
    with torch.device("meta"):
        channels = build_trunk(experiment.pretrain.trunk).channels
        return build_projector(experiment.fit.projector, channels, CLASSES[target])


def test_mlp_projector_has_the_papers_widths_and_parameters():
    assert shapes(projector_of("face34", "mlp")) == [
        (1024, 3840, 1, 1),
        (256, 1024, 1, 1),
        (34, 256, 1, 1),
    ]
    found = sum(p.numel() for p in projector_of("face34", "mlp").parameters())
    assert found == 3840 * 1024 + 2 * 1024 + 1024 * 256 + 2 * 256 + 256 * 34


MODEL_A = [(3840, 1024), (1024, 256), (256, 256), (256, 256), (256, 512), (512, 512)]
MODEL_A += [(1024, 256), (512, 256), (512, 128), (384, 256), (1280, 256)]
MODEL_B = [(3840, 1024), (1024, 256), (256, 256), (256, 256), (256, 512)]
MODEL_B += [(768, 256), (512, 128), (384, 256), (1280, 256)]


@pytest.mark.parametrize(("target", "table"), [("face34", MODEL_A), ("cat16", MODEL_B)])
def test_conv_projectors_are_appendix_b(target, table):
    found = shapes(projector_of(target, "conv"))
    assert found[:-1] == [(out, wide, 3, 3) for wide, out in table]
    assert found[-1] == (CLASSES[target], 256, 1, 1)
    parameters = sum(p.numel() for p in projector_of(target, "conv").parameters())
    convolutions = sum(9 * wide * out + 3 * out for wide, out in table)  # bias and batch norm
    assert parameters == convolutions + 256 * CLASSES[target] + CLASSES[target]


def test_heads_have_the_official_sizes():
    pretrain = ganorcon().pretrain
    moco, simsiam = pretrain.moco, pretrain.simsiam
    with torch.device("meta"):
        head = moco_head(2048, hidden=moco.hidden, dim=moco.dim, batch_norm=moco.head_batch_norm)
        project = simsiam_projector(2048, dim=simsiam.dim)
        predict = simsiam_predictor(simsiam.dim, hidden=simsiam.predictor_hidden)
    linear = [
        [tuple(m.weight.shape) for m in net if isinstance(m, torch.nn.Linear)]
        for net in (head, project, predict)
    ]
    assert linear[0] == [(2048, 2048), (128, 2048)]
    assert linear[1] == [(2048, 2048)] * 3
    assert linear[2] == [(512, 2048), (2048, 512)]


@pytest.mark.parametrize(("target", "total"), [("face34", 5088), ("car20", 5056), ("cat16", 4992)])
@pytest.mark.parametrize("released", BOTH)
def test_datasetgan_stands_on_the_published_number_of_channels(target, total, released):
    experiment = datasetgan(target, released=released)
    with torch.device("meta"):
        assert sum(levels_of(experiment)) == total
        member = PixelMlp([total], pixel_widths(CLASSES[target]), CLASSES[target])
    first, second = (256, 128) if target == "face34" else (128, 32)
    assert shapes(member) == [
        (first, total, 1, 1),
        (second, first, 1, 1),
        (CLASSES[target], second, 1, 1),
    ]


def test_regan_leaves_the_coarsest_convolution_out():
    experiment = regan(released=True)
    with torch.device("meta"):
        channels = levels_of(experiment)
        net = build_projector(experiment.fit.projector, channels, 10)
    assert len(channels) == 16
    assert sum(channels) == 5056
    wide = [128, *[64] * 6, 32, 10]
    assert [shape[0] for shape in shapes(net)] == wide
    assert [shape[2] for shape in shapes(net)] == [1, *[3] * 8]


@pytest.mark.parametrize(
    ("base", "resolution", "total"),
    [("paper256", 256, 4480), ("paper1024", 512, 5504), ("stylegan2", 1024, 5568)],
)
def test_convolutions_of_stylegan2_have_the_official_channels(base, resolution, total):
    network = stylegan2_ada(base, resolution=resolution).network
    per_block = [network.channels(side) for side in network.resolutions]
    assert 2 * sum(per_block) - per_block[0] == total
    assert network.num_ws == 2 * len(network.resolutions)


@pytest.mark.parametrize(
    ("target", "total"), [("celeba", 2496), ("pascal_horse", 2944), ("face34", 3008)]
)
def test_lagms_annotator_reads_one_map_per_resolution(target, total):
    network = lagm_generator(target).network
    channels = [network.channels(side) for side in network.resolutions[::-1]]
    assert sum(channels) == total
    with torch.device("meta"):
        annotator = Fpn(lagm(target).annotator, channels, 8)
    head = [(128, 128, 3, 3), (128, 128, 3, 3), (8, 128, 3, 3)]
    assert shapes(annotator) == [(128, count, 1, 1) for count in channels] + head


@pytest.mark.parametrize(
    ("segmentor", "tensors", "counted"), [("deeplab", 23, 8), ("unet", 74, 19)]
)
def test_lagm_matches_the_released_number_of_tensors(segmentor, tensors, counted):
    config = lagm(segmentor=segmentor)
    with torch.device("meta"):
        network = build_segmentor(config.segmentor, 8, trunk=None)
    found = matched(network, config.block)
    assert (len(found.parameters), len(found.weights)) == (tensors, counted)
