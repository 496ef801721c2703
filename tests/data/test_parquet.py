import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysweep.config import ConfigError
from raysweep.data import imports
from raysweep.data.folder import read_folder
from raysweep.data.imports import import_published
from raysweep.data.parquet import SCHEMA, is_parquet, read_parquet
from raysweep.data.published.common import ImportConfig
from tests.data.folders import FULL_SPLITS, write_folder, write_splits


def quiet(done, total):
    pass


@pytest.fixture
def folder(tmp_path):
    write_splits(write_folder(tmp_path / "parts"), *FULL_SPLITS)
    return tmp_path / "parts"


@pytest.fixture
def dataset(folder, tmp_path):
    import_published(folder, tmp_path / "shards", ImportConfig(kind="folder"), report=quiet)
    return tmp_path / "shards"


def content(source):
    everything = [record.id for record in source.records]
    labelled = [record.id for record in source.records if record.split != "unlabelled"]
    return dict(source.read("image", everything)), dict(source.read("mask", labelled))


def test_conversion_keeps_bytes_places_and_fingerprint(folder, dataset):
    before, after = read_folder(folder), read_parquet(str(dataset))
    assert after.info == before.info
    assert set(after.records) == set(before.records)
    assert content(after) == content(before)


def test_the_fingerprint_does_not_depend_on_the_layout_of_files(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(imports, "ROWS_PER_GROUP", 1)
    monkeypatch.setattr(imports, "ROWS_PER_FILE", 2)
    import_published(folder, tmp_path / "many", ImportConfig(kind="folder"), report=quiet)
    names = sorted(path.name for path in (tmp_path / "many").glob("train*.parquet"))
    assert names == ["train-000000.parquet", "train-000002.parquet"]
    assert content(read_parquet(str(tmp_path / "many"))) == content(read_folder(folder))
    assert read_parquet(str(tmp_path / "many")).info == read_folder(folder).info


def test_plain_pyarrow_reads_the_files(dataset):
    table = pa.concat_tables(pq.read_table(path) for path in sorted(dataset.glob("*.parquet")))
    assert table.schema.equals(SCHEMA)
    assert sorted(table["split"].to_pylist()) == sorted(
        ["train"] * 3 + ["val", "test"] + ["unlabelled"] * 3
    )
    ranks = dict(zip(table["id"].to_pylist(), table["rank"].to_pylist(), strict=True))
    assert (ranks["0"], ranks["1"], ranks["2"], ranks["3"]) == (2, 0, 1, None)


def test_only_what_is_asked_for_is_read(dataset):
    assert [name for name, _ in read_parquet(str(dataset)).read("image", ["1", "4"])] == ["4", "1"]


def test_opens_a_uri(dataset):
    assert is_parquet(f"file://{dataset}")
    assert read_parquet(f"file://{dataset}").info == read_parquet(str(dataset)).info


def test_a_folder_of_images_becomes_unlabelled_data(folder, tmp_path):
    (folder / "images" / "old").mkdir()
    (folder / "images" / "0.png").rename(folder / "images" / "old" / "0.png")
    info = import_published(
        folder / "images", tmp_path / "photos", ImportConfig(kind="images"), report=quiet
    ).info
    source = read_parquet(str(tmp_path / "photos"))
    assert info == source.info
    assert (info.name, info.classes) == ("images", ())
    assert info.counts == {"unlabelled": 6, "train": 0, "val": 0, "test": 0}
    assert sorted(record.id for record in source.records) == ["1", "2", "3", "4", "5", "old/0"]


def refusal(directory):
    with pytest.raises(ConfigError) as caught:
        content(read_parquet(str(directory)))
    return str(caught.value)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-9], lambda _: b"x" * 99])
def test_refuses_empty_truncated_and_foreign_files(dataset, damage):
    path = dataset / "train-000000.parquet"
    path.write_bytes(damage(path.read_bytes()))
    message = refusal(dataset)
    assert message.startswith(f"{path}: damaged Parquet file")
    assert "copy or import the dataset again" in message


def test_refuses_a_flipped_bit_among_the_pictures(dataset):
    path = dataset / "train-000000.parquet"
    data = bytearray(path.read_bytes())
    data[data.index(b"IHDR")] ^= 1
    path.write_bytes(data)
    assert refusal(dataset).startswith(f"{path}: damaged Parquet file")


def test_refuses_a_missing_file_by_its_count(dataset):
    (dataset / "val-000000.parquet").unlink()
    message = refusal(dataset)
    assert "hold 3 unlabelled, 3 train, 0 val, 1 test" in message
    assert "dataset.json says 3 unlabelled, 3 train, 1 val, 1 test" in message


def test_refuses_a_copy_of_a_file(dataset):
    (dataset / "copy.parquet").write_bytes((dataset / "val-000000.parquet").read_bytes())
    assert "image '3' occurs twice; keep one" in refusal(dataset)


@pytest.mark.parametrize("column", SCHEMA.names)
def test_refuses_a_missing_column(dataset, column):
    path = dataset / "train-000000.parquet"
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    assert refusal(dataset).startswith(f"{path}: column {column} is missing, must be")


def test_refuses_a_column_of_another_type(dataset):
    path = dataset / "train-000000.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index("rank")
    pq.write_table(table.set_column(at, "rank", table["rank"].cast(pa.float64())), path)
    assert refusal(dataset).startswith(f"{path}: column rank is double, must be int32")


def test_refuses_an_unknown_split(dataset):
    path = dataset / "val-000000.parquet"
    table = pq.read_table(path)
    renamed = table.set_column(1, SCHEMA.field("split"), pa.array(["holdout"]))
    pq.write_table(renamed, path)
    assert "split 'holdout' of '3'; allowed are unlabelled, train" in refusal(dataset)


def test_refuses_a_labelled_image_without_mask(dataset):
    path = dataset / "val-000000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(4, SCHEMA.field("mask"), pa.nulls(1, pa.binary())), path)
    assert f"{path}: '3' has no mask" in refusal(dataset)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"schema_version": 2}, "schema_version = 2"),
        ({"counts": {"train": 3}}, "dataset.json says 0 unlabelled"),
        ({"colour": 1}, "colour"),
    ],
)
def test_refuses_an_unusable_dataset_json(dataset, change, part):
    path = dataset / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert part in refusal(dataset)


def test_refuses_text_that_is_not_json(dataset):
    (dataset / "dataset.json").write_text("{")
    assert refusal(dataset).startswith(f"{dataset / 'dataset.json'}: Expecting")
