"""The papers' settings: their numbers, their sizes on meta tensors, their data."""

import argparse
import importlib.util
import shlex
from pathlib import Path

import pytest

from raysweep.config import ConfigError, override
from raysweep.data.labels import LABEL_SETS
from raysweep.data.published.kinds import PLANNERS
from raysweep.data.published.label_sets import PUBLISHED_MERGES
from raysweep.data.published.wanted import PUBLISHED, WANTED
from raysweep.licences import TERMS
from raysweep.orchestration.planning.plan import make_plan
from raysweep.orchestration.tasks import importing
from raysweep.paper_presets import (
    datasetgan,
    ganorcon,
    lagm,
    lagm_generator,
    paper,
    regan,
    stylegan2_ada,
)
from raysweep.paper_presets.lagm import SIZES as LAGM_SIZES
from search_spaces import projection, projector, resolution

ROOT = Path(__file__).parents[1]
CLASSES = {"face34": 34, "car20": 20, "cat16": 16}


def numbers(experiment, *names):
    values = []
    for name in names:
        value = experiment
        for part in name.split("."):
            value = getattr(value, part)
        values.append(value)
    return values


# GanOrCon, sections 4.1 and 4.2, appendix D; released code as of its README


@pytest.mark.parametrize(
    ("target", "px", "batch", "epochs_of"),
    [("face34", 512, 32, 30_000), ("car20", 512, 32, 100_000), ("cat16", 256, 128, 100_000)],
)
def test_moco_is_the_papers(target, px, batch, epochs_of):
    found = ganorcon(target).pretrain
    assert (found.resolution, found.batch, found.optimizer) == (px, batch, "sgd")
    assert found.steps * batch == pytest.approx(800 * epochs_of, abs=batch)
    assert (found.lr, found.weight_decay, found.sgd_momentum) == (0.03, 1e-4, 0.9)
    assert (found.moco.queue, found.moco.momentum, found.moco.dim) == (65536, 0.999, 128)
    assert found.moco.temperature == 0.2
    views = found.views
    assert (views.crop_scale, views.jitter, views.jitter_p) == ((0.2, 1), (0.4, 0.4, 0.4, 0.1), 0.8)
    assert (views.blur_sigma, views.flip_p) == ((0.1, 2.0), 0.5)


def test_simsiam_takes_half_the_epochs():
    moco, simsiam = (ganorcon(method=name).pretrain for name in ("moco", "simsiam"))
    assert simsiam.steps * 2 == moco.steps
    assert (simsiam.lr, simsiam.weight_decay, simsiam.batch) == (0.05, 1e-4, 32)
    assert (simsiam.simsiam.dim, simsiam.simsiam.predictor_hidden) == (2048, 512)


FIT = ("fit.steps", "fit.batch", "fit.lr", "fit.checkpoints", "fit.shuffle")


@pytest.mark.parametrize(
    ("kind", "released", "expected"),
    [
        ("mlp", False, [800 * 16 // 2, 2, 1e-3, 40, True]),
        ("conv", False, [200 * 16 // 2, 2, 5e-4, 10, True]),
        ("mlp", True, [800 * 16, 1, 1e-3, 40, False]),
        ("conv", True, [800 * 16, 1, 1e-3, 40, False]),
    ],
)
def test_projectors_are_fitted_as_printed_and_as_released(kind, released, expected):
    found = ganorcon(projector=kind, released=released)
    assert numbers(found, *FIT) == expected
    assert numbers(found, "fit.weight_decay", "fit.beta1", "fit.lr_floor") == [5e-4, 0.5, 8e-4]


@pytest.mark.parametrize(("released", "images", "epochs"), [(False, 10_000, 2), (True, 10_001, 5)])
def test_students_of_paper_and_code(released, images, epochs):
    found = ganorcon(distilled=True, released=released)
    assert numbers(found, "label.images", "student.epochs") == [images, epochs]
    assert numbers(found, "student.lr", "student.batch", "student.beta1") == [1e-3, 8, 0.9]
    assert found.student.checkpoints == epochs


# DatasetGAN, ReGAN, LAGM


def test_datasetgan_drops_uncertain_images_in_the_paper_only():
    printed, released = datasetgan(), datasetgan(released=True)
    assert (printed.label.portion, released.label.portion) == (0.1, 0.0)
    assert "epi1" in " ".join(printed.fit.layers)
    assert "conv1" in " ".join(released.fit.layers)
    pixel = printed.fit.pixel
    assert (pixel.members, pixel.batch, pixel.lr, pixel.epochs) == (10, 64, 1e-3, 100)
    assert numbers(printed, "label.images", "student.epochs", "fit.clean_pixels") == [
        10_000,
        20,
        30,
    ]
    assert [datasetgan(t).data.shots for t in CLASSES] == [16, 16, 30]


def test_regan_learns_from_one_image_without_augmentation():
    found = regan(released=True)
    assert numbers(found, "data.shots", "fit.steps", "fit.batch", "fit.lr") == [1, 1000, 1, 1e-3]
    assert numbers(found, "fit.weight_decay", "fit.projector.kind") == [1e-3, "regan_l_released"]
    assert found.fit.augment.crop_p == found.fit.augment.flip_p == found.fit.augment.jitter_p == 0
    student = found.student
    assert (student.batch, student.loss, student.clip_value) == (32, "soft", 0.1)
    assert (student.plateau_patience, student.plateau_floor) == (20, 1e-6)
    assert numbers(found, "label.images", "label.psi") == [5000, 1.0]
    assert regan("s").fit.steps == 100


@pytest.mark.parametrize("target", LAGM_SIZES)
def test_lagm_is_trained_alike_on_every_set(target):
    found = lagm(target)
    assert (found.optimizer, found.momentum, found.lr_floor) == ("sgd", 0.9, 1.0)
    assert (found.annotator_lr, found.segmentor_lr) == (1e-3, 1e-3)
    assert (found.steps, found.labelled_batch, found.generated_batch) == (150_000, 2, 2)
    assert (found.psi, found.segmentor_interval, found.clean_pixels) == (0.7, 1, 30)
    assert found.cutoff == (7 if target in ("cat16", "pascal_horse", "pascal_aeroplane") else 8)
    assert found.resolution <= lagm_generator(target).network.resolution
    assert lagm(target, released=True).normaliser == "released" != found.normaliser


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stylegan2", [32, 2e-3, 10, 10, 4, 32768]),
        ("paper256", [64, 2.5e-3, 1, 20, 8, 16384]),
        ("paper512", [64, 2.5e-3, 0.5, 20, 8, 32768]),
        ("paper1024", [32, 2e-3, 2, 10, 4, 32768]),
    ],
)
def test_named_configurations_of_stylegan2_ada(name, expected):
    gan = stylegan2_ada(name)
    own = [gan.batch, gan.lr, gan.r1_gamma, gan.ema_kimg]
    assert [*own, gan.network.mbstd_group, gan.network.channel_base] == expected
    assert (gan.kimg, gan.mixing, gan.path_weight, gan.r1_interval) == (25_000, 0.9, 2, 16)
    assert gan.ada.enabled
    assert (gan.ada.target, gan.ada.speed_kimg, gan.ada.interval) == (0.6, 500, 4)


# the sweeps


def plan_of(space):
    base, cells = space.BASE["paper"](), space.cells("paper")
    return make_plan(space, base, cells=cells, repeats=3, fingerprint="0" * 16)


@pytest.mark.parametrize(
    ("space", "trials", "stages"),
    [
        # 5 rows x 3 columns; three pretrainings and two baselines shared
        (resolution, 45, {"pretrain": 5, "fit": 45, "evaluate": 45}),
        # 4 baselines, 2 x 2 contrastive, 5 generative; 4 rows distilled too
        (
            projector,
            51,
            {"pretrain": 6, "project": 8, "fit": 39, "label": 12, "distill": 12, "evaluate": 51},
        ),
        # four lengths of search, each over the test split and three draws of labelled images
        (projection, 12, {"pretrain": 1, "project": 16, "fit": 12, "evaluate": 12}),
    ],
    ids=["resolution", "projector", "projection"],
)
def test_trials_and_stages_of_the_sweeps(space, trials, stages):
    plan = plan_of(space)
    names = [stage.name for stage in plan.stages()]
    assert len(plan.trials) == trials
    assert {name: names.count(name) for name in dict.fromkeys(names)} == stages


def same_but_for(experiment, other, *names):
    changes = {name: numbers(other, name)[0] for name in names}
    return override(experiment, changes) == other


def test_rows_of_the_sweeps_are_the_presets():
    rows = {t.configuration: t.experiment for t in plan_of(projector).trials if t.repeat == 0}
    assert rows[("MoCo v2 + MLP", "direct")] == paper()
    assert rows[("MoCo v2 + CONV", "direct")] == ganorcon(projector="conv")
    assert rows[("SimSiam + MLP", "direct")] == ganorcon(method="simsiam")
    assert rows[("MoCo v2 + CONV", "distilled")] == ganorcon(projector="conv", distilled=True)
    cells = {t.configuration: t.experiment for t in plan_of(resolution).trials if t.repeat == 0}
    assert cells[("512 px", "512")].pretrain.steps == 800 * 70_000 // 32
    assert same_but_for(paper(), cells[("512 px", "512")], "pretrain.steps")
    longest = plan_of(projection).trials[-1].experiment
    assert longest.fit.clean_pixels == datasetgan().fit.clean_pixels


# the data


def load(job):
    spec = importlib.util.spec_from_file_location(job, ROOT / "jobs" / f"{job}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


JOBS = ("sweep_resolution", "sweep_projector", "sweep_projection")
JOBS += ("pretrain_contrastive", "pretrain_stylegan")


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["run", "dry"])
def test_without_data_the_paper_preset_says_what_to_get(job, more, tmp_path, monkeypatch):
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    runs = tmp_path / "runs"
    with pytest.raises(ConfigError) as told:
        load(job).main(["--preset", "paper", "--storage", str(runs), *more])
    text = str(told.value)
    for key in ("celebamask-hq", "ffhq", "datasetgan"):
        terms = TERMS[key]
        assert terms.name in text
        assert terms.licence in text
        assert terms.place in text
        assert f"python jobs/import_data.py {key} " in text
    assert not runs.exists()


def test_every_preset_names_data_that_is_known():
    named = {make(target).data.source for make in (ganorcon, datasetgan) for target in CLASSES}
    named.add(regan().data.source)
    assert {name.removeprefix(PUBLISHED) for name in named} <= set(WANTED)
    assert all(name.startswith(PUBLISHED) for name in named)
    assert set(LAGM_SIZES) <= set(WANTED)


@pytest.mark.parametrize("name", WANTED)
def test_commands_are_ones_that_the_importer_takes(name):
    flags = argparse.ArgumentParser()
    importing.add_flags(flags)
    for wanted in WANTED[name]:
        words = shlex.split(wanted.command)
        assert words[:2] == ["python", "jobs/import_data.py"]
        config = importing.config_from(flags.parse_args(words[2:]))
        assert config.kind in PLANNERS
        if config.merge is not None:
            assert config.merge in {rule.target.name for rule in PUBLISHED_MERGES.values()}


def test_the_recommended_set_has_the_classes_of_its_name():
    assert len(LABEL_SETS["celebamask10"].classes) == 10 == regan().label.soft
