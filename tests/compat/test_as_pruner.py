"""Methods of the stateful world as pure pruners."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

import funcprune as fp
from funcprune.compat import prune

from . import strategies
from .helpers import EveryOther, Raising

METHODS = [
    (EveryOther, {}),
    (prune.Identity, {}),
    *((module.L1Unstructured, {"amount": 0.3}) for module in (prune, torch_prune)),
    *((module.RandomUnstructured, {"amount": 0.2}) for module in (prune, torch_prune)),
    *((module.LnStructured, {"amount": 0.4, "n": 2, "dim": 0}) for module in (prune, torch_prune)),
    *((module.RandomStructured, {"amount": 0.4, "dim": 1}) for module in (prune, torch_prune)),
]


@given(strategies.worlds, st.lists(st.sampled_from(METHODS), min_size=1, max_size=3))
def test_a_method_prunes_params_as_it_prunes_a_module(world, methods):
    model, masks, seed = world.model(), None, world.seed
    params = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    before = {name: value.clone() for name, value in params.items()}
    for method, options in methods:
        torch.manual_seed(seed)
        masks = fp.compat.as_pruner(method, where="0.weight", **options)(params, masks)
        torch.manual_seed(seed)
        prune.BasePruningMethod.apply.__func__(method, model[0], "weight", **options)
    assert masks["0.weight"].dtype == torch.bool
    assert fp.masks.equal(masks, fp.compat.extract(model)[1])
    assert all(torch.equal(params[name], before[name]) for name in params)


def test_scores_are_importance_scores():
    params = {"w": torch.tensor([[1.0, 2.0, 3.0]])}
    pruner = fp.compat.as_pruner(prune.L1Unstructured, 1)
    assert pruner(params, scores={"w": torch.tensor([[3.0, 1.0, 2.0]])})["w"].tolist() == [[True, False, True]]
    with pytest.raises(ValueError, match="'w'"):
        pruner(params, scores={"w": torch.ones(2)})


def test_a_method_cannot_write_into_the_params():
    class Writes(prune.BasePruningMethod):
        PRUNING_TYPE = "global"

        def compute_mask(self, t, default_mask):
            t.zero_()
            return default_mask.zero_()

    params, masks = {"w": torch.ones(2, 2)}, {"w": torch.ones(2, 2, dtype=torch.bool)}
    pruner = fp.compat.as_pruner(Writes)
    assert not pruner(params)["w"].any()
    assert not pruner(params, masks, scores=params)["w"].any()
    assert params["w"].all()
    assert masks["w"].all()


def test_it_is_a_pruner_like_any_other():
    model = nn.Linear(4, 4)
    pruner = fp.chain(fp.compat.as_pruner(EveryOther), fp.l1_unstructured(0.5))
    assert int(pruner(dict(model.named_parameters()))["weight"].sum()) == 4
    assert (
        repr(fp.compat.as_pruner(prune.L1Unstructured, 1, where="w")) == "as_pruner(L1Unstructured, 1, where=glob('w'))"
    )
    with pytest.raises(ArithmeticError):
        fp.compat.as_pruner(Raising)(dict(model.named_parameters()))
    with pytest.raises(TypeError, match="subclass of BasePruningMethod"):
        fp.compat.as_pruner(nn.Linear)
