"""A teacher's labels, one field of the config at a time, and sets of shards in the making."""

import json

import pyarrow.fs as pafs
import pytest
import torch
from torch import nn

from raysweep import rng
from raysweep.config import ConfigError, override
from raysweep.distill.labelling import LabelConfig, units_of
from raysweep.distill.manifest import read_manifest
from raysweep.distill.production import Production
from raysweep.distill.rows import OpenShard, decode, row_of
from raysweep.distill.shards import ShardsConfig, decode_soft
from raysweep.distill.teacher import Teacher, generate
from raysweep.features.representation import RawColour
from raysweep.fewshot.ensemble import Ensemble, Majority
from raysweep.nets.gans import build_generator
from raysweep.nets.stylegan1 import StyleGan1Config
from raysweep.nets.stylegan2 import StyleGan2Config
from raysweep.represent.generators import sample
from tests.distill.pseudo import CLASSES, row
from tests.reference import ensemble as ensemble_reference
from tests.reference import labelling as reference

PX = 6
CONFIG = LabelConfig(images=10, px=PX)


class Linear(nn.Module):
    """An annotator of one 1x1 convolution."""

    def __init__(self, seed):
        super().__init__()
        self.conv = nn.Conv2d(3, CLASSES, 1)
        generator = rng.generator(seed, "annotator")
        for tensor in self.conv.parameters():
            tensor.data = torch.randn(tensor.shape, generator=generator)

    def forward(self, levels, px):
        return self.conv(levels[0])


def images_of(count=3, px=PX):
    generator = rng.generator(0, "images", px)
    return torch.randint(0, 256, (count, 3, px, px), generator=generator, dtype=torch.uint8)


def annotator_of(members):
    return Linear(0) if members == 1 else Majority(Ensemble([Linear(m) for m in range(members)]))


def said(members=1, *, images=None, **changes):
    teacher = Teacher(
        RawColour(), annotator_of(members), resolution=PX, config=override(CONFIG, changes)
    )
    with torch.no_grad():
        return teacher.label(images_of() if images is None else images)


def scores_of(annotator, images):
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        return annotator([(images.float() / 255 - mean) / std], PX)


@pytest.mark.parametrize("members", [1, 2, 5])
@pytest.mark.parametrize("clean", [0, 8])
def test_labels_uncertainty_and_soft_labels_are_those_of_the_definition(members, clean):
    images, annotator = images_of(), annotator_of(members)
    found = said(members, soft=CLASSES, clean_pixels=clean)
    for at in range(len(images)):
        if members == 1:
            pixels = scores_of(annotator, images)[at].flatten(1).T.tolist()
            labels, uncertainty, probabilities = reference.single(pixels)
        else:
            every = scores_of(annotator.ensemble, images)[:, at].flatten(2)
            pixels = every.permute(2, 0, 1).tolist()
            labels, uncertainty, probabilities = reference.ensemble(pixels)
        assert found.masks[at].flatten().tolist() == reference.cleaned(labels, clean)
        assert float(found.uncertainty[at]) == pytest.approx(uncertainty, rel=1e-4)
        classes, levels = found.soft[at].flatten(2).long()
        for pixel, expected in enumerate(probabilities):
            dense = dict(zip(classes[:, pixel].tolist(), levels[:, pixel].tolist(), strict=True))
            for label, value in enumerate(expected):
                assert dense[label] / 255 == pytest.approx(value, abs=1 / 255 + 1e-6)


def test_rows_hold_the_image_and_what_was_said_of_it():
    teacher = Teacher(
        RawColour(), annotator_of(1), resolution=PX, config=override(CONFIG, {"soft": 2})
    )
    images = images_of(20)  # more than a batch
    rows = teacher.rows([f"i{at}" for at in range(20)], images, images, key="fit/abc")
    assert [made.id for made in rows] == [f"i{at}" for at in range(20)]
    assert {made.teacher for made in rows} == {"fit/abc"}
    whole = teacher.label(images)
    for at, made in enumerate(rows):
        decoded = decode(made, num_classes=CLASSES, soft=True)
        assert torch.equal(decoded["image"], images[at])
        assert torch.equal(decoded["mask"], whole.masks[at])
        assert decode_soft(made.soft, num_classes=CLASSES).sum(0).allclose(torch.ones(PX, PX))


def test_masks_have_the_size_that_is_stored_not_that_of_the_fit():
    found = said(px=9)
    assert found.masks.shape == (3, 9, 9)


SMALL = {"resolution": 16, "z_dim": 4, "w_dim": 4, "mapping_layers": 1}
GENERATORS = {
    "stylegan2": StyleGan2Config(channel_base=64, channel_max=8, **SMALL),
    "stylegan1": StyleGan1Config(channel_base=64, channel_max=8, **SMALL),
}


def generator_of(kind):
    with rng.seeded(0, kind):
        generator = build_generator(GENERATORS[kind]).eval()
    generator.mapping.w_avg.fill_(0.3)
    return generator


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("psi", [1.0, 0.5])
def test_generated_images_are_those_of_the_seed_and_belong_to_their_codes(kind, psi):
    generator = generator_of(kind)
    config = override(CONFIG, {"px": 16, "psi": psi, "seed": 3, "source": "generated"})
    images, codes = generate(generator, 4, 18, config=config)
    every = torch.cat(list(sample(generator, 22, seed=3, psi=psi)))
    assert (images.int() - every[4:].int()).abs().max() <= 1  # other batches, other last bits
    from raysweep.features.generator import unpack
    from raysweep.represent.generators import to_uint8

    with torch.no_grad():
        again = to_uint8(generator.synthesis(*unpack(codes, generator)))
    assert (again.int() - images.int()).abs().max() <= 1


@pytest.mark.parametrize("change", [{"psi": 0.5}, {"seed": 1}, {"px": 8}])
def test_settings_of_generated_images_change_them(change):
    config = override(CONFIG, {"px": 16, "source": "generated"})
    generator = generator_of("stylegan2")
    plain, _ = generate(generator, 0, 2, config=config)
    changed, _ = generate(generator, 0, 2, config=override(config, change))
    assert plain.shape != changed.shape or not torch.equal(plain, changed)


def test_key_depends_on_what_is_read_only():
    def keys(**changes):
        return override(CONFIG, changes).relevant()

    assert keys(psi=0.5) == keys(seed=3) == keys(released=True) == keys()
    generated = {"source": "generated"}
    assert keys(**generated, psi=0.5) != keys(**generated)
    assert keys(**generated, seed=3) != keys(**generated)
    assert keys(portion=0.2, released=True) != keys(portion=0.2)
    for change in ({"images": 9}, {"portion": 0.2}, {"clean_pixels": 3}, {"soft": 1}, {"px": 7}):
        assert keys(**change) != keys(), change
    assert keys(**{"shards.rows_per_file": 7}) != keys()


def test_a_portion_that_drops_nothing_is_refused():
    with pytest.raises(ConfigError, match="drops none of images = 10"):
        override(CONFIG, {"portion": 0.05})


# sets in the making


def production(root, images=10, **changes):
    base = CONFIG.model_copy(update={"shards": ShardsConfig(rows_per_file=4)})
    return Production(
        files=pafs.LocalFileSystem(),
        root=str(root),
        config=override(base, {"images": images, **changes}),
        images=images,
        teacher="fit/abc",
        num_classes=CLASSES,
    )


def scored(index):
    return row(index, uncertainty=float((index * 7) % 10))


def write(made, shards):
    for shard in shards:
        first = shard * 4
        made.write(shard, [scored(at) for at in range(first, min(first + 4, made.images))])


def stored(root):
    manifest = read_manifest(pafs.LocalFileSystem(), str(root))
    names = []
    for file in manifest.files:
        shard = OpenShard(pafs.LocalFileSystem(), f"{root}/{file.name}", size=file.bytes)
        for group, count in enumerate(shard.group_rows):
            names += [row_of(shard.read(group), at).id for at in range(count)]
        shard.close()
    return manifest, names


def test_units_cover_every_image_once():
    for images, rows in ((1, 4), (10, 4), (200, 130), (64, 64)):
        shards = -(-images // rows)
        covered = []
        for shard in range(shards):
            for unit in units_of(shard, images=images, rows_per_file=rows):
                assert unit.shard == shard
                covered += range(unit.first, unit.first + unit.images)
        assert covered == list(range(images))


@pytest.mark.parametrize(
    ("portion", "released", "images"),
    [(0.0, False, 10), (0.2, False, 10), (0.5, True, 40), (0.9, False, 40)],
)
def test_a_finished_set_holds_the_images_that_are_certain(tmp_path, portion, released, images):
    made = production(tmp_path, images, portion=portion, released=released)
    made.begin("data")
    write(made, made.missing())
    manifest = made.finish()
    scores = [scored(at).uncertainty for at in range(images)]
    kept = ensemble_reference.kept(scores, portion, released=released) if portion else None
    expected = range(images) if kept is None else sorted(kept)
    assert stored(tmp_path)[1] == [f"i{at}" for at in expected]
    assert manifest.rows == len(expected)
    assert [file.rows for file in manifest.files[:-1]] == [4] * (len(manifest.files) - 1)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {file.name for file in manifest.files} | {"manifest.json", "labelling.json"}


@pytest.mark.parametrize("portion", [0.0, 0.2])
def test_what_is_finished_is_not_asked_for_again(tmp_path, portion):
    straight = production(tmp_path / "straight", portion=portion)
    straight.begin("data")
    write(straight, [0, 1, 2])
    expected = straight.finish()
    made = production(tmp_path / "made", portion=portion)
    made.begin("data")
    write(made, [1])
    again = production(tmp_path / "made", portion=portion)
    again.begin("data")
    assert again.missing() == [0, 2]
    write(again, [0, 2])
    assert again.missing() == []
    assert again.finish() == expected
    assert again.missing() == []
    assert again.finish() == expected, "finishing twice changes nothing"


def test_a_kill_while_rows_are_dropped_leaves_a_set_that_can_be_finished(tmp_path):
    made = production(tmp_path, portion=0.2)
    made.begin("data")
    write(made, [0, 1, 2])
    (tmp_path / "shard-000000.parquet").write_bytes(b"half a file")
    (tmp_path / "shard-000001.parquet.tmp").write_bytes(b"half a file")
    assert made.finish().rows == 8
    assert sum(name.startswith("i") for name in stored(tmp_path)[1]) == 8
    assert not list(tmp_path.glob("labelled-*"))
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    "other", [{"clean_pixels": 5}, {"images": 8}, {"px": 7}, {"portion": 0.3}, {"soft": 1}]
)
def test_other_labels_do_not_mix(tmp_path, other):
    production(tmp_path).begin("data")
    changed = production(tmp_path, **({"images": 10} | other))
    with pytest.raises(ConfigError, match="begun with another teacher"):
        changed.begin("data")
    with pytest.raises(ConfigError, match="begun with another teacher"):
        production(tmp_path).begin("other data")


def test_shards_of_others_are_left_alone(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({}))
    with pytest.raises(ConfigError, match="holds other shards"):
        production(tmp_path).begin("data")


def test_too_few_images_to_drop_from_are_refused(tmp_path):
    made = production(tmp_path, portion=0.9, released=True)  # the released rule drops 30 more
    made.begin("data")
    write(made, [0, 1, 2])
    with pytest.raises(ConfigError, match=r"label\.portion = 0\.9: no image is left of 10"):
        made.finish()
