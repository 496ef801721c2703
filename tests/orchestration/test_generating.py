"""Samples of a generator as a data set, and as images that a person labels."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from jobs import generate as job
from jobs import pretrain_contrastive
from raysweep.config import ConfigError, override
from raysweep.data.dataset import describe, open_dataset
from raysweep.features.generator import unpack
from raysweep.orchestration import annotated, samples
from raysweep.orchestration.annotated import annotations_of, read_lineage
from raysweep.orchestration.chain import chain_of
from raysweep.orchestration.datasets import opened
from raysweep.orchestration.fitting import inputs_of
from raysweep.orchestration.learning import pretrain
from raysweep.orchestration.pipeline import compute
from raysweep.orchestration.stages import StageStore
from raysweep.orchestration.storage import Storage
from raysweep.orchestration.tune import device_here
from raysweep.orchestration.worker import Run
from raysweep.presets import demo, paper, smoke
from raysweep.represent.gan import Gan
from raysweep.represent.gan_weights import ImportedGan, save_imported
from raysweep.represent.generators import read_generator, sample, save_generator, to_uint8

GENERATIVE = override(
    smoke(),
    {"pretrain.method": "stylegan2", "pretrain.gan.kimg": 0.0, "data.shots": 2, "fit.steps": 10},
)
GENERATED = {"distilled": True, "label.source": "generated"}
KEY = "0" * 16


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """A store whose stages a generator without training and one other representation are."""
    storage = Storage(str(tmp_path_factory.mktemp("runs")))
    store, chain = StageStore(storage), chain_of(GENERATIVE, fingerprint())
    with store.claim(chain.pretrain) as workspace:
        generator = Gan(GENERATIVE.pretrain, device="cpu").average
        save_generator(generator, workspace.path / "generator.safetensors")
        workspace.commit({})
    with store.claim(chain_of(override(smoke(), {"pretrain.method": "rgb"}), KEY).pretrain) as rgb:
        rgb.commit({})
    return storage


def fingerprint():
    return describe("face", builtin=GENERATIVE.data.builtin).fingerprint


def generator_key():
    return chain_of(GENERATIVE, fingerprint()).pretrain.key


def directory_of(storage):
    return StageStore(storage).directory_of("pretrain", generator_key())


def make(storage, out, *flags, generator=None, count=20):
    name = generator or f"pretrain/{generator_key()}"
    arguments = ["--generator", name, "--count", str(count), "--out", str(out), *flags]
    return job.main([*arguments, "--storage", storage.uri])


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
    monkeypatch.setattr("raysweep.orchestration.samples.ROWS_PER_FILE", 8)
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
        patched.setattr("raysweep.orchestration.samples.write_atomically", dying)
        with pytest.raises(KeyboardInterrupt):
            make(storage, out, *flags)
    assert "000018.png" in written
    assert "000017.png" not in written
    make(storage, out, *flags)
    assert content(out) == content(tmp_path / "straight")
    assert before == {path: path.stat().st_mtime_ns for path in before}
    monkeypatch.setattr("raysweep.orchestration.samples.generate", None)
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


# ---------------------------------------------------------------- labels painted by a person


@pytest.fixture(scope="module")
def labelled(storage, tmp_path_factory):
    """Four labelled samples of six: parts by the brightness of the image."""
    out = tmp_path_factory.mktemp("labelled") / "samples"
    make(storage, out, "--to-label", count=6)
    info = describe("face", builtin=GENERATIVE.data.builtin)
    (out / "classes.json").write_text(json.dumps({"classes": list(info.classes)}))
    for name in ("000000", "000002", "000003", "000005"):
        with Image.open(out / "images" / f"{name}.png") as image:
            labels = np.asarray(image.convert("L")) // 64
        Image.fromarray(labels).save(out / "masks" / f"{name}.png")
    return out


@pytest.fixture
def copy(labelled, tmp_path):
    return shutil.copytree(labelled, tmp_path / "copy")


def chain_with(directory, **changes):
    settings = {"annotated": str(directory), **changes}
    return chain_of(override(GENERATIVE, settings), fingerprint())


def test_a_fit_learns_from_annotated_samples(storage, labelled):
    experiment = override(GENERATIVE, {"annotated": str(labelled)})
    dataset = opened(experiment.data, storage.uri)
    store = StageStore(storage)
    run_with = Run(store, dataset, device_here(), lambda _: None)
    result = compute(experiment, run_with)
    chain = chain_of(experiment, dataset.info.fingerprint)
    assert 0 <= result["metrics"]["miou"] < 1
    record = store.record(chain.fit)
    found = annotations_of(str(labelled), generator=generator_key())
    assert record["metrics"]["labelled"] == list(found.shots(2, 0))
    inputs = inputs_of("train", experiment, chain, run_with)
    assert torch.equal(inputs, found.codes(found.shots(2, 0)))
    assert "train codes" not in record["inputs"]
    assert {store.record(s)["config"]["split"] for s in chain.projections.values()} == {
        "val",
        "test",
    }


def test_codes_and_masks_go_together(labelled):
    found = annotations_of(str(labelled), generator=generator_key())
    info = describe("face", builtin=GENERATIVE.data.builtin)
    names = ("000003", "000000")
    codes = safetensors.torch.load_file(labelled / "codes.safetensors")
    assert torch.equal(found.codes(names), torch.stack([codes[name] for name in names]))
    masks = found.masks(names, px=16, info=info)
    wanted = np.stack([np.asarray(Image.open(labelled / "masks" / f"{n}.png")) for n in names])
    assert torch.equal(masks, torch.from_numpy(wanted))
    assert found.masks(names, px=32, info=info).shape == (2, 32, 32)


def test_shots_are_nested_and_drawn(labelled):
    found = annotations_of(str(labelled), generator=generator_key())
    assert found.names == ("000000", "000002", "000003", "000005")
    orders = {draw: found.shots(4, draw) for draw in range(6)}
    assert len(set(orders.values())) > 1
    for draw, order in orders.items():
        assert sorted(order) == list(found.names)
        assert [found.shots(count, draw) for count in (1, 2, 3)] == [order[:c] for c in (1, 2, 3)]


def test_no_labelled_image_of_the_dataset_is_looked_for(labelled):
    assert list(chain_with(labelled).projections) == ["val", "test"]
    assert list(chain_with(labelled, **{"evaluate.protocol": "five_folds"}).projections) == ["test"]
    assert not chain_with(labelled, **GENERATED).projections


def test_the_key_follows_codes_masks_classes_and_draw(labelled, copy):
    key = chain_with(labelled).fit.key
    assert key != chain_of(GENERATIVE, fingerprint()).fit.key
    assert chain_with(copy).fit.key == key  # wherever it lies
    keys = {key, chain_with(copy, **{"data.draw": 1}).fit.key}
    keys.add(chain_with(copy, **{"data.shots": 3}).fit.key)
    (copy / "masks" / "000005.png").unlink()
    keys.add(chain_with(copy).fit.key)
    mask = copy / "masks" / "000000.png"
    Image.fromarray(np.asarray(Image.open(mask)) + 1).save(mask)
    keys.add(chain_with(copy).fit.key)
    codes = safetensors.torch.load_file(copy / "codes.safetensors")
    codes["000000"] = codes["000000"] + 1
    safetensors.torch.save_file(codes, copy / "codes.safetensors")
    keys.add(chain_with(copy).fit.key)
    classes = json.loads((copy / "classes.json").read_text())["classes"]
    (copy / "classes.json").write_text(json.dumps({"classes": classes[::-1]}))
    keys.add(chain_with(copy).fit.key)
    assert len(keys) == 7


def test_files_are_read_once_for_many_chains(labelled, monkeypatch):
    annotated._checked.cache_clear()
    hashed = []
    whole = annotated._hash_of
    monkeypatch.setattr(annotated, "_hash_of", lambda path: hashed.append(path) or whole(path))
    assert chain_with(labelled).fit.key == chain_with(labelled).fit.key
    assert len(hashed) == 5  # codes and four masks


def spoil(copy, what):
    if what == "no masks":
        shutil.rmtree(copy / "masks")
    elif what == "no classes":
        (copy / "classes.json").unlink()
    elif what == "no codes":
        (copy / "codes.safetensors").unlink()
    elif what == "no lineage":
        (copy / "generated.json").unlink()
    elif what == "damaged codes":
        (copy / "codes.safetensors").write_bytes(b"12")
    elif what == "foreign mask":
        shutil.copy(copy / "masks" / "000000.png", copy / "masks" / "mine.png")
    elif what == "size":
        Image.fromarray(np.zeros((8, 16), np.uint8)).save(copy / "masks" / "000000.png")
    elif what == "label":
        Image.fromarray(np.full((16, 16), 99, np.uint8)).save(copy / "masks" / "000000.png")


@pytest.mark.parametrize(
    ("what", "changes", "message"),
    [
        ("no masks", {}, "holds no mask"),
        ("no classes", {}, "classes.json is missing"),
        ("no codes", {}, "codes.safetensors is missing"),
        ("no lineage", {}, "not a directory made by jobs/generate.py"),
        ("damaged codes", {}, "cannot be read"),
        ("foreign mask", {}, "mine.png is of no generated image"),
        ("size", {}, "mask is 16 x 8, its image 16 x 16"),
        ("label", {}, "label 99 has no class"),
        ("", {"data.shots": 5}, "data.shots = 5: only 4 labelled"),
        (
            "",
            {"pretrain.gan.kimg": 0.16},
            "images of generator pretrain/.* but this representation",
        ),
        ("", {"pretrain.method": "moco"}, "takes images, not codes"),
        ("", GENERATED | {"student.plateau_patience": 2}, "student.plateau_patience = 2"),
    ],
)
def test_unusable_annotations_are_named_before_work(copy, what, changes, message):
    spoil(copy, what)
    with pytest.raises(ConfigError, match=message):
        chain_with(copy, **changes)


def test_images_without_codes_cannot_be_annotated(storage, tmp_path):
    make(storage, tmp_path / "out", count=1)
    with pytest.raises(ConfigError, match="made without codes"):
        chain_with(tmp_path / "out")


def test_other_classes_than_those_scored_are_refused(labelled):
    found = annotations_of(str(labelled), generator=generator_key())
    other = describe("car", builtin=GENERATIVE.data.builtin)
    with pytest.raises(ConfigError, match="name the same ones in the same order"):
        found.masks(found.names, px=16, info=other)


def test_a_relative_directory_means_the_same_to_every_worker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert override(GENERATIVE, {"annotated": "mine"}).annotated == str(tmp_path / "mine")


KEYS = {
    "smoke": (smoke, {}, "d09413b28a7314b8 24168cc6196d918a d64686e300b218e5"),
    "demo": (demo, {}, "0f5ee3c9d5c2aeed b021d269171e8000 39450a65c303bbe1"),
    "paper": (paper, {}, "3c2fbc324cfdad7d 0edfc8aee355e242 945217006d89f4c5"),
    "rgb": (
        smoke,
        {"pretrain.method": "rgb"},
        "57e7944174500548 f8ac47937e97aaa1 7057b7573e8efa7f",
    ),
    "generative": (
        smoke,
        {"pretrain.method": "stylegan2"},
        "24fe24a962a9ec1d 4495d8cdc633ed3d 1922381cf834ad35 "
        "7a077dfdd093e13d f9a8c702dbe4d8a8 f5af24167a4123b0",
    ),
    "folds": (
        smoke,
        {"pretrain.method": "stylegan2", "evaluate.protocol": "five_folds"},
        "24fe24a962a9ec1d 4495d8cdc633ed3d 7a077dfdd093e13d f9a8c702dbe4d8a8 38c63ca2a00da198",
    ),
    "student": (
        smoke,
        {"distilled": True},
        "d09413b28a7314b8 24168cc6196d918a e68e577d09b61e07 1ac6361bef908ab5 a4c0eea14a888d8c",
    ),
    "generated": (
        smoke,
        {"pretrain.method": "stylegan2", **GENERATED},
        "24fe24a962a9ec1d 4495d8cdc633ed3d f9a8c702dbe4d8a8 "
        "a57ac1b43525c641 6130ca4b82a0220e 8969d518998f060d",
    ),
}


@pytest.mark.parametrize("name", KEYS)
def test_chains_without_annotations_keep_their_keys(name):
    preset, changes, keys = KEYS[name]
    chain = chain_of(override(preset(), changes), KEY)
    assert " ".join(stage.key for stage in chain) == keys
