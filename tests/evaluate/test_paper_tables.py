"""The printed tables agree with themselves, and their claim checks with the numbers."""

import itertools
import string

import pytest

from raysweep.evaluate import paper_tables as printed

TABLES = printed.PAPER_TABLES
VERDICTS = ("supported", "supported in part: ", "cannot be checked: ")


def mean(value):
    return value[0] if isinstance(value, tuple) else value


def column(table, name):
    at = table.columns.index(name)
    return {row: mean(values[at]) for row, values in zip(table.rows, table.values, strict=True)}


def line(table, name):
    return [mean(value) for value in table.values[table.rows.index(name)]]


def in_full(table):
    """Whether the table says that its numbers support all of the claim."""
    return table.claim_check.startswith("supported") and not partly(table)


def partly(table):
    return table.claim_check.startswith("supported in part: ")


def test_every_table_is_exported_and_known_by_its_id():
    exported = {getattr(printed, name) for name in printed.__all__ if name != "PAPER_TABLES"}
    assert set(TABLES.values()) == exported
    assert all(name == table.id for name, table in TABLES.items())
    assert all(set(name) <= set(string.ascii_letters + string.digits + "_") for name in TABLES)


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_labels_and_values_fit_together(table):
    assert len(table.values) == len(table.rows) == len(set(table.rows))
    assert all(len(values) == len(table.columns) for values in table.values)
    assert len(table.columns) == len(set(table.columns))
    for labels in (table.rows, table.columns):
        numbers = [label for label in labels if isinstance(label, int)]
        assert numbers == sorted(numbers)
    assert bool(table.rows) == bool(table.columns)


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_values_are_in_the_unit_with_the_digits_that_are_printed(table):
    highest = 1 if table.unit == "fraction" else 100
    for value in itertools.chain(*table.values):
        for number in value if isinstance(value, tuple) else (value,):
            assert number is None or 0 < number < highest
            assert number is None or number == round(number, table.digits)
    means = [mean(value) for value in itertools.chain(*table.values) if value is not None]
    if "time" not in table.columns and means:
        assert max(means) > highest / 10, "a score in the other unit"


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_claims_carry_a_verdict(table):
    assert table.claim_check.startswith(VERDICTS)
    assert not table.claim.endswith(".")
    assert not table.claim_check.endswith(".")
    if not table.values:
        assert table.claim_check.startswith("cannot be checked")


def test_numbers_that_contradict_a_claim_are_named():
    appendix = printed.GANORCON_APPENDIX_E
    low, _, high = line(appendix, 96)
    assert low > high
    assert partly(appendix)
    first = printed.PFTGAN_TABLE_1
    gains = [
        ours - theirs
        for ours, theirs in zip(line(first, "PFTGAN"), line(first, "DatasetGAN"), strict=True)
    ]
    assert max(gains) == gains[4] == pytest.approx(0.039)
    assert partly(first)
    faces = column(printed.LAGM_TABLE_1A, "Face-34")
    assert faces["DatasetGAN, StyleGAN, DeepLabV3"] - faces["LAGM, StyleGAN, DeepLabV3"] > 1.9
    assert partly(printed.LAGM_TABLE_1A)


def test_lost_numbers_leave_a_claim_unchecked():
    assert set(column(printed.LAGM_TABLE_C8, "mIoU").values()) == {None}
    assert printed.LAGM_TABLE_C8.claim_check.startswith("cannot be checked")


@pytest.mark.parametrize("table", [printed.LAGM_TABLE_C5, printed.LAGM_TABLE_C6])
def test_rivals_of_matching_lose_with_every_network_on_every_data_set(table):
    for network, data in itertools.product(("DeepLabV3", "U-Net"), table.columns):
        scores = column(table, data)
        rival = next(row for row in table.rows if row.endswith(network) and "LAGM" not in row)
        assert scores[f"LAGM, {network}"] > scores[rival]
    assert in_full(table)


def test_other_claims_that_are_called_supported_follow_from_the_numbers():
    rivals = [row for row in printed.LAGM_TABLE_C7.rows if row.startswith("MAML")]
    for data, row in itertools.product(printed.LAGM_TABLE_C7.columns, rivals):
        scores = column(printed.LAGM_TABLE_C7, data)
        assert scores[row] < scores["LAGM, " + row.partition(", ")[2]]
    blocks = column(printed.LAGM_TABLE_2, "mIoU")
    assert max(blocks.values()) - blocks["Head (default)"] == pytest.approx(0.82)
    for name in ("time", "mIoU"):
        falling = list(column(printed.LAGM_TABLE_C9, name).values())
        assert falling == sorted(falling, reverse=True)
    for data in ("CelebA", "Pascal-Aeroplane"):
        rows = [row for row in printed.LAGM_TABLE_C10.rows if row.startswith(data)]
        distances, scores = (
            [column(printed.LAGM_TABLE_C10, name)[row] for row in rows]
            for name in printed.LAGM_TABLE_C10.columns
        )
        assert distances == sorted(distances, reverse=True)
        assert scores == sorted(scores)
    for row in printed.LAGM_TABLE_C13.rows:
        rival, *ours = line(printed.LAGM_TABLE_C13, row)
        assert [*ours, rival] == sorted([*ours, rival])
    second = printed.PFTGAN_TABLE_2
    best = [max(second.rows, key=column(second, shots).__getitem__) for shots in second.columns]
    assert best == ["PFTGAN"] * 4 + ["DDPM"]
    names = ("LAGM_TABLE_C7", "LAGM_TABLE_2", "LAGM_TABLE_C9", "LAGM_TABLE_C10", "LAGM_TABLE_C13")
    assert all(in_full(getattr(printed, name)) for name in (*names, "PFTGAN_TABLE_2"))


def test_what_is_printed_twice_is_the_same():
    first = printed.LAGM_TABLE_1A
    for again in (printed.LAGM_TABLE_C5, printed.LAGM_TABLE_C6):
        for network in ("DeepLabV3", "U-Net"):
            row = first.values[first.rows.index(f"LAGM, StyleGAN2, {network}")]
            assert again.values[again.rows.index(f"LAGM, {network}")] == row
    shared = set(first.rows) & set(printed.LAGM_TABLE_C7.rows)
    assert len(shared) == 4
    assert all(line(first, row) == line(printed.LAGM_TABLE_C7, row) for row in shared)
