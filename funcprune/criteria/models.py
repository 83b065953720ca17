"""A module to call at will: its own copy, in evaluation mode."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from funcprune import trees
from funcprune.masking import bake
from funcprune.trees import Masks, Params


def skeleton(model: nn.Module, /) -> nn.Module:
    """A copy of the module in evaluation mode that shares its parameters and has buffers of its own."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: found {type(model).__name__}, expected a torch.nn.Module")
    shared = {id(parameter): parameter for parameter in model.parameters()}
    return copy.deepcopy(model, shared).eval()


def called_with(batch: Any, /) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """The arguments a batch of model inputs means: a tensor, a tuple of arguments, or a mapping of keywords."""
    if isinstance(batch, Mapping):
        return (), batch
    return (tuple(batch) if isinstance(batch, list | tuple) else (batch,)), {}


def masked_params(params: Params, masks: Masks | None, /) -> Params:
    """Copies of the params, exactly zero where pruned."""
    leaves, spec = trees.params(params)
    return bake(params, spec.unflatten([None] * len(leaves)) if masks is None else masks)
