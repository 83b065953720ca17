"""The masked call and its pieces: every promise of the docstrings, and what torch.func gets wrong without us."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import funcprune as fp

REAL = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
COMPLEX = [torch.complex64, torch.complex128]
OTHER = [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.int64, torch.uint8, torch.uint16, torch.bool]


def kept(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


# The three ways to write a mask into params.


def by_project(params: Any, masks: Any) -> Any:
    return fp.project_(copy.deepcopy(params), masks)


WRITERS = [fp.apply, fp.bake, by_project]


@pytest.mark.parametrize("dtype", [*REAL, *COMPLEX, *OTHER], ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0), (4, 5)], ids=str)
@pytest.mark.parametrize("write", WRITERS)
def test_every_dtype_and_shape_is_kept(write: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    leaf = (drawn(*shape) * 10).abs().ceil().to(dtype)
    mask = kept(*shape, seed=2)
    out = write({"w": leaf}, {"w": mask})["w"]
    assert out.dtype == dtype
    assert out.shape == shape
    assert torch.equal(wide(out), torch.where(mask, wide(leaf), 0))


LAYOUTS: dict[str, Callable[[], Tensor]] = {
    "contiguous": lambda: drawn(4, 5, 3, 2),
    "channels_last": lambda: drawn(4, 5, 3, 2).to(memory_format=torch.channels_last),
    "transposed": lambda: drawn(2, 3, 5, 4).permute(3, 2, 1, 0),
    "every other": lambda: drawn(4, 5, 3, 4)[..., ::2],
    "gaps": lambda: drawn(4, 5, 6, 2)[:, :, :3],
}


@pytest.mark.parametrize("masked_as", ["contiguous", "transposed", "channels_last"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.int64, torch.float8_e5m2], ids=str)
def test_the_memory_format_is_that_of_the_leaf(dtype: torch.dtype, layout: str, masked_as: str) -> None:
    """`bake`, and `apply` of integers, took over the strides of the mask: a transposed weight became contiguous."""
    leaf, mask = LAYOUTS[layout]().to(dtype), LAYOUTS[masked_as]() > 0
    strides = leaf.clone().stride()  # what a copy keeps: dense strides as they are
    for write in (fp.apply, fp.bake):
        out = write(leaf, mask)
        assert out.stride() == strides
        assert torch.equal(wide(out), torch.where(mask, wide(leaf), 0))
    view, before = leaf[:], leaf.stride()
    fp.project_(view, mask)
    assert leaf.stride() == before
    assert not wide(leaf)[~mask].any()


@pytest.mark.parametrize("layout", ["rows", "columns", "scalar"])
def test_expanded_masks_and_leaves(layout: str) -> None:
    mask = {"rows": kept(4, 1), "columns": kept(1, 5), "scalar": torch.tensor(False)}[layout].expand(4, 5)
    for leaf in (drawn(4, 5), drawn(5, 4).t(), drawn(4, 1).expand(4, 5)):
        for write in (fp.apply, fp.bake):
            assert torch.equal(write(leaf, mask), torch.where(mask, leaf, 0))


HOSTILE = torch.tensor([-2.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-45, 3e38, -1e-45])


@pytest.mark.parametrize("dtype", [*REAL, *COMPLEX], ids=str)
@pytest.mark.parametrize("write", [fp.bake, by_project])
def test_written_zeros_are_positive_and_erase_what_is_not_finite(write: Any, dtype: torch.dtype) -> None:
    leaf = HOSTILE.to(dtype) if not dtype.is_complex else torch.complex(HOSTILE, -HOSTILE).to(dtype)
    out = write(leaf, torch.zeros(8, dtype=torch.bool))
    parts = torch.view_as_real(out) if dtype.is_complex else out
    assert torch.equal(parts, torch.zeros_like(parts))
    assert not parts.signbit().any()


@pytest.mark.parametrize("dtype", [*REAL, *COMPLEX], ids=str)
@pytest.mark.parametrize("write", WRITERS)
def test_kept_entries_are_unchanged(write: Any, dtype: torch.dtype) -> None:
    """A complex product by one is none: inf + 1j became inf + NaN j, at a kept entry."""
    leaf = HOSTILE.to(dtype) if not dtype.is_complex else torch.complex(HOSTILE, HOSTILE.flip(0)).to(dtype)
    out = write(leaf, torch.ones(8, dtype=torch.bool))
    found, expected = (torch.view_as_real(x) if dtype.is_complex else x for x in (out, leaf))
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(found.signbit() | found.isnan(), expected.signbit() | expected.isnan())


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_apply_is_a_product_of_what_is_pruned(dtype: torch.dtype) -> None:
    out = fp.apply(HOSTILE.to(dtype), torch.zeros(8, dtype=torch.bool))
    assert torch.equal(out.real.isnan(), ~HOSTILE.isfinite())
    assert not out.real[HOSTILE.isfinite()].any()


def test_conjugate_and_negative_views_are_written_through() -> None:
    """Their bits are not their values: viewing them as other bits raises, after other leaves were written."""
    base = torch.complex(drawn(4), drawn(4, seed=2))
    mask, before = torch.tensor([True, False, True, False]), base.clone()
    assert torch.equal(fp.bake(base.conj(), mask), torch.where(mask, base.conj(), 0))
    assert torch.equal(fp.bake(base.conj().imag, mask), torch.where(mask, -base.imag, 0))
    negative = base.conj().imag
    assert negative.is_neg()
    assert not fp.project_(negative, mask)[~mask].signbit().any()
    assert torch.equal(base, torch.where(mask, before, before.real.to(base)))
    conjugate = fp.project_(base.conj(), mask)
    assert torch.equal(torch.view_as_real(conjugate.resolve_conj())[~mask], torch.zeros(2, 2))
    assert torch.equal(base, torch.where(mask, before, 0))
