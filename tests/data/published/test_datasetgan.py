import io
import shutil

import numpy as np
import pytest
from PIL import Image

from raysweep.config import ConfigError
from raysweep.data.labels import MERGES, merge
from raysweep.data.published.pixels import decode_npy
from tests.data.published_trees import (
    PX,
    imported,
    label_array,
    picture,
    rotated,
    save,
    save_npy,
    stored,
    write_datasetgan,
)

TEST = "testing_data/face_34_class"


@pytest.fixture
def tree(tmp_path):
    return write_datasetgan(tmp_path / "annotation")


def take_in(tree, tmp_path, **settings):
    outcome = imported(tree, tmp_path / "out", kind="datasetgan", category="face", **settings)
    return outcome, *stored(tmp_path / "out")


def test_folds_see_names_as_text_and_shots_numbers(tmp_path):
    tree = write_datasetgan(tmp_path / "annotation", train=12, test=20)
    _, ids, _, masks, ranks = take_in(tree, tmp_path)
    released = sorted(path.name for path in (tree / TEST).glob("*.png"))
    assert ids["test"] == [f"test/{name.removesuffix('.png')}" for name in released]
    assert ids["test"][:4] == ["test/face_0", "test/face_1", "test/face_10", "test/face_11"]
    assert {ranks[f"train/image_{number}"] for number in (2, 10)} == {2, 10}
    np.testing.assert_array_equal(masks["test/face_10"], label_array(110, 34))
    assert "val" not in ids


def axis_first(array):
    return array[None]


def axis_last(array):
    return array[..., None]


def three_alike(array):
    return np.stack([array] * 3, axis=-1)


def floats(array):
    return array.astype(np.float32)


@pytest.mark.parametrize("form", [axis_first, axis_last, three_alike, floats, np.uint8])
def test_the_label_axis_and_type_do_not_matter(form):
    array = label_array(0, 34, width=9, height=7)
    stream = io.BytesIO()
    np.save(stream, form(array))
    found = decode_npy(stream.getvalue(), where="x")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, array)


def different_layers(array):
    return np.stack([array, array + 1], axis=0)


def fractions(array):
    return array + 0.5


def negative(array):
    return array - 3


def too_large(array):
    return array + 300


def no_axes(array):
    return array.reshape(-1)


@pytest.mark.parametrize("form", [different_layers, fractions, negative, too_large, no_axes])
def test_refuses_arrays_that_are_no_labels(form):
    stream = io.BytesIO()
    np.save(stream, form(label_array(0, 34, width=9, height=7)))
    with pytest.raises(ConfigError, match=r"^mask3\.npy: "):
        decode_npy(stream.getvalue(), where="mask3.npy")


def test_refuses_pickles_and_truncated_arrays(tmp_path):
    path = save_npy(tmp_path / "a.npy", label_array(0, 3))
    with pytest.raises(ConfigError, match=r"a: unreadable or truncated"):
        decode_npy(path.read_bytes()[:-9], where="a")
    np.save(path, np.array([{}], dtype=object))
    with pytest.raises(ConfigError, match=r"a: unreadable or truncated .*allow_pickle"):
        decode_npy(path.read_bytes(), where="a")


def test_a_mask_that_is_a_png_under_that_name_is_read(tree, tmp_path):
    array = label_array(5, 34).astype(np.uint8)
    path = tree / TEST / "image_mask5.npy"
    Image.fromarray(array).save(path, "PNG")
    *_, masks, _ = take_in(tree, tmp_path)
    np.testing.assert_array_equal(masks["test/face_5"], array)


def test_grey_images_and_palette_masks_stay_readable(tree, tmp_path):
    save(tree / TEST / "face_3.png", picture(3, grey=True))
    take_in(tree, tmp_path)
    from raysweep.data.dataset import Dataset
    from raysweep.data.parquet import read_parquet

    dataset = Dataset(read_parquet(str(tmp_path / "out")))
    grey = dataset.images("test", px=PX, names=["test/face_3"])[0].numpy()
    np.testing.assert_array_equal(grey, np.stack([picture(3, grey=True)] * 3))


def test_labels_belong_to_the_pixels_as_stored(tree, tmp_path):
    (tree / TEST / "face_4.png").unlink()
    rotated(tree / TEST / "face_4.jpg", picture(4, width=PX, height=8))
    save_npy(tree / TEST / "image_mask4.npy", label_array(4, 34, height=8))
    (tree / TEST / "face_5.png").unlink()
    rotated(tree / TEST / "face_5.jpg", picture(5, width=PX, height=8))
    save_npy(tree / TEST / "image_mask5.npy", label_array(5, 34, width=8))  # as displayed
    _, _, images, masks, _ = take_in(tree, tmp_path)
    for name, turned in (("test/face_4", 1), ("test/face_5", 6)):
        with Image.open(io.BytesIO(images[name])) as image:
            assert image.getexif().get(0x0112, 1) == turned
    assert masks["test/face_4"].shape == (8, PX)
    assert masks["test/face_5"].shape == (PX, 8)


@pytest.mark.parametrize("target", ["face8", "face8_lagm"])
def test_merges_to_eight_classes(tree, tmp_path, target):
    outcome, _, _, masks, _ = take_in(tree, tmp_path, merge=target)
    rule = MERGES[f"face34_to_{target}"]
    expected = merge(label_array(0, 34).astype(np.uint8), rule)
    np.testing.assert_array_equal(masks["train/image_0"], expected)
    assert outcome.info.classes == rule.target.classes
    assert outcome.info.licence == "CC BY-NC 4.0"


@pytest.mark.parametrize(("category", "classes"), [("car", 20), ("cat", 16)])
def test_cars_and_cats_have_folders_of_their_own(tmp_path, category, classes):
    root = tmp_path / "annotation"
    for number in range(2):
        train, test = f"training_data/{category}_processed", f"testing_data/{category}_{classes}"
        for folder in (train, f"{test}_class"):
            save(root / folder / f"image_{number}.jpg", picture(number))
            save_npy(root / folder / f"image_mask{number}.npy", label_array(number, classes))
    outcome = imported(root, tmp_path / "out", kind="datasetgan", category=category)
    assert len(outcome.info.classes) == classes
    assert outcome.info.counts["train"] == outcome.info.counts["test"] == 2


def label_out_of_range(tree):
    save_npy(tree / TEST / "image_mask7.npy", label_array(7, 34) + 3)


def missing_mask(tree):
    (tree / TEST / "image_mask7.npy").unlink()


def missing_image(tree):
    (tree / TEST / "face_7.png").unlink()


def truncated_mask(tree):
    path = tree / TEST / "image_mask7.npy"
    path.write_bytes(path.read_bytes()[:-1])


def other_shape(tree):
    save_npy(tree / TEST / "image_mask7.npy", label_array(7, 34, width=2 * PX))


def other_case(tree):
    save(tree / TEST / "Face_7.png", picture(7))


FAULTS = [
    (label_out_of_range, "label 36 has no class; face34 has labels 0 to 33", False),
    (missing_mask, "face_7.png: has no mask", False),
    (missing_image, "image_mask7.npy: a mask without its image", False),
    (truncated_mask, "image_mask7.npy: unreadable or truncated", False),
    (other_shape, "proportions of the sides differ", False),
    (other_case, "has the same name as", True),
]


@pytest.mark.parametrize(("fault", "reason", "stays"), FAULTS)
def test_faults_are_named_and_refused_or_skipped(tree, tmp_path, fault, reason, stays):
    fault(tree)
    with pytest.raises(ConfigError) as caught:
        take_in(tree, tmp_path)
    assert reason in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotation"]
    outcome, ids, *_ = take_in(tree, tmp_path, on_error="skip")
    assert [reason in str(problem) for problem in outcome.skipped] == [True]
    assert outcome.info.counts["test"] == len(ids["test"]) == (12 if stays else 11)


def test_badly_annotated_images_can_be_left_out(tree, tmp_path):
    outcome, ids, *_ = take_in(tree, tmp_path, drop=("train/image_1",))
    assert ids["train"] == ["train/image_0", "train/image_2"]
    assert outcome.info.counts["test"] == 12
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(ConfigError, match="--drop 'image_1': no image is called so"):
        take_in(tree, tmp_path, drop=("image_1",))


def test_the_category_is_asked_for(tree, tmp_path):
    for category in (None, "dog"):
        with pytest.raises(ConfigError, match="datasetgan has face, car, cat"):
            imported(tree, tmp_path / "out", kind="datasetgan", category=category)
    with pytest.raises(ConfigError, match="car_processed .*is this the right download"):
        imported(tree, tmp_path / "out", kind="datasetgan", category="car")
