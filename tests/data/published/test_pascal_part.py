import io
import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from raysweep.config import ConfigError
from raysweep.data.published import pascal_part
from raysweep.data.published.crops import Box, Crop, overlap, padded, square
from raysweep.data.published.label_sets import PASCAL_TABLES
from tests.data.published_trees import imported, picture, save, stored
from tests.reference.published import AEROPLANE, HORSE, boxes_overlap, square_crop

WIDTH, HEIGHT = 90, 60


def save_mat(path, objects):
    """Write objects as ``(category, [(part, mask), ...])`` in the published struct."""
    kinds = [(name, object) for name in ("class", "class_ind", "mask", "parts")]
    part_kinds = [("part_name", object), ("mask", object)]
    rows = []
    for category, parts in objects:
        whole = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        for _, mask in parts:
            whole |= mask
        listed = np.array(parts, dtype=part_kinds) if parts else np.zeros((0, 0))
        rows.append((category, 13.0, whole, listed))
    path.parent.mkdir(parents=True, exist_ok=True)
    table = np.empty((1, len(rows)), dtype=kinds)
    for at, row in enumerate(rows):
        table[0, at] = row
    savemat(path, {"anno": {"imname": path.stem, "objects": table}})


def block(left, top, right, bottom):
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def save_boxes(path, boxes):
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin>"
        f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for name, b in boxes
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><size/>{objects}</annotation>")


def horse(box):
    """Head over the left half of a box, torso over all of it, drawn torso first."""
    left, top, right, bottom = box[0] - 1, box[1] - 1, box[2], box[3]
    middle = (left + right) // 2
    parts = [
        ("torso", block(left, top, right, bottom)),
        ("lfuleg", block(left, bottom - 3, right, bottom)),
        ("muzzle", block(left, top, middle, top + 4)),
    ]
    return "horse", parts


def write_photograph(root, stem, boxes, *, others=()):
    save(root / "JPEGImages" / f"{stem}.jpg", picture(len(stem), width=WIDTH, height=HEIGHT))
    save_boxes(root / "Annotations" / f"{stem}.xml", [("horse", b) for b in boxes])
    objects = [horse(box) for box in boxes] + list(others)
    save_mat(root / "Annotations_Part" / f"{stem}.mat", objects)


LEFT, RIGHT, BORDER = (1, 5, 40, 54), (45, 10, 88, 50), (50, 1, 90, 60)


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "VOC2010"
    person = ("person", [("head", block(0, 0, 9, 9))])
    write_photograph(root, "2008_000010", [LEFT, RIGHT], others=[person])
    write_photograph(root, "2008_000009", [BORDER])
    write_photograph(root, "2008_000002", [LEFT, (10, 20, 41, 56)])  # overlap
    write_photograph(root, "2008_000003", [(3, 3, 33, 60), RIGHT])  # the first is 31 px wide
    write_photograph(root, "2008_000100", [RIGHT])
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    trains = ["2008_000009  1", "2008_000010  1", "2008_000002  1", "2008_000099 -1"]
    (lists / "horse_train.txt").write_text("\n".join([*trains, "2008_000003  1"]) + "\n")
    (lists / "horse_val.txt").write_text("2008_000100  1\n2008_000003 -1\n2008_000007  0\n")
    return root


def take_in(tree, tmp_path, **settings):
    settings = {"kind": "pascal-part", "category": "horse"} | settings
    return imported(tree, tmp_path / "out", **settings), *stored(tmp_path / "out")


def test_splits_crops_and_what_is_left_out(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(pascal_part, "LABELLED_CROPS", 2)
    outcome, ids, _, _, ranks = take_in(tree, tmp_path)
    assert ids["train"] == ["2008_000003_1", "2008_000009_0"]
    assert ids["val"] == ["2008_000010_0", "2008_000010_1"]
    assert ids["test"] == ["2008_000100_0"]
    assert (ranks["2008_000009_0"], ranks["2008_000010_0"]) == (1, None)
    assert outcome.left_out == {
        "boxes that overlap": 2,
        "boxes too small": 1,
        "crops with few parts": 0,
    }


def test_180_crops_are_labelled_as_published():
    assert pascal_part.LABELLED_CROPS == 180


@pytest.mark.parametrize("name", ["2008_000009_0", "2008_000010_0", "2008_000010_1"])
def test_crops_agree_with_the_description(tree, tmp_path, name):
    _, _, images, masks, _ = take_in(tree, tmp_path)
    stem, place = name.rsplit("_", 1)
    boxes = [BORDER] if stem.endswith("9") else [LEFT, RIGHT]
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for box in boxes:
        for part, mask in horse(box)[1]:
            index = next(i for i, parts in HORSE.items() if part in parts.split())
            labels[mask > 0] = index
    with Image.open(tree / "JPEGImages" / f"{stem}.jpg") as photograph:
        pixels = np.asarray(photograph.convert("RGB"))
    np.testing.assert_array_equal(masks[name], square_crop(labels, boxes[int(place)]))
    with Image.open(io.BytesIO(images[name])) as image:
        np.testing.assert_array_equal(np.asarray(image), square_crop(pixels, boxes[int(place)]))
    assert masks[name].shape[0] == masks[name].shape[1]


def random_box(rng):
    left, right = sorted(rng.integers(1, WIDTH + 1, 2))
    top, bottom = sorted(rng.integers(1, HEIGHT + 1, 2))
    return int(left), int(top), int(right) + (left == right), int(bottom) + (top == bottom)


@pytest.mark.parametrize("seed", range(20))
def test_squares_agree_with_the_description_at_every_border(seed):
    rng = np.random.default_rng(seed)
    box = random_box(rng)
    box = (box[0], box[1], min(box[2], WIDTH), min(box[3], HEIGHT))
    pixels = picture(seed, width=WIDTH, height=HEIGHT)
    found = padded(pixels, square(Box(*box), height=HEIGHT, width=WIDTH))
    np.testing.assert_array_equal(found, square_crop(pixels, box))


@pytest.mark.parametrize("seed", range(10))
def test_overlap_agrees_with_counting_pixels(seed):
    rng = np.random.default_rng(seed)
    one, other = random_box(rng), random_box(rng)
    assert (overlap(Box(*one), Box(*other)) > 0.05) == boxes_overlap(one, other)


def test_crops_survive_being_written_as_text():
    assert Crop.parse(str(Crop(1, 2, 30, 40))) == Crop(1, 2, 30, 40)


@pytest.mark.parametrize(("category", "groups"), [("horse", HORSE), ("aeroplane", AEROPLANE)])
def test_tables_agree_with_the_paper(category, groups):
    table = PASCAL_TABLES[category].checked()
    assert len(table.classes) == 6
    for index, parts in groups.items():
        assert [table.index_of(part) for part in parts.split()] == [index] * len(parts.split())
    assert table.index_of("propeller") is None


def test_aeroplanes_must_be_larger(tmp_path, tree):
    for folder, suffix in (("Annotations", "xml"),):
        for path in (tree / folder).glob(f"*.{suffix}"):
            path.write_text(path.read_text().replace("horse", "aeroplane"))
    for path in (tree / "ImageSets" / "Main").glob("horse_*.txt"):
        path.rename(path.with_name(path.name.replace("horse", "aeroplane")))
    wing = [("aeroplane", [("lwing", block(0, 0, WIDTH, HEIGHT))])]
    for path in (tree / "Annotations_Part").glob("*.mat"):
        save_mat(path, wing)
    with pytest.raises(ConfigError, match="no aeroplane that can be cropped"):
        take_in(tree, tmp_path, category="aeroplane")


def test_other_classes_need_a_table_of_parts(tree, tmp_path):
    with pytest.raises(ConfigError, match=r"no paper merges its parts; .* --table FILE"):
        take_in(tree, tmp_path, category="cow")
    table = tmp_path / "table.json"
    table.write_text(
        json.dumps({"classes": ["background", "horse"], "parts": {"*": "horse"}, "source": "me"})
    )
    outcome, *_, masks, _ = take_in(tree, tmp_path, table=str(table))
    assert outcome.info.classes == ("background", "horse")
    assert {int(mask.max()) for mask in masks.values()} == {1}
    table.write_text(json.dumps({"classes": ["background"], "parts": {"*": "horse"}}))
    with pytest.raises(ConfigError, match=r"table\.json: parts\.\* = 'horse': classes are back"):
        imported(tree, tmp_path / "b", kind="pascal-part", category="horse", table=str(table))


def unknown_part(tree):
    save_mat(
        tree / "Annotations_Part" / "2008_000100.mat",
        [("horse", [("wing", block(0, 0, WIDTH, HEIGHT))])],
    )


def damaged_mat(tree):
    path = tree / "Annotations_Part" / "2008_000100.mat"
    path.write_bytes(path.read_bytes()[:150])


def missing_mat(tree):
    (tree / "Annotations_Part" / "2008_000100.mat").unlink()


def damaged_image(tree):
    path = tree / "JPEGImages" / "2008_000100.jpg"
    path.write_bytes(path.read_bytes()[:300])


def damaged_boxes(tree):
    (tree / "Annotations" / "2008_000100.xml").write_text("<annotation>")


FAULTS = [
    (unknown_part, "part 'wing' of horse is in no class of LAGM"),
    (damaged_mat, "2008_000100.mat: not a file of PASCAL-Part, or damaged"),
    (missing_mat, "2008_000100: listed for horse, no mask"),
    (damaged_image, "2008_000100.jpg: unreadable or truncated"),
    (damaged_boxes, "2008_000100.xml: not a box file of VOC"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_faults_are_named_and_refused_or_skipped(tree, tmp_path, fault, reason):
    fault(tree)
    with pytest.raises(ConfigError) as caught:
        take_in(tree, tmp_path)
    assert reason in str(caught.value)
    outcome, ids, *_ = take_in(tree, tmp_path, on_error="skip")
    assert [reason in str(problem) for problem in outcome.skipped] == [True]
    assert "test" not in ids
    assert len(ids["train"]) == 4
