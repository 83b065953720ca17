"""Straight-through and SR-STE: the masked value forward, the stated gradient backward."""

from typing import Any

import pytest
import torch
from torch.func import grad, vmap

import funcprune as fp
from funcprune.training import sr_ste, straight_through

from .helpers import same_bits


def loss(params: Any, x: Any = 1.0) -> Any:
    return sum((x * value.sin()).sum() for value in params.values())


def test_autograd_and_func_agree_and_kept_entries_have_the_usual_gradient() -> None:
    params = {"w": torch.tensor([[1.0, -2.0, 3.0]], requires_grad=True)}
    masks = {"w": torch.tensor([[True, False, True]])}
    loss(sr_ste(params, masks, decay=0.5)).backward()
    expected = grad(lambda p: loss(sr_ste(p, masks, decay=0.5)))({"w": params["w"].detach()})["w"]
    assert torch.equal(params["w"].grad, expected)
    usual = grad(fp.masked(loss))({"w": params["w"].detach()}, masks)["w"]
    assert torch.equal(expected[masks["w"]], usual[masks["w"]])
    assert torch.equal(expected[~masks["w"]], torch.tensor([1.0 - 1.0]))  # cos(0) + decay * -2


@pytest.mark.parametrize("applied", [straight_through, lambda p, m: sr_ste(p, m, decay=0.5)])
def test_vmap_of_grad_equals_the_loop(applied: Any) -> None:
    params = {"w": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), "b": torch.ones(3)}
    masks = [fp.random_unstructured(0.5, seed=seed)(params) for seed in range(3)]
    stacked = fp.masks.stack(masks)

    def gradient(m: Any) -> Any:
        return grad(lambda p: loss(applied(p, m)))(params)

    many = vmap(gradient, in_dims=(fp.in_dims(stacked),))(stacked)
    for k, m in enumerate(masks):
        same_bits({name: value[k] for name, value in many.items()}, gradient(m))
    samples = torch.tensor([1.0, 2.0])
    each = vmap(lambda x: grad(lambda p: loss(applied(p, masks[0]), x))(params))(samples)
    for k, x in enumerate(samples):
        same_bits({n: v[k] for n, v in each.items()}, grad(lambda p, x=x: loss(applied(p, masks[0]), x))(params))


# The compiler itself makes an instance of torch.autograd.Function.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_equals_eager() -> None:
    params = {"w": torch.tensor([[1.0, -2.0, 3.0]], requires_grad=True)}
    masks = {"w": torch.tensor([[True, False, True]])}

    def gradient(w: Any) -> Any:
        return torch.autograd.grad(loss(sr_ste({"w": w}, masks, decay=0.5)), w)[0]

    compiled = torch.compile(lambda w: loss(sr_ste({"w": w}, masks, decay=0.5)), backend="aot_eager", fullgraph=True)
    (found,) = torch.autograd.grad(compiled(params["w"]), params["w"])
    assert torch.equal(found, gradient(params["w"]))


def test_latent_weights_come_back_when_they_grow() -> None:
    # The target needs the weight that starts as the smaller one; straight-through lets it overtake.
    params = {"w": torch.tensor([[0.5, 0.4]])}
    pruner, target = fp.l1_unstructured(1), torch.tensor([[0.0, 1.0]])
    for _ in range(50):
        masks = pruner(params)
        grads = grad(lambda p, m=masks: (straight_through(p, m)["w"] - target).square().sum())(params)
        params = {"w": params["w"] - 0.1 * grads["w"]}
    assert pruner(params)["w"].tolist() == [[False, True]]


def test_infinite_pruned_weights_are_zero_forward() -> None:
    out = straight_through({"w": torch.tensor([torch.inf, torch.nan, 1.0])}, {"w": torch.tensor([False, False, True])})
    same_bits(out, {"w": torch.tensor([0.0, 0.0, 1.0])})


@pytest.mark.parametrize("decay", [-1.0, float("nan"), float("inf"), True, "1"])
def test_bad_decay_is_refused(decay: Any) -> None:
    with pytest.raises(ValueError, match="decay="):
        sr_ste({"w": torch.ones(1)}, {"w": None}, decay=decay)
    with pytest.raises(ValueError, match="masks at 'w'"):
        sr_ste({"w": torch.ones(1)}, {"w": torch.ones(2).bool()})
