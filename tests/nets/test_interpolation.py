import pytest
import torch
from torch.nn import functional as F

from raysweep import rng
from raysweep.nets import interpolation
from raysweep.nets.interpolation import bilinear_matrix, strips, tap_matrices
from tests.reference import hypercolumn as reference

SIZES = [(1, 1), (1, 5), (5, 1), (4, 4), (4, 8), (3, 10), (7, 13), (16, 130), (20, 6), (33, 64)]


@pytest.mark.parametrize(("size", "px"), SIZES)
def test_matrix_equals_the_loop_and_torch(size, px):
    matrix = bilinear_matrix(size, px)
    line = torch.randn(size, generator=rng.generator(0, "line"), dtype=torch.float64)
    looped = [reference.sample(line.tolist(), at, px) for at in range(px)]
    assert (matrix @ line).tolist() == pytest.approx(looped, abs=1e-12)
    theirs = F.interpolate(line[None, None], size=px, mode="linear")[0, 0]
    torch.testing.assert_close(matrix @ line, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(matrix.sum(1), torch.ones(px, dtype=torch.float64))


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(("size", "px"), SIZES)
def test_taps_are_the_resized_line_as_a_convolution_sees_it(size, px, kernel):
    line = torch.randn(size, generator=rng.generator(0, "line"), dtype=torch.float64)
    weights = torch.randn(kernel, generator=rng.generator(0, "taps"), dtype=torch.float64)
    seen = tap_matrices(size, px, kernel=kernel) @ line
    resized = (bilinear_matrix(size, px) @ line)[None, None]
    expected = F.conv1d(resized, weights[None, None], padding=kernel // 2)[0, 0]
    torch.testing.assert_close(weights @ seen, expected)


@pytest.mark.parametrize("strip_px", [1, 3, 64])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("px", [1, 2, 7, 65])
def test_strips_put_together_are_the_whole_matrix(monkeypatch, px, kernel, strip_px):
    monkeypatch.setattr(interpolation, "STRIP_PX", strip_px)
    strips.cache_clear()
    sizes = (4, 9)
    device = torch.device("cpu")
    cut = strips(sizes, px, kernel=kernel, dtype=torch.float64, device=device)
    strips.cache_clear()
    assert [at for strip in cut for at in range(px)[strip.out]] == list(range(px))
    for level, size in enumerate(sizes):
        whole = torch.zeros(kernel, px, size, dtype=torch.float64)
        for strip in cut:
            read = strip.reads[level]
            weights = strip.weights[level].unflatten(1, (kernel, read.stop - read.start))
            whole[:, strip.out, read] = weights.transpose(0, 1)
        assert torch.equal(whole, tap_matrices(size, px, kernel=kernel))
    for strip in cut:
        assert torch.equal(strip.joined, torch.cat(strip.weights, dim=1))


def test_a_strip_reads_only_what_it_needs():
    cut = strips((128,), 256, kernel=3, dtype=torch.float32, device=torch.device("cpu"))
    assert [strip.reads[0] for strip in cut] == [
        slice(0, 33),
        slice(31, 65),
        slice(63, 97),
        slice(95, 128),
    ]
