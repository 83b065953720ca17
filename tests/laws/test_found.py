"""Bugs that the laws have found, each by the case that showed it."""

import pytest
import torch

import funcprune as fp


@pytest.mark.parametrize("shape", [(0, 2), (2, 0), (3,), (0,)])
@pytest.mark.parametrize("dim", [0, -1])
def test_slices_without_entries_can_be_ranked_for_themselves(shape: tuple[int, ...], dim: int) -> None:
    # Each slice was reshaped to (slices, -1), and of no entries torch cannot tell what -1 is.
    masks = fp.l1_unstructured(0.5, scope=fp.within(dim), where="w")({"w": torch.ones(shape)})
    assert masks["w"] is None or masks["w"].shape == shape


def test_contiguous_masks_have_the_strides_of_a_fresh_tensor() -> None:
    # Tensor.contiguous() returns a tensor of no entries, or a dimension of size 1, with the odd strides that it has,
    # and a function compiled for one mask was compiled again for the other.
    for mask in (torch.ones(2, 1, dtype=torch.bool).expand(2, 0), torch.ones(4, 3, dtype=torch.bool)[:, :1].T):
        plain = fp.masks.contiguous({"w": mask})["w"]
        assert plain.stride() == torch.empty(mask.shape, dtype=torch.bool).stride()
        assert torch.equal(plain, mask)
