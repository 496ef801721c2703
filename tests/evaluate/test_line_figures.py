import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from raysweep.evaluate import figures, tables
from raysweep.evaluate import line_figures as lines


def make_table(scores, columns=("1", "4", "16")):
    """Return a table of rows to their repeats, each a score per column."""
    frame = pd.DataFrame(
        [
            {"method": row, "shots": column, "repeat": index, "mIoU": score}
            for row, repeats in scores.items()
            for index, repeat in enumerate(repeats)
            for column, score in zip(columns, repeat, strict=True)
        ]
    )
    return tables.pivot(
        frame,
        rows="method",
        columns="shots",
        value="mIoU",
        title="t",
        row_order=list(scores),
        column_order=columns,
    )


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def coloured(picture, index):
    """Return where the picture has the colour of a line."""
    colour = np.round(np.array(matplotlib.colors.to_rgb(figures.LINES[index])) * 255)
    return (np.abs(picture - colour) <= 2).all(axis=-1)


def inked(picture, index):
    """Return how many pixels have the colour of a line."""
    return int(coloured(picture, index).sum())


@pytest.fixture
def draw(tmp_path):
    def drawn(scores, *, baselines=(), **more):
        table = make_table(scores, **more)
        return pixels(lines.line_figure(table, tmp_path / "figure.png", baselines=baselines))

    return drawn


TWO = {"a": [[0.1, 0.2, 0.3]], "b": [[0.2, 0.3, 0.4]]}


def test_a_row_is_a_line_and_a_baseline_is_dashed(draw):
    solid, dashed = draw(TWO), draw(TWO, baselines=["b"])
    assert inked(dashed, 0) == inked(solid, 0)
    assert 0 < inked(dashed, 1) < 0.9 * inked(solid, 1)


def test_bars_show_the_spread_of_repeats_only(draw):
    once = draw({"a": [[0.1, 0.2, 0.3]], "b": [[0.7, 0.8, 0.9]]})
    spread = draw({"a": [[0.0, 0.1, 0.2], [0.2, 0.3, 0.4]], "b": [[0.7, 0.8, 0.9]]})
    assert inked(spread, 0) > 1.1 * inked(once, 0)
    same = draw({"a": [[0.1, 0.2, 0.3]] * 2, "b": [[0.7, 0.8, 0.9]]})
    assert inked(same, 0) >= inked(once, 0)


@pytest.mark.filterwarnings("error")
def test_what_is_missing_is_left_out(draw):
    nan = float("nan")
    picture = draw({"a": [[nan, nan, nan]], "b": [[nan, 0.2, 0.3], [nan, 0.25, nan]]})
    assert inked(picture, 0) == 0
    assert inked(picture, 1) > 0
    assert draw({"a": [[nan, nan, nan]]}).std() > 1


@pytest.mark.parametrize(
    ("numbers", "geometric"),
    [
        ([1, 2, 4, 8, 16], True),
        ([19, 38, 75, 150], True),
        ([1, 2, 5, 10, 30, 150], True),
        ([1, 2, 3, 4, 5], False),
        ([16, 24, 32], False),
        ([0, 1, 10], False),
        ([1, 100], False),
        ([7], False),
    ],
)
def test_the_axis_is_logarithmic_where_that_spaces_columns_evenly(numbers, geometric):
    assert lines.grows_geometrically(numbers) is geometric


@pytest.mark.parametrize("label", ["direct", "nan", "16 px"])
def test_columns_must_be_numbers(draw, label):
    with pytest.raises(ValueError, match=f"column '{label}' is not a number"):
        draw(TWO, columns=("1", "4", label))


def test_a_baseline_that_is_no_row_is_refused(draw):
    with pytest.raises(ValueError, match="'c' is not a row"):
        draw(TWO, baselines=["c"])


def test_the_same_table_gives_the_same_picture_and_another_table_another(draw):
    assert np.array_equal(draw(TWO), draw(TWO))
    assert not np.array_equal(draw(TWO), draw(TWO | {"a": [[0.1, 0.25, 0.3]]}))


def test_small_differences_are_not_blown_up(draw):
    """A line that falls by 0.001 is flat, one that falls by 0.1 is not."""

    def height(scores):
        picture = draw({"a": [scores]})
        left = picture[:, : picture.shape[1] // 2]  # the legend stands to the right
        return np.ptp(coloured(left, 0).nonzero()[0]) / len(picture)

    assert height([0.2, 0.199, 0.2]) < 0.1
    assert height([0.2, 0.1, 0.2]) > 0.5


def test_more_rows_than_colours_can_be_told_apart():
    styles = {tuple(figures.line_style(index).values()) for index in range(36)}
    assert len(styles) == 36


def curve_picture(path, curves):
    return pixels(lines.curve_figure(curves, path, row_axis="training", column_axis="scored"))


def test_curves_have_a_panel_per_column_and_a_line_per_row(tmp_path):
    curve = {10: 0.1, 20: 0.3}
    one = {("K = 1", "annotator"): [curve], ("K = 4", "annotator"): [{10: 0.1, 20: 0.2}]}
    narrow = curve_picture(tmp_path / "a.png", one)
    assert inked(narrow, 0) > 100
    assert inked(narrow, 1) > 100
    wide = curve_picture(tmp_path / "b.png", one | {("K = 1", "student"): [{500: 0.4}]})
    assert wide.shape[1] > 1.5 * narrow.shape[1]
    with pytest.raises(ValueError, match="no curve"):
        curve_picture(tmp_path / "c.png", {})


def test_a_band_of_one_standard_deviation_lies_around_the_mean(tmp_path):
    around = [{10: 0.1, 20: 0.2}, {10: 0.3, 20: 0.4}]
    mean = {10: 0.2, 20: 0.3}
    frame = {("b", "x"): [{10: 0.0, 20: 0.5}]}  # both pictures get the same axes
    banded = curve_picture(tmp_path / "a.png", {("a", "x"): around, **frame})
    bare = curve_picture(tmp_path / "b.png", {("a", "x"): [mean], **frame})
    assert inked(bare, 0) == pytest.approx(inked(banded, 0), rel=0.05)
    changed = (banded != bare).any(axis=-1)
    height, width = changed.nonzero()[0], changed.nonzero()[1]
    assert np.ptp(width) > 0.4 * banded.shape[1]
    # y runs over 0.5 and a tenth, the band from 0.2 - 0.1414 to 0.3 + 0.1414
    axes_px = 0.8 * banded.shape[0]
    assert np.ptp(height) / axes_px == pytest.approx(0.383 / 0.55, abs=0.08)
