import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from raysweep import rng
from raysweep.nets.fir import filter2d, fir_kernel, upsample2d
from tests.reference import stylegan2 as reference

SIZES = [(1, 1, 2, 2), (2, 3, 4, 4), (1, 2, 6, 4), (3, 1, 8, 2)]


def noise(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=rng.generator(0, "fir"), dtype=dtype)


def by_plane(function, x):
    return torch.tensor([[function(plane.tolist()) for plane in image] for image in x]).to(x.dtype)


def kernel():
    return fir_kernel().double()


def halved(x, kernel):
    """As the discriminator does it in front of a 1x1 convolution."""
    return filter2d(x, kernel, padding=1, stride=2)


def test_kernel_is_the_outer_product():
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    torch.testing.assert_close(fir_kernel() * 64, taps[:, None] * taps)


@pytest.mark.parametrize("shape", SIZES)
def test_upsampling_is_the_reference(shape):
    x = noise(*shape)
    torch.testing.assert_close(
        upsample2d(x, kernel()), by_plane(reference.upsample, x), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("shape", SIZES)
def test_downsampling_is_the_reference(shape):
    x = noise(*shape)
    torch.testing.assert_close(
        halved(x, kernel()), by_plane(reference.downsample, x), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize(("padding", "stride", "gain"), [(1, 1, 4.0), (2, 1, 1.0), (2, 2, 0.5)])
def test_filter_is_the_reference(shape, padding, stride, gain):
    x = noise(*shape)
    height, width = ((side + 2 * padding - 4) // stride + 1 for side in shape[2:])

    def expected(plane):
        return reference.fir(
            plane, before=padding, height=height, width=width, stride=stride, gain=gain
        )

    ours = filter2d(x, kernel(), padding=padding, stride=stride, gain=gain)
    torch.testing.assert_close(ours, by_plane(expected, x), atol=1e-6, rtol=0)


def test_inside_upsampling_is_bilinear():
    x = noise(1, 2, 6, 6)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    ours = upsample2d(x, kernel())
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
    assert not torch.allclose(ours, expected)  # beyond the border are zeros, not copies


def test_constant_stays_constant_inside():
    ones = torch.ones(1, 1, 8, 8)
    assert upsample2d(ones, fir_kernel())[..., 1:-1, 1:-1].eq(1).all()
    assert halved(ones, fir_kernel())[..., 1:-1, 1:-1].eq(1).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_kept(dtype):
    x = noise(1, 2, 4, 4).to(dtype)
    assert upsample2d(x, fir_kernel()).dtype == dtype
    assert halved(x, fir_kernel()).dtype == dtype


@pytest.mark.parametrize("function", [upsample2d, halved])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_twice_differentiable(function, layout):
    x = noise(2, 2, 4, 4).contiguous(memory_format=layout).requires_grad_()

    def nonlinear(x):
        return function(x, kernel()).square()

    assert gradcheck(nonlinear, x)
    assert gradgradcheck(nonlinear, x)
