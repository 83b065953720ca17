"""Pruners: pure functions from parameters, and the masks so far, to masks."""

from funcprune.pruners.combinators import chain, custom_from_mask, identity
from funcprune.pruners.named import l1_unstructured, ln_structured, random_structured, random_unstructured
from funcprune.pruners.pruner import Pruner

__all__ = [
    "Pruner",
    "chain",
    "custom_from_mask",
    "identity",
    "l1_unstructured",
    "ln_structured",
    "random_structured",
    "random_unstructured",
]
