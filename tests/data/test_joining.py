"""Datasets put together of several."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from raysweep.config import ConfigError
from raysweep.data.dataset import describe, open_dataset
from raysweep.data.joining import joined_info

CLASSES = ("background", "part")


def folder(place, *, colour, labelled=3, unlabelled=2, classes=CLASSES):
    """Write a dataset whose pictures all have one colour."""
    for name in ("images", "masks", "unlabelled"):
        (place / name).mkdir(parents=True)
    picture = Image.new("RGB", (8, 8), (colour, colour, colour))
    for at in range(labelled):
        picture.save(place / "images" / f"{at}.png")
        Image.fromarray(np.full((8, 8), at % 2, np.uint8)).save(place / "masks" / f"{at}.png")
    for at in range(unlabelled):
        picture.save(place / "unlabelled" / f"u{at}.png")
    (place / "classes.json").write_text(json.dumps({"classes": list(classes)}))
    rows = [f"{at},{split}," for at, split in enumerate(("train", "val", "test"))][:labelled]
    (place / "splits.csv").write_text("\n".join(["name,split,train_rank", *rows]) + "\n")
    return str(place)


def test_labels_and_unlabelled_images_come_from_elsewhere(tmp_path):
    ours = folder(tmp_path / "ours", colour=10)
    rendered = folder(tmp_path / "rendered", colour=20)
    many = folder(tmp_path / "many", colour=30, unlabelled=5)
    others = {"unlabelled": many, "train": rendered}
    data = open_dataset(ours, cache=tmp_path, others=others)
    seen = {split: data.images(split, px=8) for split in ("unlabelled", "train", "val", "test")}
    assert {split: int(images.max()) for split, images in seen.items()} == {
        "unlabelled": 30,
        "train": 20,
        "val": 10,
        "test": 10,
    }
    assert len(seen["unlabelled"]) == 8  # its labelled images too
    assert data.shots(1, 0) == data.names("train")
    assert torch.equal(data.masks("train", px=8), torch.zeros(1, 8, 8, dtype=torch.uint8))
    expected = joined_info(describe(ours), {s: describe(p) for s, p in others.items()})
    assert data.info == expected
    assert data.info.counts == {split: len(images) for split, images in seen.items()}
    assert data.info.fingerprint not in {
        describe(place).fingerprint for place in (ours, rendered, many)
    }


def test_the_same_names_in_both_are_told_apart(tmp_path):
    ours, rendered = (folder(tmp_path / name, colour=c) for name, c in (("a", 10), ("b", 20)))
    data = open_dataset(ours, cache=tmp_path, others={"train": rendered})
    assert data.names("train") == ("train/0",)
    assert data.names("val") == ("1",)
    assert data.encoded("train", "train/0").image != data.encoded("val", "1").image


def test_labels_of_other_classes_and_empty_splits_are_refused(tmp_path):
    ours = folder(tmp_path / "ours", colour=10)
    other = folder(tmp_path / "other", colour=20, classes=("background", "whole"))
    with pytest.raises(ConfigError, match="its classes are background, whole, those of"):
        open_dataset(ours, cache=tmp_path, others={"train": other})
    info = describe(ours)
    empty = info.model_copy(update={"counts": dict.fromkeys(info.counts, 0)})
    with pytest.raises(ConfigError, match="has no train image"):
        joined_info(info, {"train": empty})
