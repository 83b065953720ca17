"""funcprune: neural network pruning for PyTorch as data.

Masks are a pytree parallel to the parameters, pruners are pure functions from parameters to masks, and a masked model
is a plain function of parameters, masks and inputs.
"""

from funcprune import allocation, compat, criteria, masks, schedules, selectors, structures, training
from funcprune.allocation import er, erk, uniform, within
from funcprune.calibration import iterate, layerwise, sparsegpt
from funcprune.masking import apply, bake, functional, in_dims, masked, masked_call, project_
from funcprune.pruners import (
    Pruner,
    chain,
    custom_from_mask,
    identity,
    l1_unstructured,
    ln_structured,
    random_structured,
    random_unstructured,
)
from funcprune.report import summary
from funcprune.selectors import glob, ndim, of_type, regex
from funcprune.structures import NM, Blocks, Coupled, Elements, Heads, Slices

__version__ = "0.1.0"

__all__ = [
    "NM",
    "Blocks",
    "Coupled",
    "Elements",
    "Heads",
    "Pruner",
    "Slices",
    "allocation",
    "apply",
    "bake",
    "chain",
    "compat",
    "criteria",
    "custom_from_mask",
    "er",
    "erk",
    "functional",
    "glob",
    "identity",
    "in_dims",
    "iterate",
    "l1_unstructured",
    "layerwise",
    "ln_structured",
    "masked",
    "masked_call",
    "masks",
    "ndim",
    "of_type",
    "project_",
    "random_structured",
    "random_unstructured",
    "regex",
    "schedules",
    "selectors",
    "sparsegpt",
    "structures",
    "summary",
    "training",
    "uniform",
    "within",
]
