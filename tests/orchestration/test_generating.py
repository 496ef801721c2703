"""Samples of a generator as a data set, and as images that a person labels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from jobs import pretrain_contrastive
from raysweep.config import ConfigError, override
from raysweep.data.dataset import describe, open_dataset
from raysweep.features.generator import unpack
from raysweep.orchestration.compute.annotated import read_lineage
from raysweep.orchestration.compute.chain import chain_of
from raysweep.orchestration.compute.datasets import opened
from raysweep.orchestration.compute.learning import pretrain
from raysweep.orchestration.compute.worker import Run
from raysweep.orchestration.on_ray.slots import device_here
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.tasks import samples
from raysweep.presets import smoke
from raysweep.represent.gan_weights import ImportedGan, save_imported
from raysweep.represent.generators import read_generator, sample, to_uint8
from tests.orchestration.samples_cases import (
    GENERATIVE,
    KEY,
    directory_of,
    generator_key,
    make,
    stored_generator,
)


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return stored_generator(tmp_path_factory.mktemp("runs"))


def pictures(folder):
    files = sorted(folder.glob("*.png"))
    return [file.stem for file in files], torch.from_numpy(
        np.stack([np.asarray(Image.open(file)) for file in files])
    ).permute(0, 3, 1, 2)


def expected(storage, count, **options):
    generator = read_generator(directory_of(storage) / "generator.safetensors")
    return torch.cat(list(sample(generator, count, **options)))


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(("seed", "psi"), [(0, 1.0), (3, 0.5)])
def test_images_are_those_of_the_generators_sample(storage, tmp_path, seed, psi):
    assert make(storage, tmp_path / "out", "--seed", str(seed), "--psi", str(psi)) == 0
    names, images = pictures(tmp_path / "out" / "unlabelled")
    assert names == [f"{index:06d}" for index in range(20)]
    assert torch.equal(images, expected(storage, 20, seed=seed, psi=psi))
    lineage = json.loads((tmp_path / "out" / "generated.json").read_text())
    assert lineage == {
        "generator": generator_key(),
        "seed": seed,
        "psi": psi,
        "count": 20,
        "layout": "unlabelled",
        "labelled_by": "nobody",
    }


def test_seed_and_psi_change_the_images(storage):
    images = expected(storage, 4, seed=0)
    assert not torch.equal(images, expected(storage, 4, seed=3))
    assert not torch.equal(images, expected(storage, 4, seed=0, psi=0.5))


def test_the_directory_is_a_data_set_without_labels(storage, tmp_path, monkeypatch):
    monkeypatch.setattr("raysweep.orchestration.tasks.samples.ROWS_PER_FILE", 8)
    make(storage, tmp_path / "out")
    dataset = open_dataset(str(tmp_path / "out"), cache=tmp_path)
    assert dataset.info.counts == {"unlabelled": 20, "train": 0, "val": 0, "test": 0}
    assert dataset.info.classes == ()
    assert torch.equal(dataset.pretraining_images(px=16), expected(storage, 20, seed=0))
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 3
    make(storage, tmp_path / "other", "--seed", "1")
    assert describe(str(tmp_path / "other")).fingerprint != dataset.info.fingerprint


def test_a_representation_learns_from_generated_images(storage, tmp_path, capsys):
    make(storage, tmp_path / "out", count=32)
    flags = ["--preset", "smoke", "--data", str(tmp_path / "out"), "--storage", str(tmp_path)]
    assert pretrain_contrastive.main([*flags, "--dry-run"]) == 0
    changes = {"data.source": str(tmp_path / "out"), "pretrain.steps": 11}
    experiment, store = override(smoke(), changes), StageStore(Storage(str(tmp_path)))
    dataset = opened(experiment.data, str(tmp_path))
    chain = chain_of(experiment, dataset.info.fingerprint)
    asked = chain_of(smoke(), dataset.info.fingerprint).pretrain
    assert f"{asked}: to run" in capsys.readouterr().out
    with store.claim(chain.pretrain) as workspace:
        run_with = Run(store, dataset, device_here(), lambda _: None)
        workspace.commit(pretrain(experiment, chain, workspace, run_with))
    assert (store.directory(chain.pretrain) / "trunk.safetensors").is_file()


@pytest.mark.parametrize("flags", [[], ["--to-label"]], ids=["unlabelled", "to label"])
def test_a_killed_or_enlarged_run_ends_with_the_same_files(storage, tmp_path, flags, monkeypatch):
    make(storage, tmp_path / "straight", *flags)
    out = tmp_path / "again" / "straight"  # the folder names the data set
    make(storage, out, *flags, count=18)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert len(before) == 18
    written = []
    write = samples.write_atomically

    def dying(path, data):
        if path.stem == "000019":
            raise KeyboardInterrupt
        write(path, data)
        written.append(path.name)

    with monkeypatch.context() as patched:
        patched.setattr("raysweep.orchestration.tasks.samples.write_atomically", dying)
        with pytest.raises(KeyboardInterrupt):
            make(storage, out, *flags)
    assert "000018.png" in written
    assert "000017.png" not in written
    make(storage, out, *flags)
    assert content(out) == content(tmp_path / "straight")
    assert before == {path: path.stat().st_mtime_ns for path in before}
    monkeypatch.setattr("raysweep.orchestration.tasks.samples.generate", None)
    make(storage, out, *flags)  # nothing is generated
    assert content(out) == content(tmp_path / "straight")


def test_codes_make_the_images(storage, tmp_path):
    make(storage, tmp_path / "out", "--to-label", "--psi", "0.7")
    names, images = pictures(tmp_path / "out" / "images")
    codes = safetensors.torch.load_file(tmp_path / "out" / "codes.safetensors")
    assert sorted(codes) == names
    generator = read_generator(directory_of(storage) / "generator.safetensors")
    made = to_uint8(generator.synthesis(*unpack(torch.stack(list(codes.values())), generator)))
    difference = made.int() - images[[names.index(name) for name in codes]].int()
    assert difference.abs().max() <= 1
    note = (tmp_path / "out" / "README.txt").read_text()
    assert all(word in note for word in ("20 images", "masks/", "classes.json", "annotated="))
    assert read_lineage(tmp_path / "out").layout == "to_label"


@pytest.mark.parametrize("layout", [[], ["--to-label"]])
def test_dry_run_writes_nothing(storage, tmp_path, layout, capsys):
    assert make(storage, tmp_path / "out", "--dry-run", *layout) == 0
    assert not (tmp_path / "out").exists()
    said = capsys.readouterr().out
    assert "20 images of 16 px, 20 of them to make" in said
    assert "disk: up to 0 MiB" in said
    make(storage, tmp_path / "out", "--dry-run", *layout, count=2000)
    ws, noise = 6 * 8, 4**2 + 2 * (8**2 + 16**2)
    per_image = 16**2 * 3.5 + 4 * (ws + noise) if layout else 2 * 16**2 * 3.5
    assert f"disk: up to {2000 * per_image / 2**20:.0f} MiB" in capsys.readouterr().out


def test_a_directory_of_a_generator_has_the_key_of_its_stage(storage, tmp_path):
    make(storage, tmp_path / "out", generator=str(directory_of(storage)), count=1)
    make(storage, tmp_path / "short", generator=generator_key()[:6], count=1)
    assert read_lineage(tmp_path / "out").generator == generator_key()
    assert read_lineage(tmp_path / "short").generator == generator_key()


def test_an_imported_generator_has_the_key_that_a_chain_gives_it(storage, tmp_path):
    generator = read_generator(directory_of(storage) / "generator.safetensors")
    state = {name: tensor.contiguous() for name, tensor in generator.state_dict().items()}
    imported = ImportedGan(
        "gan.pt", sha256="0", format="rosinality", config=generator.config, generator=state
    )
    save_imported(imported, tmp_path / "gan")
    make(storage, tmp_path / "out", generator=str(tmp_path / "gan"), count=3)
    _, images = pictures(tmp_path / "out" / "unlabelled")
    assert torch.equal(images, expected(storage, 3, seed=0))
    changes = {"pretrain.method": "generator", "pretrain.weights": str(tmp_path / "gan")}
    key = chain_of(override(GENERATIVE, changes), KEY).pretrain.key
    assert read_lineage(tmp_path / "out").generator == key


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"count": 0}, "--count 0: 1 or more"),
        ({"more": ["--psi", "1.5"]}, "--psi 1.5: 0 to 1"),
        ({"generator": "pretrain/ffff0000"}, "no finished stage .* give pretrain/KEY"),
        ({"generator": "fit/"}, "no finished stage"),
        ({"generator": "rgb"}, "has no generator"),
        ({"out": "foreign"}, "not empty and has no generated.json"),
        ({"out": "file"}, "is a file"),
        ({"out": "made", "more": ["--seed", "1"]}, "holds images of seed = 0, not 1"),
        ({"out": "made", "more": ["--to-label"]}, "layout = 'unlabelled', not 'to_label'"),
        ({"out": "made", "count": 1}, "count = 2, not 1"),
    ],
)
def test_bad_input_is_named_before_anything_is_written(storage, tmp_path, flags, message):
    make(storage, tmp_path / "made", count=2)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = content(tmp_path)
    generator = flags.get("generator")
    if generator == "rgb":
        generator = chain_of(override(smoke(), {"pretrain.method": "rgb"}), KEY).pretrain.key
    out = tmp_path / flags.get("out", "new")
    with pytest.raises(ConfigError, match=message):
        make(storage, out, *flags.get("more", ()), generator=generator, count=flags.get("count", 2))
    assert content(tmp_path) == before
