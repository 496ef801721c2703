import io

import numpy as np
import pytest
from PIL import Image

from raysweep.config import ConfigError
from raysweep.data.labels import MERGES, merge
from raysweep.data.published.celebamask_hq import assemble
from tests.data.published_trees import (
    PARTS,
    PX,
    imported,
    part_layer,
    picture,
    rotated,
    save,
    stored,
    write_celebamask,
)
from tests.reference.published import assembled

# photographs of CelebA on both sides of the borders between its parts
ORIGINALS = {0: 182637, 1: 182638, 2: 5, 3: 162770, 10: 162771, 11: 100, 20: 202598}


@pytest.fixture
def tree(tmp_path):
    return write_celebamask(tmp_path / "celeba", list(ORIGINALS), originals=ORIGINALS)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (4, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_later_parts_overwrite_earlier_ones(shape, seed):
    rng = np.random.default_rng(seed)
    layers = {part: 255 * rng.integers(0, 2, shape, dtype=np.uint8) for part in PARTS}
    found = assemble([(PARTS.index(part) + 1, layer) for part, layer in layers.items()])
    np.testing.assert_array_equal(found, assembled(layers))


def test_official_parts_go_by_the_number_in_celeba(tree, tmp_path):
    imported(tree, tmp_path / "out", kind="celebamask-hq")
    ids, images, masks, ranks = stored(tmp_path / "out")
    assert ids == {"train": ["00002", "00003", "00011"], "val": ["00000", "00010"]} | {
        "test": ["00001", "00020"]
    }
    assert [ranks[name] for name in ids["train"]] == [0, 1, 2]  # numbers of train_img
    assert images["00011"] == (tree / "CelebA-HQ-img" / "11.jpg").read_bytes()
    layers = {part: part_layer(11, part) for part in ("skin", "nose", "l_eye", "hair")}
    np.testing.assert_array_equal(masks["00011"], assembled(layers))
    assert masks["00011"].shape == (PX // 2, PX // 2)


def test_lagm_parts_go_by_the_image_number(tmp_path):
    numbers = [0, 27499, 27500, 27999, 28000, 29499, 29500, 29999]
    tree = write_celebamask(tmp_path / "celeba", numbers)
    imported(tree, tmp_path / "out", kind="celebamask-hq", partition="lagm")
    ids, _, masks, ranks = stored(tmp_path / "out")
    assert ids == {
        "unlabelled": ["00000", "27499"],
        "val": ["27500", "27999"],
        "train": ["28000", "29499"],
        "test": ["29500", "29999"],
    }
    assert (ranks["28000"], ranks["29499"], ranks["29500"]) == (0, 1499, None)
    assert "27499" not in masks


@pytest.mark.parametrize("target", ["celebamask10", "face8", "face8_lagm"])
def test_merges_are_applied_and_named(tree, tmp_path, target):
    plain = imported(tree, tmp_path / "plain", kind="celebamask-hq")
    merged = imported(tree, tmp_path / "merged", kind="celebamask-hq", merge=target)
    rule = MERGES[f"celebamask19_to_{target}"]
    before, after = stored(tmp_path / "plain")[2], stored(tmp_path / "merged")[2]
    for name, mask in before.items():
        np.testing.assert_array_equal(after[name], merge(mask, rule))
    assert merged.info.classes == rule.target.classes
    assert merged.info.fingerprint != plain.info.fingerprint
    assert merged.merged
    assert merged.info.name == f"celebamask-hq-{target}"


def test_says_what_it_found(tree, tmp_path):
    outcome = imported(tree, tmp_path / "out", kind="celebamask-hq")
    _, _, masks, _ = stored(tmp_path / "out")
    every = np.concatenate([mask.reshape(-1) for mask in masks.values()])
    for index, name in enumerate(outcome.info.classes):
        assert outcome.shares[name] == pytest.approx(float(np.mean(every == index)))
    assert outcome.shares["hat"] == 0  # never occurs, and is no error
    assert "non-commercial" in outcome.info.licence
    pairs = {tuple(outcome.info.classes[i] for i in pair) for pair in outcome.info.flip_pairs}
    assert ("l_eye", "r_eye") in pairs


def test_parts_of_any_mode_count(tree, tmp_path):
    path = tree / "CelebAMask-HQ-mask-anno" / "0" / "00002_hat.png"
    layer = part_layer(2, "hat")
    Image.fromarray(np.stack([layer] * 3, axis=-1)).convert("P").save(path)
    imported(tree, tmp_path / "out", kind="celebamask-hq")
    assert np.any(stored(tmp_path / "out")[2]["00002"] == 1 + PARTS.index("hat"))


def test_an_orientation_tag_does_not_move_the_labels(tree, tmp_path):
    pixels = picture(77)
    rotated(tree / "CelebA-HQ-img" / "2.jpg", pixels)
    imported(tree, tmp_path / "out", kind="celebamask-hq")
    with Image.open(io.BytesIO(stored(tmp_path / "out")[1]["00002"])) as image:
        assert image.getexif().get(0x0112, 1) == 1
        with Image.open(tree / "CelebA-HQ-img" / "2.jpg") as published:
            np.testing.assert_array_equal(np.asarray(image), np.asarray(published))


def refused(tree, tmp_path, **settings):
    with pytest.raises(ConfigError) as caught:
        imported(tree, tmp_path / "out", kind="celebamask-hq", **settings)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))
    return str(caught.value)


def without_parts(tree):
    for path in tree.glob("CelebAMask-HQ-mask-anno/0/00002_*.png"):
        path.unlink()


def without_image(tree):
    (tree / "CelebA-HQ-img" / "2.jpg").unlink()


def strange_part(tree):
    save(tree / "CelebAMask-HQ-mask-anno" / "0" / "00002_beak.png", part_layer(2, "hat"))


def other_size(tree):
    save(tree / "CelebAMask-HQ-mask-anno" / "0" / "00002_hat.png", picture(0, grey=True))


def wide_image(tree):
    save(tree / "CelebA-HQ-img" / "2.jpg", picture(0, width=2 * PX))


def truncated(tree):
    path = tree / "CelebA-HQ-img" / "2.jpg"
    path.write_bytes(path.read_bytes()[:200])


FAULTS = [
    (without_parts, "2.jpg: no part of it is annotated"),
    (without_image, "a mask without its image"),
    (strange_part, "part 'beak' is none of skin"),
    (other_size, "others of the image are 6 x 6"),
    (wide_image, "proportions of the sides differ"),
    (truncated, "2.jpg: unreadable or truncated"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_faults_are_named_and_refused_or_skipped(tree, tmp_path, fault, reason):
    fault(tree)
    assert reason in refused(tree, tmp_path)
    outcome = imported(tree, tmp_path / "out", kind="celebamask-hq", on_error="skip")
    assert len(outcome.skipped) == 1
    assert reason in str(outcome.skipped[0])
    only_part = fault is strange_part
    assert ("00002" in stored(tmp_path / "out")[0]["train"]) == only_part


def test_the_official_partition_needs_the_mapping(tree, tmp_path):
    (tree / "CelebA-HQ-to-CelebA-mapping.txt").unlink()
    assert "CelebA-HQ-to-CelebA-mapping.txt" in refused(tree, tmp_path)
    imported(tree, tmp_path / "out", kind="celebamask-hq", partition="lagm")
    assert stored(tmp_path / "out")[0]["unlabelled"] == [f"{n:05d}" for n in sorted(ORIGINALS)]


def test_refuses_an_unknown_merge_and_another_download(tree, tmp_path):
    assert "celebamask19 merges to" in refused(tree, tmp_path, merge="car12")
    assert "is this the right download?" in refused(tree / "CelebAMask-HQ-mask-anno", tmp_path)
