"""Wrong implementations, each of which the tests of the stateful world must catch."""

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.stateful import run_state_machine_as_test

from funcprune.compat import slots
from funcprune.compat.prune import base, methods

from . import strategies
from .test_differential import check_sequence, sequences
from .test_machine import Life

EAGER = settings(
    max_examples=300,
    phases=[Phase.generate],
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
"""Many examples, no time spent on making a failure small."""


def ranks_the_largest(patch):
    patch.setattr(
        methods.L1Unstructured, "compute_mask", lambda self, t, default_mask: L1(self.amount, -t, default_mask)
    )


def L1(amount, t, default_mask):  # noqa: N802 - stands for the class
    method = methods.RandomUnstructured(amount)
    return default_mask * method._kept(-t.abs(), method._count(t.numel())).to(default_mask.dtype)


def ranks_what_is_pruned_too(patch):
    compose = base.compose

    def wrong(method, t, mask):
        if method.PRUNING_TYPE != "unstructured":
            return compose(method, t, mask)
        return mask * method.compute_mask(t, default_mask=torch.ones_like(mask))

    patch.setattr(base, "compose", wrong)


def draws_when_nothing_goes(patch):
    compute_mask = methods.RandomUnstructured.compute_mask

    def wrong(self, t, default_mask):
        torch.rand(1)
        return compute_mask(self, t, default_mask)

    patch.setattr(methods.RandomUnstructured, "compute_mask", wrong)


def loses_the_order(patch):
    patch.setattr(
        slots, "parameter_order", lambda module, *pruned: [key.removesuffix("_orig") for key in module._parameters]
    )


def does_not_refresh(patch):
    patch.setattr(slots, "refresh", lambda module: None)


def forgets_the_masks_so_far(patch):
    patch.setattr(slots, "mask_of", lambda module, name: None)


def multiplies_when_baking(patch):
    patch.setattr(slots, "baked", lambda module, name, hook: getattr(module, f"{name}_orig").detach().clone())


@pytest.mark.parametrize(
    "wrong", [ranks_the_largest, ranks_what_is_pruned_too, draws_when_nothing_goes, forgets_the_masks_so_far]
)
def test_the_differential_test_catches(wrong, monkeypatch):
    wrong(monkeypatch)
    with pytest.raises(AssertionError):
        EAGER(given(strategies.worlds, sequences)(check_sequence))()


@pytest.mark.parametrize(
    "wrong", [ranks_the_largest, loses_the_order, does_not_refresh, forgets_the_masks_so_far, multiplies_when_baking]
)
def test_the_machine_catches(wrong, monkeypatch):
    wrong(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Life, settings=settings(EAGER, stateful_step_count=15))
