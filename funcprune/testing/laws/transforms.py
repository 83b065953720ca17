"""Laws of transforms and of masked modules. The subject is an implementation of ``masked`` and ``functional``."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from funcprune import masking as plain
from funcprune import masks as algebra
from funcprune import trees
from funcprune.testing import strategies
from funcprune.testing.law import Case, ensure, law, same
from funcprune.testing.laws.masking import polynomial

_SMALL: dict[str, Any] = {"dtypes": (torch.float32, torch.float64), "finite": True, "layouts": strategies.DENSE}


@law("masking", "vmap over K stacked masks is the loop over the K masks, in values and in gradients.")
def vmap_is_the_loop(masking: Any, case: Case) -> None:
    """``vmap(f)(stack(m)) = stack(f(m))``."""
    params = case.draw(strategies.params(**_SMALL), "params")
    many = [case.masks(params, f"masks {k}") for k in range(3)]
    stacked = algebra.stack(many)
    if all(leaf is None for leaf in trees.flatten(stacked)[0]):
        return
    function = masking.masked(polynomial)
    dims = (None, masking.in_dims(stacked))
    values = torch.func.vmap(function, in_dims=dims)(params, stacked)
    same({"": values}, {"": torch.stack([function(params, masks) for masks in many])}, "vmap")
    grads = torch.func.vmap(torch.func.grad(function), in_dims=dims)(params, stacked)
    for k, masks in enumerate(many):
        leaves, spec = trees.flatten(grads)
        row = spec.unflatten([leaf[k] for leaf in leaves])
        same(row, torch.func.grad(function)(params, masks), f"vmap of grad, masks {k}")


@law(
    "masking",
    "A compiled masked function equals the eager one, in one graph for all masks of one None pattern and layout.",
    cost=5,
)
def compiled_is_eager(masking: Any, case: Case) -> None:
    """``compile(f) = f, compiled once``."""
    params = case.draw(strategies.params(max_leaves=2, nested=False, matrix=True, **_SMALL), "params")
    first = case.masks(params, "first masks")
    pattern = [leaf is None for leaf in trees.flatten(first)[0]]
    leaves, spec = trees.params(params)
    drawn = [case.draw(strategies.unit_masks(tuple(leaf.shape)), "second mask") for leaf in leaves]
    second = spec.unflatten([None if none else mask for none, mask in zip(pattern, drawn, strict=True)])
    eager, graphs = masking.masked(polynomial), 0
    dynamo: Any = torch._dynamo

    def backend(graph: Any, inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return dynamo.lookup_backend("aot_eager")(graph, inputs)

    dynamo.reset()
    compiled: Any = torch.compile(eager, fullgraph=True, backend=backend)
    counted = []
    for masks in (algebra.contiguous(first), algebra.contiguous(second)):
        try:
            found = compiled(params, masks)
        except dynamo.exc.TorchDynamoException as error:
            raise AssertionError(f"does not compile as one graph: {error}") from error
        torch.testing.assert_close(found, eager(params, masks))
        counted.append(graphs)  # one compilation may call the backend twice: torch starts over after some scalars
    ensure(counted[0] == counted[1], "compiled again for other masks")


@law("masking", "A masked module computes what the same module computes with baked parameters.")
def functional_is_baked(masking: Any, case: Case) -> None:
    """``functional(model)(p, m, x) = baked(x)``."""
    model, inputs = case.draw(strategies.modules(), "module")
    params = dict(model.named_parameters())
    masks = case.masks(params)
    baked = copy.deepcopy(model)
    with torch.no_grad():
        values = plain.bake(params, masks)
        for name, parameter in baked.named_parameters():
            parameter.copy_(values[name])
    _close(masking.functional(model)(params, masks, *inputs), baked(*inputs))


@law(
    "masking", "A masked call leaves the module's parameters the same objects with the same bits, also after an error."
)
def functional_leaves_the_module(masking: Any, case: Case) -> None:
    """The module is as before."""
    model, inputs = case.draw(strategies.modules(), "module")
    params = dict(model.named_parameters())
    masks = case.masks(params)
    before = _state(model)
    call = masking.functional(model)
    call(params, masks, *inputs)
    _unchanged(model, before)
    try:
        call(params, masks, "not a tensor")
    except Exception:  # any error will do, and what it left behind is the question
        pass
    else:
        raise AssertionError("a call with a str for input went through")
    _unchanged(model, before)


def _state(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    return {name: (leaf, leaf.detach().clone()) for name, leaf in model.named_parameters(remove_duplicate=False)}


def _unchanged(model: nn.Module, before: dict[str, tuple[Tensor, Tensor]]) -> None:
    now = dict(model.named_parameters(remove_duplicate=False))
    ensure(list(now) == list(before), f"found parameters {list(now)}, expected {list(before)}")
    for name, (leaf, values) in before.items():
        ensure(now[name] is leaf, f"{name!r} is another object")
        ensure(torch.equal(leaf, values), f"{name!r} has other values")


def _close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
