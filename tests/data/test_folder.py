import numpy as np
import pytest
from PIL import Image

from raysweep.config import ConfigError
from raysweep.data.folder import read_folder
from raysweep.data.records import Record
from tests.data.folders import FULL_SPLITS, labels, picture, write_folder, write_splits


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "parts")


def splits_of(folder):
    return {record.id: record.split for record in read_folder(folder).records}


def test_a_seeded_split_has_all_parts_and_keeps_the_rest_unlabelled(folder):
    info = read_folder(folder).info
    assert info.counts == {"unlabelled": 2, "train": 4, "val": 1, "test": 1}
    assert info.name == "parts"


@pytest.mark.parametrize("count", [3, 4, 7, 10])
def test_the_seeded_split_has_a_fifth_to_validate_and_a_fifth_to_test(tmp_path, count):
    counts = read_folder(write_folder(tmp_path, labelled=count)).info.counts
    assert counts["val"] == counts["test"] == max(1, round(count / 5))
    assert counts["train"] == count - 2 * counts["val"]


def test_the_seeded_split_does_not_depend_on_the_folder(tmp_path):
    assert splits_of(write_folder(tmp_path / "a")) == splits_of(write_folder(tmp_path / "b"))


def test_an_image_without_mask_is_unlabelled(folder):
    (folder / "masks" / "0.png").unlink()
    assert splits_of(folder)["0"] == "unlabelled"


def test_both_image_folders_may_use_the_same_numbers(folder):
    assert {"0", "unlabelled/0"} <= set(splits_of(folder))


def test_splits_csv_decides_splits_and_ranks(folder):
    write_splits(folder, *FULL_SPLITS)
    source = read_folder(folder)
    assert source.records[:2] == (Record("0", "train", 2), Record("1", "train", 0))
    assert source.info.counts == {"unlabelled": 3, "train": 3, "val": 1, "test": 1}


def test_splits_csv_needs_no_ranks_and_may_begin_with_a_byte_order_mark(folder):
    rows = ("name,split", *(row.rsplit(",", 1)[0] for row in FULL_SPLITS))
    (folder / "splits.csv").write_text("\r\n".join(rows), encoding="utf-8-sig")
    source = read_folder(folder)
    assert source.info.counts["train"] == 3
    assert all(record.rank is None for record in source.records)


def test_classes_json_is_passed_on(tmp_path):
    palette = [[0, 0, 0], [255, 0, 0], [0, 0, 255]]
    folder = write_folder(
        tmp_path, palette=palette, licence="CC0-1.0", flip_pairs=[[1, 2]], name="hands"
    )
    info = read_folder(folder).info
    assert (info.name, info.licence, info.flip_pairs) == ("hands", "CC0-1.0", ((1, 2),))
    assert info.palette == tuple(tuple(colour) for colour in palette)


def test_palette_and_binary_masks_are_indices(folder):
    mask = Image.fromarray(labels(0))
    mask.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    assert mask.mode == "P"
    mask.save(folder / "masks" / "0.png")
    Image.fromarray(labels(1) > 1).save(folder / "masks" / "1.png")
    assert read_folder(folder).info.counts["train"] == 4


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".webp"])
def test_image_formats(folder, suffix):
    (folder / "images" / "0.png").unlink()
    Image.fromarray(picture(0)).save(folder / "images" / f"0{suffix}")
    assert "0" in splits_of(folder)


def test_files_that_are_no_images_are_left_alone(folder):
    before = read_folder(folder).info
    (folder / "images" / "Thumbs.db").write_bytes(b"x")
    (folder / "masks" / "._0.png").write_bytes(b"x")
    assert read_folder(folder).info == before


def test_a_class_may_never_occur(folder):
    (folder / "classes.json").write_text('{"classes": ["a", "b", "c", "never"]}')
    assert read_folder(folder).info.classes[3] == "never"


def test_the_mask_has_the_size_at_which_a_turned_photograph_is_shown(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder / "images" / "0.png").unlink()
    sideways = Image.fromarray(picture(0, width=9, height=12))
    sideways.save(folder / "images" / "0.jpg", exif=exif)
    assert read_folder(folder).info.counts["train"] == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: Image.fromarray(picture(7)).save(folder / "images" / "0.png"),
        lambda folder: Image.fromarray(labels(7)).save(folder / "masks" / "0.png"),
        lambda folder: Image.fromarray(picture(7)).save(folder / "unlabelled" / "0.jpg"),
        lambda folder: (folder / "unlabelled" / "0.jpg").unlink(),
        lambda folder: (folder / "unlabelled" / "0.jpg").rename(folder / "unlabelled" / "9.jpg"),
        lambda folder: (folder / "classes.json").write_text('{"classes": ["a", "b", "c"]}'),
        lambda folder: write_folder(folder, flip_pairs=[[1, 2]]),
        lambda folder: write_splits(folder, *FULL_SPLITS[1:], "0,train,3"),
        lambda folder: write_splits(folder, *FULL_SPLITS[:3], "3,test,", "4,val,", "5,test,"),
    ],
)
def test_the_fingerprint_follows_everything_that_can_change_a_result(folder, change):
    write_splits(folder, *FULL_SPLITS)
    before = read_folder(folder).info.fingerprint
    assert read_folder(folder).info.fingerprint == before
    change(folder)
    assert read_folder(folder).info.fingerprint != before


def refusal(folder):
    with pytest.raises(ConfigError) as caught:
        read_folder(folder)
    return str(caught.value)


def test_refuses_a_mask_of_another_size(folder):
    Image.fromarray(labels(0, width=6)).save(folder / "masks" / "0.png")
    message = refusal(folder)
    assert "masks/0.png: mask is 6 x 9, 0.png is 12 x 9" in message
    assert "save the mask at the image's size" in message


def test_refuses_a_label_without_class(folder):
    mask = labels(3)
    mask[0, 0] = 3
    Image.fromarray(mask).save(folder / "masks" / "3.png")
    message = refusal(folder)
    assert "masks/3.png: label 3 has no class; known are 0 to 2 (background, left" in message
    assert "add the class to classes.json" in message


@pytest.mark.parametrize("place", ["images/0.png", "masks/0.png", "unlabelled/0.jpg"])
@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda _: b"text"]
)
def test_refuses_unreadable_and_truncated_files(folder, place, damage):
    path = folder / place
    path.write_bytes(damage(path.read_bytes()))
    message = refusal(folder)
    assert f"{path}: unreadable or truncated" in message
    assert "replace or remove" in message
    assert "0x" not in message


def test_refuses_colour_masks(folder):
    Image.fromarray(picture(0)).save(folder / "masks" / "0.png")
    assert "masks/0.png: mask of mode RGB, one 8-bit channel is needed; convert" in refusal(folder)


def test_refuses_jpeg_masks(folder):
    (folder / "masks" / "0.png").unlink()
    Image.fromarray(labels(0)).save(folder / "masks" / "0.jpg")
    assert "masks/0.jpg: masks are PNG, not JPEG" in refusal(folder)


def test_refuses_sixteen_bit_images(folder):
    deep = Image.fromarray(np.zeros((9, 12), dtype=np.uint16))
    deep.save(folder / "images" / "0.png")
    assert "images/0.png: more than 8 bits per channel; convert" in refusal(folder)


def test_refuses_a_mask_without_image_and_lists_what_was_looked_for(folder):
    (folder / "images" / "0.png").unlink()
    message = refusal(folder)
    assert "masks/0.png has no image" in message
    assert "0.jpg, 0.jpeg, 0.png, 0.webp" in message


def test_refuses_two_images_of_one_name(folder):
    Image.fromarray(picture(0)).save(folder / "images" / "0.jpg")
    assert "images/0.png: 0.jpg has the same name; rename one" in refusal(folder)


def test_refuses_a_folder_without_labels(folder):
    for path in (folder / "masks").iterdir():
        path.unlink()
    assert "has no labelled image; put an index PNG" in refusal(folder)


def test_refuses_fewer_than_three_labelled_images(tmp_path):
    message = refusal(write_folder(tmp_path, labelled=2))
    assert "has 2 labelled images; at least 3 are needed" in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "classes.json is missing; list the class names"),
        ("{", "Expecting property name"),
        ('["a", "b"]', "holds a list, not an object"),
        ("{}", "classes = {}: Field required"),
        ('{"classes": "skin"}', "classes = 'skin'"),
        ('{"classes": []}', "classes"),
        ('{"classes": ["a", "b", "c"], "colours": []}', "colours"),
        ('{"classes": ["a", "b", "a"]}', "give distinct names"),
        ('{"classes": ["a", "b", "c"], "palette": [[0, 0, 0]]}', "give one for each"),
        ('{"classes": ["a"], "palette": [[0, 0, 256]]}', "outside 0 to 255"),
        ('{"classes": ["a", "b", "c"], "flip_pairs": [[1, 3]]}', "flip_pairs"),
    ],
)
def test_refuses_an_unusable_classes_json(folder, text, part):
    path = folder / "classes.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    message = refusal(folder)
    assert message.startswith(str(path))
    assert part in message
    assert '{"classes": ["background", "hair", "skin"]}' in message


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        (("7,train,",), "line 2: no image is called '7'; names are file names without suffix"),
        (("0,training,",), "line 2: split 'training'; allowed are unlabelled, train, val, test"),
        (("0,train,", "0,val,"), "line 3: '0' is listed twice; keep one row"),
        (("unlabelled/0,test,",), "has no mask, so it cannot be of split test; add masks/"),
        (("0,train,first",), "line 2: train_rank 'first'; give 0, 1, 2"),
        (("0,val,1",), "line 2: train_rank '1'; give 0, 1, 2, ... to training images"),
        (FULL_SPLITS[:5], "does not list '5', which has a mask; add it"),
        ((*FULL_SPLITS[1:], "0,train,1"), "train_rank 1 is given twice"),
        ((*FULL_SPLITS[:4], "4,val,", "5,val,"), "no image is of split test; give it at least one"),
    ],
)
def test_refuses_unusable_rows_of_splits_csv(folder, rows, part):
    write_splits(folder, *rows)
    message = refusal(folder)
    assert message.startswith(str(folder / "splits.csv"))
    assert part in message


def test_refuses_other_columns_in_splits_csv(folder):
    (folder / "splits.csv").write_text("image,split\n0,train\n")
    assert "columns are image, split; expected name, split, train_rank" in refusal(folder)
