"""torch's functions on modules pruned here, and the other way round."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import funcprune as fp
from funcprune.compat import prune

from .helpers import EveryOther

BOTH = [(prune, torch_prune), (torch_prune, prune)]
METHODS = {
    "Identity": (),
    "RandomUnstructured": (0.3,),
    "L1Unstructured": (2,),
    "RandomStructured": (1, 0),
    "LnStructured": (1, 2, 1),
    "CustomFromMask": (torch.tensor([[0, 1, 1], [1, 1, 0], [1, 0, 1]]),),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("first", "second"), BOTH)
def test_either_prunes_further_and_removes_what_the_other_pruned(first, second, method):
    layer = nn.Linear(3, 3)
    values = layer.weight.detach().clone()
    getattr(first, method).apply(layer, "weight", *METHODS[method])
    mask = layer.weight_mask.clone()
    assert first.is_pruned(layer)
    assert second.is_pruned(layer)
    for hook in layer._forward_pre_hooks.values():
        assert isinstance(hook, torch_prune.BasePruningMethod)
    container = second.l1_unstructured(layer, "weight", 1)._forward_pre_hooks.popitem()[1]
    layer.register_forward_pre_hook(container)
    assert isinstance(container, torch_prune.PruningContainer)
    assert [type(step).__name__ for step in container] == [method, "L1Unstructured"]
    assert int(layer.weight_mask.sum()) == int(mask.sum()) - 1
    assert (layer.weight_mask <= mask).all()
    assert torch.equal(layer.weight, values * layer.weight_mask)
    first.l1_unstructured(layer, "weight", 1)
    kept = layer.weight_mask.clone()
    second.remove(layer, "weight")
    assert torch.equal(layer.weight, values * kept)
    assert not first.is_pruned(layer)
    assert isinstance(layer.weight, nn.Parameter)
    layer(torch.randn(2, 3))


@pytest.mark.parametrize("method", [torch_prune.RandomUnstructured, torch_prune.L1Unstructured])
def test_torch_methods_prune_globally_through_ours(method):
    def pruned(module):
        torch.manual_seed(0)
        layers = [nn.Linear(5, 4), nn.Linear(4, 3)]
        prune.l1_unstructured(layers[0], "weight", 3)
        module.global_unstructured([(layer, "weight") for layer in layers], method, amount=0.4)
        return [layer.weight_mask for layer in layers]

    assert all(map(torch.equal, pruned(prune), pruned(torch_prune)))


def test_a_subclass_of_torchs_base_class_prunes_what_we_pruned():
    layer = prune.l1_unstructured(nn.Linear(4, 2), "weight", 4)
    kept = layer.weight_mask.bool()
    EveryOther.apply(layer, "weight")
    assert layer.weight_mask[kept].tolist() == [0, 1, 0, 1]
    copied = copy.deepcopy(layer)
    assert torch.equal(copied(torch.ones(1, 4)), layer(torch.ones(1, 4)))
    prune.global_unstructured([(layer, "weight")], EveryOther)
    assert int(layer.weight_mask.sum()) == 1


def test_a_mask_that_broadcasts_is_read_in_the_shape_of_its_parameter():
    class FirstRow(torch_prune.BasePruningMethod):
        PRUNING_TYPE = "unstructured"

        def compute_mask(self, t, default_mask):
            return (torch.arange(len(t)) == 0).unsqueeze(1)

    layer, x = nn.Linear(3, 2), torch.randn(4, 3)
    FirstRow.apply(layer, "weight")
    params, masks = fp.compat.extract(layer)
    assert masks["weight"].tolist() == [[True] * 3, [False] * 3]
    assert torch.equal(fp.masked_call(nn.Linear(3, 2), params, masks, x), layer(x))
    prune.l1_unstructured(layer, "weight", 2)
    assert int(layer.weight_mask.sum()) == 1


def test_a_removal_by_torch_leaves_nothing_behind():
    layer = prune.l1_unstructured(nn.Linear(3, 3), "weight", 2)
    weight = layer.weight_orig
    torch_prune.remove(layer, "weight")
    assert layer.weight is weight
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    assert vars(layer).keys() == vars(nn.Linear(3, 3)).keys()
    assert not layer._load_state_dict_post_hooks


def test_a_removal_through_the_hook_alone():
    layer = prune.l1_unstructured(nn.Linear(3, 3), "weight", 2)
    ((key, hook),) = layer._forward_pre_hooks.items()
    del layer._forward_pre_hooks[key]
    hook.remove(layer)
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    assert int((layer.weight == 0).sum()) == 2


def test_two_hooks_on_one_tensor_are_refused():
    layer = prune.l1_unstructured(nn.Linear(3, 3), "weight", 2)
    extra = prune.L1Unstructured(1)
    extra._tensor_name = "weight"
    layer.register_forward_pre_hook(extra)
    for module in (prune, torch_prune):
        with pytest.raises(AssertionError, match="PruningContainer"):
            module.l1_unstructured(layer, "weight", 1)


def test_bake_takes_out_hooks_of_both():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    prune.l1_unstructured(model[0], "weight", 2)
    torch_prune.l1_unstructured(model[1], "weight", 2)
    torch_prune.l1_unstructured(model[0], "bias", 1)
    x = torch.randn(2, 3)
    out = model(x)
    assert torch.equal(fp.compat.bake(model)(x), out)
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "1.bias", "1.weight"]
    assert not torch_prune.is_pruned(model)
