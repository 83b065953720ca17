"""Laws of the adapter. The subject is an implementation of ``funcprune.compat``."""

import copy
from typing import Any

import torch

from funcprune import masking
from funcprune import masks as algebra
from funcprune.testing import strategies
from funcprune.testing.law import Case, ensure, law, same


@law("adapter", "extract after install gives the same parameters, the same objects, and the same masks.")
def extract_inverts_install(adapter: Any, case: Case) -> None:
    """``extract(install(model, m)) = (params, m)``."""
    model, _ = case.draw(strategies.modules(), "module")
    params = dict(model.named_parameters())
    masks = case.masks(params)
    before = {name: leaf.detach().clone() for name, leaf in params.items()}
    found, back = adapter.extract(adapter.install(model, masks))
    ensure(list(found) == list(params), f"found {list(found)}, expected {list(params)}")
    ensure(all(found[name] is leaf for name, leaf in params.items()), "a parameter is another object")
    same({name: leaf.detach() for name, leaf in found.items()}, before, "parameters")
    ensure(algebra.equal(back, masks), f"found masks {back}")


@law("adapter", "An installed module computes what the masked call computes, outputs and gradients.")
def install_is_the_masked_call(adapter: Any, case: Case) -> None:
    """``install(model, m)(x) = functional(model)(p, m, x)``."""
    model, inputs = case.draw(strategies.modules("linear", "conv", "norm", "tied", "shared", "lstm"), "module")
    params = {name: leaf.detach().clone().requires_grad_() for name, leaf in model.named_parameters()}
    masks = case.masks(params)
    pure = _total(masking.functional(model)(params, masks, *inputs))
    expected = dict(zip(params, torch.autograd.grad(pure, list(params.values()), materialize_grads=True), strict=True))
    installed = adapter.install(copy.deepcopy(model), masks)
    stateful = _total(installed(*inputs))
    torch.testing.assert_close(stateful, pure)
    leaves, _ = adapter.extract(installed)
    grads = torch.autograd.grad(stateful, list(leaves.values()), materialize_grads=True)
    for name, grad in zip(leaves, grads, strict=True):
        torch.testing.assert_close(grad, expected[name], msg=f"another gradient at {name!r}")


@law("adapter", "Baking a module writes what fp.bake returns into the parameters that it had before.")
def module_bake_is_bake(adapter: Any, case: Case) -> None:
    """bake(install(model, m)) has the parameters bake(p, m)."""
    model, _ = case.draw(strategies.modules(), "module")
    params = dict(model.named_parameters())
    masks = case.masks(params)
    expected = masking.bake(params, masks)
    baked = dict(adapter.bake(adapter.install(model, masks)).named_parameters())
    ensure(list(baked) == list(params), f"found {list(baked)}, expected {list(params)}")
    ensure(all(baked[name] is leaf for name, leaf in params.items()), "a parameter is another object")
    for name, leaf in baked.items():
        same({name: leaf.detach()}, {name: expected[name]}, "baked")
        ensure(torch.equal(leaf.signbit(), expected[name].signbit()), f"{name!r}: found -0.0")


@law("adapter", "A pruned state dict comes apart into the dense one and masks, and together again, with nothing lost.")
def state_dicts_round_trip(adapter: Any, case: Case) -> None:
    """``join(split(s)) = s``."""
    model, _ = case.draw(strategies.modules("linear", "conv", "norm", "lstm"), "module")
    dense = {name: value.clone() for name, value in model.state_dict().items()}
    masks = case.masks(dict(model.named_parameters()))
    pruned = dict(adapter.install(model, masks).state_dict())
    found, back = adapter.split_state_dict(pruned)
    same(dict(found), dense, "the dense state dict")
    for name, mask in masks.items():
        ensure(algebra.equal({name: back.get(name)}, {name: mask}), f"{name!r}: found mask {back.get(name)}")
    same(dict(adapter.join_state_dict(found, back)), pruned, "the state dict put together")


def _total(output: Any) -> torch.Tensor:
    """A scalar of every tensor of an output, with another slope at each value."""
    if isinstance(output, torch.Tensor):
        return (output * output + output).sum()
    return torch.stack([_total(item) for item in output]).sum()
