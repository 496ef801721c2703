import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from raysweep.evaluate import figures, tables
from raysweep.evaluate.robustness import ShiftScore

ROWS = ["raw colour", "16 px", "32 px"]


def make_table(scores):
    frame = pd.DataFrame(
        [
            {"pretrain": row, "segmentor": "64 px", "repeat": 0, "miou": score}
            for row, score in zip(ROWS, scores, strict=True)
        ]
    )
    return tables.pivot(
        frame,
        rows="pretrain",
        columns="segmentor",
        value="miou",
        title="t",
        row_order=ROWS,
        column_order=["64 px"],
    )


def draw(tmp_path, scores, *, baselines=("raw colour",)):
    path = figures.heat_map(make_table(scores), tmp_path / "figure.png", baselines=baselines)
    return np.asarray(Image.open(path).convert("RGB"))


def holds(picture, colour):
    return (np.abs(picture.astype(int) - colour) <= 1).all(axis=-1).mean()


def test_cells_are_coloured_from_the_lowest_to_the_highest_mean(tmp_path):
    picture = draw(tmp_path, [0.1, 0.2, 0.3])
    shades = matplotlib.colormaps[figures.COLOURS]
    for level in (0.0, 0.5, 1.0):
        assert holds(picture, np.round(np.array(shades(level)[:3]) * 255)) > 0.02


@pytest.mark.parametrize("scores", [[0.2, 0.2, 0.2], [0.2, np.nan, 0.3], [np.nan] * 3])
def test_equal_and_missing_cells_are_drawn(tmp_path, scores):
    assert draw(tmp_path, scores).std() > 1


def test_baselines_stand_apart(tmp_path):
    apart = draw(tmp_path, [0.1, 0.2, 0.3])
    together = draw(tmp_path, [0.1, 0.2, 0.3], baselines=())
    assert apart.shape[0] > together.shape[0]


def test_a_baseline_that_is_no_row_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'random weights' is not a row"):
        draw(tmp_path, [0.1, 0.2, 0.3], baselines=("random weights",))


def test_the_same_table_gives_the_same_file(tmp_path):
    table = make_table([0.1, 0.2, 0.3])
    first = figures.heat_map(table, tmp_path / "a.png", baselines=()).read_bytes()
    assert figures.heat_map(table, tmp_path / "b.png", baselines=()).read_bytes() == first


def test_no_global_figure_is_opened(tmp_path):
    from matplotlib import pyplot

    draw(tmp_path, [0.1, 0.2, 0.3])
    assert pyplot.get_fignums() == []


CURVES = {
    "moco": [ShiftScore(0, 0.5), ShiftScore(4, 0.5)],
    "stylegan2": [ShiftScore(0, 0.5), ShiftScore(4, 0.2)],
}


def draw_shifts(path, curves, colours=((200, 40, 10), (10, 90, 200))):
    strips = {
        label: np.full((2, 8, 8, 3), colour, dtype=np.uint8)
        for label, colour in zip(curves, colours, strict=True)
    }
    found = figures.shift_figure(curves, strips, path)
    return np.asarray(Image.open(found).convert("RGB")), strips


def test_shift_figure_has_a_line_per_family_and_its_masks(tmp_path):
    picture, strips = draw_shifts(tmp_path / "a.png", CURVES)
    for index, strip in enumerate(strips.values()):
        line = np.round(np.array(matplotlib.colors.to_rgb(figures.LINES[index])) * 255)
        assert holds(picture, line) > 5e-4
        assert holds(picture, strip[0, 0, 0]) > 0.02
    alone = figures.shift_figure(CURVES, {}, tmp_path / "b.png")
    assert Image.open(alone).height < picture.shape[0]


def test_shift_figure_follows_the_scores_and_is_the_same_again(tmp_path):
    picture, _ = draw_shifts(tmp_path / "a.png", CURVES)
    again, _ = draw_shifts(tmp_path / "b.png", CURVES)
    lower = CURVES | {"moco": [ShiftScore(0, 0.5), ShiftScore(4, 0.1)]}
    other, _ = draw_shifts(tmp_path / "c.png", lower)
    assert np.array_equal(picture, again)
    assert not np.array_equal(picture, other)


def test_curves_and_strips_that_do_not_pair_are_refused(tmp_path):
    path = tmp_path / "figure.png"
    with pytest.raises(ValueError, match="'a' has other shifts"):
        figures.shift_figure(CURVES | {"a": [ShiftScore(1, 0.5)]}, {}, path)
    with pytest.raises(ValueError, match="'b' has 3 pictures for 2 shifts"):
        figures.shift_figure(CURVES, {"b": np.zeros((3, 4, 4, 3), dtype=np.uint8)}, path)
    with pytest.raises(ValueError, match="no shift"):
        figures.shift_figure({}, {}, path)
