import csv
import io
import math

import pandas as pd
import pytest
from rich.console import Console

from raysweep.evaluate import tables

SCORES = {
    ("random", "16"): [0.10, 0.12, 0.14],
    ("random", "32"): [0.30],
    ("8 px", "16"): [0.20, math.nan, 0.30],
}


def results(scores=SCORES):
    return pd.DataFrame(
        [
            {"pretrain": row, "segmentor": int(column), "repeat": index, "miou": value}
            for (row, column), values in scores.items()
            for index, value in enumerate(values)
        ]
    )


def make_table(frame=None, **changes):
    settings = {
        "rows": "pretrain",
        "columns": "segmentor",
        "value": "miou",
        "title": "a title",
        "row_order": ["random", "8 px"],
        "column_order": [16, 32],
    }
    return tables.pivot(results() if frame is None else frame, **(settings | changes))


def terminal(table):
    stream = io.StringIO()
    Console(file=stream, width=80).print(tables.render(table))
    return stream.getvalue()


def test_mean_and_sample_standard_deviation():
    cell = make_table().cells[0][0]
    mean = (0.10 + 0.12 + 0.14) / 3
    variance = sum((value - mean) ** 2 for value in (0.10, 0.12, 0.14)) / 2
    assert cell.mean == pytest.approx(mean)
    assert cell.std == pytest.approx(math.sqrt(variance))
    assert cell.n == 3


def test_one_repeat_has_no_standard_deviation():
    table = make_table()
    assert math.isnan(table.cells[0][1].std)
    assert "0.300 +- - (1)" in tables.to_markdown(table)
    assert "0.300 +- - (1)" in terminal(table)


def test_failed_repeats_are_left_out_and_keep_their_number():
    cell = make_table().cells[1][0]
    assert cell.values == (0.20, 0.30)
    assert cell.repeats == (0, 2)


def test_a_cell_never_run_is_a_dash():
    table = make_table()
    assert table.cells[1][1].n == 0
    assert tables.to_markdown(table).splitlines()[-1] == "| 8 px | **0.250 +- 0.071 (2)** | - |"


def test_order_is_given_not_found():
    shuffled = results().sample(frac=1, random_state=0)
    assert tables.to_csv(make_table(shuffled)) == tables.to_csv(make_table())
    assert make_table(row_order=["8 px", "random"]).rows == ("8 px", "random")


def test_csv_holds_every_bit():
    third = {("random", "16"): [1 / 3, 2 / 3], ("8 px", "32"): [0.1 + 0.2]}
    lines = list(csv.DictReader(io.StringIO(tables.to_csv(make_table(results(third))))))
    assert len(lines) == 4
    assert float(lines[0]["repeat_0"]) == 1 / 3
    assert float(lines[3]["repeat_0"]) == 0.1 + 0.2
    assert lines[3]["std"] == ""
    assert lines[1] == {
        "pretrain": "random", "segmentor": "32", "mean": "", "std": "", "n": "0",
        "repeat_0": "", "repeat_1": "",
    }  # fmt: skip


def test_best_of_each_column_and_of_all():
    table = make_table()
    assert tables.best(table) == {"16": "8 px", "32": "random"}
    assert tables.best_cell(table) == ("random", "32")
    empty = make_table(results({("random", "16"): [math.nan]}))
    assert tables.best(empty) == {}
    assert tables.best_cell(empty) is None


def test_first_of_equal_rows_is_best():
    equal = results({("random", "16"): [0.2], ("8 px", "16"): [0.2]})
    assert tables.best(make_table(equal)) == {"16": "random"}


@pytest.mark.parametrize("count", [1, 3, 4, 6])
def test_terminal_never_wraps_or_cuts_a_cell(count):
    columns = [16 * (j + 1) for j in range(count)]
    scores = {("random weights", str(c)): [0.1, 0.2, 0.3] for c in columns}
    table = make_table(results(scores), row_order=["random weights"], column_order=columns)
    lines = terminal(table).splitlines()
    assert max(map(len, lines)) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(lines)
    assert "".join(lines).count("+- 0.100") == count
    assert "".join(lines).count("(3)") == count


@pytest.mark.parametrize(
    ("frame", "changes", "message"),
    [
        (results(), {"value": "iou"}, "no column 'iou'"),
        (results(), {"repeat": "draw"}, "no column 'draw'"),
        (results(), {"row_order": ["random"]}, "pretrain = '8 px' is not in its order: random"),
        (results(), {"column_order": [16]}, "segmentor = '32'"),
        (pd.concat([results(), results()]), {}, "repeat = 0 appears twice"),
    ],
)
def test_unusable_results_are_refused(frame, changes, message):
    with pytest.raises(ValueError, match=message):
        make_table(frame, **changes)
