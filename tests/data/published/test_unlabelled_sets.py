"""LSUN, FFHQ and CGPart's drawn renderings."""

import numpy as np
import pytest
from PIL import Image

from raysweep.config import ConfigError
from raysweep.data.labels import palette
from raysweep.data.published.label_sets import CGPART_CAR15, CGPART_CAR32, find_merge
from tests.data.published_trees import PX, imported, label_array, picture, save, stored
from tests.reference.published import CGPART


def write_ffhq(root, numbers=(0, 1, 999, 1000, 2001)):
    for number in numbers:
        folder = f"{number - number % 1000:05d}"
        save(root / "images1024x1024" / folder / f"{number:05d}.png", picture(number))
    return root


def test_ffhq_is_found_below_its_folders(tmp_path):
    root = write_ffhq(tmp_path / "ffhq")
    outcome = imported(root, tmp_path / "out", kind="ffhq")
    ids, images, _, _ = stored(tmp_path / "out")
    assert ids == {"unlabelled": ["00000", "00001", "00999", "01000", "02001"]}
    path = root / "images1024x1024" / "01000" / "01000.png"
    assert images["01000"] == path.read_bytes()
    assert outcome.left_out["missing numbers"] == 2002 - 5
    assert "CC BY-NC-SA 4.0" in outcome.info.licence


def test_ffhq_in_two_sizes_or_the_wrong_folder(tmp_path):
    root = write_ffhq(tmp_path / "ffhq")
    save(root / "images1024x1024" / "00000" / "01001.png", picture(0))
    outcome = imported(root, tmp_path / "out", kind="ffhq")
    assert outcome.left_out["in the wrong folder"] == 1
    save(root / "thumbnails128x128" / "00000" / "00000.png", picture(0))
    with pytest.raises(ConfigError, match="images1024x1024 and thumbnails128x128; give one"):
        imported(root, tmp_path / "both", kind="ffhq")
    imported(root / "thumbnails128x128", tmp_path / "small", kind="ffhq")
    assert stored(tmp_path / "small")[0] == {"unlabelled": ["00000"]}


def test_a_draw_depends_on_the_seed_and_smaller_ones_lie_in_larger_ones(tmp_path):
    root = write_ffhq(tmp_path / "ffhq", range(40))
    drawn = {}
    for count, seed in ((5, 0), (10, 0), (5, 1)):
        target = tmp_path / f"{count}-{seed}"
        imported(root, target, kind="ffhq", take={"unlabelled": count}, seed=seed)
        drawn[count, seed] = set(stored(target)[0]["unlabelled"])
    assert [len(found) for found in drawn.values()] == [5, 10, 5]
    assert drawn[5, 0] < drawn[10, 0]
    assert drawn[5, 1] != drawn[5, 0]


def write_lsun(root, count=60):
    lmdb = pytest.importorskip("lmdb")
    root.mkdir(parents=True)
    with lmdb.open(str(root), map_size=1 << 24) as environment, environment.begin(write=True) as t:
        for index in range(count):
            path = root.parent / "image.webp"
            Image.fromarray(picture(index)).save(path, lossless=True)
            t.put(f"{index * 7919:040x}".encode(), path.read_bytes())
    return root


@pytest.mark.parametrize("place", ["", "cat_train_lmdb"])
def test_lsun_is_a_seeded_draw_of_a_database(tmp_path, place):
    root = write_lsun(tmp_path / "lsun" / "cat_train_lmdb")
    source = tmp_path / "lsun" / place
    sets = {}
    for seed in (0, 1):
        out = tmp_path / f"out{seed}"
        outcome = imported(source, out, kind="lsun", take={"unlabelled": 7}, seed=seed)
        sets[seed] = stored(out)[0]["unlabelled"]
    assert outcome.info.name == "lsun-cat"
    assert outcome.info.licence == "unknown"
    assert len(sets[0]) == len(sets[1]) == 7
    assert sets[0] != sets[1]
    index = int(sets[0][0], 16) // 7919
    Image.fromarray(picture(index)).save(tmp_path / "again.webp", lossless=True)
    assert stored(tmp_path / "out0")[1][sets[0][0]] == (tmp_path / "again.webp").read_bytes()
    assert root.is_dir()


def test_all_of_a_small_database_is_taken(tmp_path):
    root = write_lsun(tmp_path / "lsun" / "cat")
    assert imported(root, tmp_path / "out", kind="lsun").info.counts["unlabelled"] == 60


def test_lsun_refuses_archives_and_folders_without_a_database(tmp_path):
    pytest.importorskip("lmdb")
    (tmp_path / "cat.zip").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"cannot be read inside an archive; unpack it"):
        imported(tmp_path / "cat.zip", tmp_path / "out", kind="lsun")
    with pytest.raises(ConfigError, match=r"holds no data\.mdb"):
        imported(tmp_path, tmp_path / "out", kind="lsun")
    (tmp_path / "data.mdb").write_bytes(b"x" * 5000)
    with pytest.raises(ConfigError, match="damaged or truncated database"):
        imported(tmp_path / "data.mdb", tmp_path / "out", kind="lsun")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    (tmp_path / "data.mdb").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"needs the package lmdb; pip install 'raysweep\[pub"):
        imported(tmp_path, tmp_path / "out", kind="lsun")


MINIVAN, TRUCK = "4ef6af15bcc78650bedced414fad522f", "42af1d5d3b2524003e241901f2025878"


def save_palette(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array.astype(np.uint8))
    image.putpalette([value for colour in palette(32) for value in colour])
    assert image.mode == "P"
    image.save(path)


def write_cgpart(root, count=8):
    for model in (MINIVAN, TRUCK):
        for index in range(count):
            save(root / "render" / "image" / model / f"{index}.png", picture(index))
            save_palette(root / "render" / "seg" / model / f"{index}.png", label_array(index, 32))
    for index in range(3):
        real = root / "real"
        save(real / "Images" / "car_imagenet_cropped" / f"n{index}.JPEG", picture(50 + index))
        masks = real / "Annotations_png" / "car_imagenet_cropped"
        save_palette(masks / f"n{index}.png", label_array(50 + index, 32))
    (root / "real" / "Image_sets").mkdir()
    (root / "real" / "Image_sets" / "car_imagenet_val.txt").write_text("n0\nn2\n")
    return root


def test_cgpart_trains_on_four_models_and_tests_on_the_val_list(tmp_path):
    root = write_cgpart(tmp_path / "cgpart")
    outcome = imported(root, tmp_path / "out", kind="cgpart", take={"train": 5})
    ids, images, masks, _ = stored(tmp_path / "out")
    assert len(ids["train"]) == 5
    assert all(name.startswith("minivan/") for name in ids["train"])
    assert ids["test"] == ["real/n0", "real/n2"]
    assert outcome.left_out["renderings that were not drawn"] == 3
    np.testing.assert_array_equal(masks["real/n2"], label_array(52, 32))
    stem = ids["train"][0].removeprefix("minivan/")
    assert (
        images[ids["train"][0]]
        == (root / "render" / "image" / MINIVAN / f"{stem}.png").read_bytes()
    )
    assert masks[ids["train"][0]].shape == (PX, PX)


def test_cgpart_a_train_list_validates_and_faults_are_named(tmp_path):
    root = write_cgpart(tmp_path / "cgpart")
    (root / "real" / "Image_sets" / "car_imagenet_train.txt").write_text("n1\nn9\n")
    with pytest.raises(ConfigError, match=r"car_imagenet_train\.txt: lists n9, .* no image"):
        imported(root, tmp_path / "out", kind="cgpart")
    (root / "render" / "seg" / MINIVAN / "3.png").unlink()
    outcome = imported(root, tmp_path / "out", kind="cgpart", on_error="skip")
    assert stored(tmp_path / "out")[0]["val"] == ["real/n1"]
    assert {problem.reason.split(",")[0] for problem in outcome.skipped} == {
        "has no mask",
        "lists n9",
    }


def test_cgpart_merges_to_the_15_classes_of_lagm():
    rule = find_merge(CGPART_CAR32, "cgpart_car15")
    for index, part in enumerate(CGPART_CAR32.classes):
        words = (value for key, value in CGPART.items() if part.endswith(key))
        expected = 0 if index == 0 else next(words, CGPART_CAR15.classes.index("car_body"))
        assert rule.table[index] == expected, part
    assert find_merge(CGPART_CAR32, rule.name) == rule
