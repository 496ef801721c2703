import io

import numpy as np
import pytest
from PIL import Image

from raysweep.data.decoding import decode_image, decode_mask, encode_png, image_size, resize_mask
from tests.reference.resizing import antialiased, nearest

SIZES = [(1, 1), (1, 5), (7, 4), (8, 8), (13, 22)]
CLASSES = [str(index) for index in range(5)]


def jpeg(pixels, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


def noise(*shape, seed=0, below=256):
    return np.random.default_rng(seed).integers(0, below, shape, dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("px", [1, 3, 8])
def test_images_are_resized_with_an_antialiased_triangle(size, px):
    image = noise(*size, 3)
    found = decode_image(encode_png(image), px=px, where="it").astype(float)
    # Pillow rounds to whole numbers after each of the two passes
    assert np.abs(found - antialiased(image, px)).max() <= 1.01


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("px", [1, 3, 8])
def test_masks_take_the_nearest_label(size, px):
    mask = noise(*size, below=5)
    found = resize_mask(decode_mask(encode_png(mask), classes=CLASSES, where="it"), px=px)
    assert (found == nearest(mask, px)).all()


@pytest.mark.parametrize(
    "pixels", [noise(6, 8), noise(6, 8, 4), noise(6, 8, 2), noise(6, 8, 3) > 127]
)
def test_grey_transparent_and_colour_images_become_rgb(pixels):
    pixels = pixels.astype(np.uint8)
    expected = Image.fromarray(pixels).convert("RGB")
    found = decode_image(encode_png(pixels), px=8, where="it")
    assert (found == np.asarray(expected.resize((8, 8), Image.Resampling.BILINEAR))).all()


def test_a_large_jpeg_is_reduced_while_decoding_without_a_visible_change():
    ramp = np.linspace(0, 255, 256).astype(np.uint8)
    image = np.stack([*np.broadcast_arrays(ramp[:, None], ramp[None]), ramp[:, None] * 0 + ramp], 2)
    found = decode_image(jpeg(image), px=16, where="it").astype(int)
    whole = Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR)
    assert np.abs(found - np.asarray(whole).astype(int)).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_as_the_camera_says(orientation):
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:8, :16] = 255  # white at the top left
    undo = {
        1: lambda image: image,
        2: lambda image: image[:, ::-1],
        3: lambda image: image[::-1, ::-1],
        4: lambda image: image[::-1],
        5: lambda image: image.transpose(1, 0, 2),
        6: lambda image: image.transpose(1, 0, 2)[::-1],
        7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
        8: lambda image: image.transpose(1, 0, 2)[:, ::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(np.ascontiguousarray(undo[orientation](upright)), exif=exif)
    assert image_size(data, where="it") == (32, 16)
    corners = decode_image(data, px=8, where="it")[[0, 0, 7, 7], [0, 7, 0, 7], 0] > 127
    assert corners.tolist() == [True, False, False, False]


def test_png_keeps_pixels():
    image, mask = noise(9, 9, 3), noise(9, 9)
    assert (np.asarray(Image.open(io.BytesIO(encode_png(image)))) == image).all()
    assert (np.asarray(Image.open(io.BytesIO(encode_png(mask)))) == mask).all()
