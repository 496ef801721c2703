import numpy as np
import pytest

from raysweep.evaluate import images

PALETTE = [(0, 0, 0), (250, 10, 20), (30, 240, 50)]
NAMES = ["background", "skin", "eye"]


def masks(count=2, height=8, width=6):
    return np.arange(count * height * width).reshape(count, height, width).astype(np.uint8) % 3


def test_every_label_gets_its_colour():
    mask = masks()
    painted = images.colourise(mask, PALETTE)
    for index in np.ndindex(mask.shape):
        assert tuple(painted[index]) == PALETTE[mask[index]]


def test_a_label_without_colour_is_named():
    with pytest.raises(ValueError, match="label 3; the palette has colours for 0 to 2"):
        images.colourise(np.full((1, 1), 3, dtype=np.uint8), PALETTE)


def test_overlay_blends_parts_and_leaves_background():
    mask = masks()
    image = np.full((*mask.shape, 3), 101, dtype=np.uint8)
    mixed = images.overlay(image, mask, PALETTE, alpha=0.25)
    for index in np.ndindex(mask.shape):
        colour = PALETTE[mask[index]]
        expected = [round(0.75 * 101 + 0.25 * c) for c in colour] if mask[index] else [101] * 3
        assert mixed[index].tolist() == expected


@pytest.mark.parametrize(("alpha", "width"), [(1.5, 6), (-0.1, 6), (0.5, 5)])
def test_overlay_refuses_what_does_not_fit(alpha, width):
    image = np.zeros((2, 8, width, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="alpha|equal sizes"):
        images.overlay(image, masks(), PALETTE, alpha=alpha)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 6), (64, 64), (200, 150)])
def test_grid_shows_every_pixel_of_every_tile(height, width):
    truth = masks(2, height, width)
    prediction = (2 - truth).astype(np.uint8)
    image = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    page = np.asarray(images.grid(image, truth, prediction, PALETTE, NAMES))
    factor = max(1, -(-images.TILE_PX // min(height, width)))
    tile_h, tile_w = factor * height, factor * width
    found = find(
        page, image[0, 0, 0], tile_h, tile_w, np.kron(image[0], np.ones((factor, factor, 1)))
    )
    top, left = found
    painted = (image, images.colourise(truth, PALETTE), images.colourise(prediction, PALETTE))
    for i, tiles in enumerate(painted):
        for j in range(2):
            y = top + i * (tile_h + images.GAP_PX)
            x = left + j * (tile_w + images.GAP_PX)
            shown = page[y : y + tile_h : factor, x : x + tile_w : factor]
            assert (shown == tiles[j]).all()


def find(page, first, tile_h, tile_w, tile):
    for top, left in np.argwhere((page == first).all(axis=-1)):
        window = page[top : top + tile_h, left : left + tile_w]
        if window.shape == tile.shape and (window == tile).all():
            return int(top), int(left)
    raise AssertionError("the first image is not on the page")


def test_legend_names_every_class():
    blank = np.zeros((1, 8, 8), dtype=np.uint8)
    image = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    page = np.asarray(images.grid(image, blank, blank, PALETTE, NAMES))
    for colour in PALETTE[1:]:  # no pixel of the masks has these
        swatch = (page == colour).all(axis=-1).sum()
        assert swatch >= (images.SWATCH_PX - 2) ** 2
    longer = [*NAMES[:2], "eye, a very long name"]
    renamed = np.asarray(images.grid(image, blank, blank, PALETTE, longer))
    assert renamed.shape != page.shape or (renamed != page).any()


def test_grid_refuses_what_does_not_pair():
    image = np.zeros((2, 8, 6, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="no images"):
        images.grid(image[:0], masks()[:0], masks()[:0], PALETTE, NAMES)
    with pytest.raises(ValueError, match="predictions"):
        images.grid(image, masks(), masks(3), PALETTE, NAMES)
    with pytest.raises(ValueError, match="2 class names but 3 colours"):
        images.grid(image, masks(), masks(), PALETTE, NAMES[:2])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5)])
@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (5, 2, 3), (7, 3, 3), (9, 3, 3)]
)
def test_mosaic_lays_images_row_by_row_and_leaves_the_rest_white(
    count, rows, columns, height, width
):
    tiles = np.random.default_rng(0).integers(0, 255, (count, height, width, 3), dtype=np.uint8)
    page = np.asarray(images.mosaic(tiles))
    assert page.shape == (rows * height, columns * width, 3)
    for row in range(rows):
        for column in range(columns):
            index = row * columns + column
            for y in range(height):
                for x in range(width):
                    shown = page[row * height + y, column * width + x].tolist()
                    expected = tiles[index, y, x].tolist() if index < count else [255] * 3
                    assert shown == expected, (index, y, x)
