"""Every criterion passes the verification kit, and so do the structures and scopes with magnitudes."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from torch import nn

import funcprune as fp
from funcprune import testing as kit
from tests.criteria.test_everywhere import CRITERIA, network

FEW = settings(max_examples=8, deadline=None)


@pytest.mark.parametrize("name", CRITERIA)
def test_criteria_obey_the_laws(name: str) -> None:
    model, params, batch = network()
    if name in ("magnitude", "random", "lamp"):
        kit.check_criterion(CRITERIA[name](model, params, *batch), settings=FEW)
        return
    if name == "wanda":  # it has no scores for biases
        model = nn.Sequential(nn.Conv2d(4, 4, 2, bias=False), nn.Flatten(), nn.Linear(16, 4, bias=False))
        params = {path: leaf.detach() for path, leaf in model.named_parameters()}
    kit.check_criterion(CRITERIA[name](model, params, *batch), params=st.just(params), settings=FEW)


@pytest.mark.parametrize("scope", [fp.uniform(), fp.er(), fp.erk()], ids=repr)
def test_allocations_obey_the_laws(scope: fp.allocation.Share) -> None:
    kit.check_pruner(fp.l1_unstructured(0.5, scope=scope), settings=FEW)


@pytest.mark.parametrize("structure", [fp.Blocks((2, 2)), fp.Blocks((1, -1)), fp.Heads(2, 1)], ids=repr)
@pytest.mark.parametrize("scope", ["leaf", "global"])
def test_structures_obey_the_laws(structure: fp.Blocks | fp.Heads, scope: fp.allocation.Scope) -> None:
    _, params, _ = network()
    params = {path: leaf for path, leaf in params.items() if leaf.ndim == 2}
    pruner = fp.Pruner(fp.criteria.magnitude(), 0.5, structure=structure, scope=scope)
    kit.check_pruner(pruner, params=st.just(params), settings=FEW)
