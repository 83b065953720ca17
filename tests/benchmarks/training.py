"""A training step (forward and backward) under masks: eager, projected, compiled, and many masks at once."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune as incumbent

import funcprune as fp
from tests.benchmarks.harness import Row, at_least, at_most, medians, reported
from tests.benchmarks.nets import cases, mlp


def hook_pruned(model: nn.Module, masks: dict[str, Tensor | None]) -> nn.Module:
    """A copy of the model, pruned by torch.nn.utils.prune."""
    pruned = copy.deepcopy(model)
    for path, mask in masks.items():
        if mask is not None:
            prefix, _, name = path.rpartition(".")
            incumbent.custom_from_mask(pruned.get_submodule(prefix), name, mask)
    return pruned


def backward(loss: Tensor, leaves: list[Tensor]) -> None:
    torch.autograd.grad(loss, leaves)


def as_bytes(masks: dict[str, Tensor | None]) -> dict[str, Any]:
    """Factors for the bare product, made beforehand."""
    return {path: None if mask is None else mask.view(torch.uint8) for path, mask in masks.items()}


def product(params: dict[str, Tensor], factors: dict[str, Any]) -> dict[str, Tensor]:
    """The bare product."""
    return {path: leaf if factors[path] is None else leaf * factors[path] for path, leaf in params.items()}


def step(small: bool) -> Iterator[Row]:
    """``functional`` and ``masked`` against a bare product and ``functional_call``, hooks, and the dense model."""
    for name, (model, x, y) in cases().items():
        params = dict(model.named_parameters())
        masks = fp.l1_unstructured(0.8)(params)
        leaves = list(params.values())
        factors = as_bytes(masks)
        f, hooked = fp.functional(model), hook_pruned(model, masks)
        hooked_leaves = list(hooked.parameters())

        def loss(params: dict[str, Tensor], x: Tensor, y: Tensor, model: nn.Module = model) -> Tensor:
            return cross_entropy(functional_call(model, params, (x,)), y)

        sides: dict[str, Callable[[], object]] = {
            "functional": lambda: backward(cross_entropy(f(params, masks, x), y), leaves),
            "bare": lambda: backward(loss(product(params, factors), x, y), leaves),
            "hooks": lambda: backward(cross_entropy(hooked(x), y), hooked_leaves),
            "masked_call": lambda: backward(cross_entropy(fp.masked_call(model, params, masks, x), y), leaves),
            "dense": lambda: backward(cross_entropy(model(x), y), leaves),
            "grad masked": lambda: grad(fp.masked(loss))(params, masks, x, y),
            "grad bare": lambda: grad(lambda params, x, y: loss(product(params, factors), x, y))(params, x, y),
        }
        found = medians(sides, 3 if small else 101)
        yield at_most(1.05, f"functional: {name}", found["functional"], "bare product", found["bare"])
        yield reported(f"functional: {name}", found["functional"], "hook-pruned", found["hooks"])
        yield reported(f"functional: {name}", found["functional"], "dense", found["dense"])
        yield reported(f"masked_call: {name}", found["masked_call"], "bare product", found["bare"])
        yield at_most(1.05, f"grad(masked): {name}", found["grad masked"], "grad(bare product)", found["grad bare"])


def projected(small: bool) -> Iterator[Row]:
    """A whole SGD step with ``project_`` after it, against the dense one; and what any pass after it costs."""
    for name in ("4x Linear(1024), batch 64", "LeNet-300-100, batch 60"):
        model, x, y = cases()[name]
        params = dict(model.named_parameters())
        masks = fp.l1_unstructured(0.8)(params)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        pruned = [(leaf.detach(), mask) for path, leaf in params.items() if (mask := masks[path]) is not None]
        bits = [(leaf.view(torch.int32), mask.to(torch.int32)) for leaf, mask in pruned]

        def sgd(
            after: Callable[[], object], model: Any = model, x: Any = x, y: Any = y, optimizer: Any = optimizer
        ) -> Callable[[], object]:
            def step() -> None:
                optimizer.zero_grad()
                cross_entropy(model(x), y).backward()
                optimizer.step()
                after()

            return step

        afterwards: dict[str, Callable[[], object]] = {
            "dense": lambda: None,
            "project_": lambda: fp.project_(params, masks),
            "product": lambda: [leaf.mul_(mask) for leaf, mask in bits],
            "pass": lambda: [leaf.mul_(1.0) for leaf, _ in pruned],
        }
        found = medians({key: sgd(after) for key, after in afterwards.items()}, 3 if small else 101)
        yield at_most(1.05, f"project_: {name}", found["project_"], "dense", found["dense"])
        yield reported(f"project_: {name}", found["project_"], "product by int32 masks", found["product"])
        yield reported(f"product by int32 masks: {name}", found["product"], "dense", found["dense"])
        yield reported(f"p.mul_(1.0): {name}", found["pass"], "dense", found["dense"])


def compiled(small: bool) -> Iterator[Row]:
    """A compiled step, and how often 20 exchanges of masks compile it again."""
    backend = "aot_eager" if small else "inductor"
    for name in ("LeNet-300-100, batch 60", "4x Linear(1024), batch 64"):
        model, x, y = cases()[name]
        params = dict(model.named_parameters())
        f, leaves = fp.functional(model), list(params.values())
        masked = torch.compile(
            lambda masks, f=f, params=params, x=x, y=y: cross_entropy(f(params, masks, x), y),
            fullgraph=True,
            backend=backend,
        )
        bare = torch.compile(
            lambda factors, model=model, params=params, x=x, y=y: cross_entropy(
                functional_call(model, product(params, factors), (x,)), y
            ),
            fullgraph=True,
            backend=backend,
        )
        dense = torch.compile(lambda model=model, x=x, y=y: cross_entropy(model(x), y), fullgraph=True, backend=backend)
        masks = [fp.random_unstructured(0.8, seed=seed)(params) for seed in range(21)]
        factors = as_bytes(masks[0])
        masked(masks[0])
        with torch._dynamo.config.patch(error_on_recompile=True):
            for other in masks[1:]:
                masked(other)
        found = medians(
            {
                "ours": lambda: backward(masked(masks[0]), leaves),
                "bare": lambda: backward(bare(factors), leaves),
                "dense": lambda: backward(dense(), leaves),
            },
            3 if small else 101,
        )
        case = f"compiled, 0 recompilations: {name}"
        yield at_most(1.1, case, found["ours"], "compiled dense", found["dense"])
        yield reported(case, found["ours"], "compiled bare product", found["bare"])


def ensemble(small: bool) -> Iterator[Row]:
    """16 masks of one net by vmap, against 16 hook-pruned modules in turn."""
    nets: dict[str, tuple[nn.Module, Tensor, Tensor, float | None]] = {
        "64-64-10, batch 8": (mlp(64, 64, 10), torch.randn(8, 64), torch.randint(10, (8,)), 2),
        "256-128-10, batch 32": (mlp(256, 128, 10), torch.randn(32, 256), torch.randint(10, (32,)), None),
    } | {name: (*cases()[name], None) for name in ("LeNet-300-100, batch 60", "4x Linear(1024), batch 64")}
    for name, (model, x, y, times) in nets.items():
        params = {path: leaf.detach() for path, leaf in model.named_parameters()}
        trees = [fp.random_unstructured(0.8, seed=seed)(params) for seed in range(16)]
        stacked, modules = fp.masks.stack(trees), [hook_pruned(model, masks) for masks in trees]
        f, dims = fp.functional(model), fp.in_dims(stacked)

        def loss(params: Any, masks: Any, x: Tensor, y: Tensor, f: Any = f) -> Tensor:
            return cross_entropy(f(params, masks, x), y)

        infer = vmap(f, in_dims=(None, dims, None))
        gradients = vmap(grad(loss), in_dims=(None, dims, None, None))

        def in_turn(modules: Any = modules, x: Any = x) -> None:
            with torch.no_grad():
                for module in modules:
                    module(x)

        def in_turn_gradients(modules: Any = modules, x: Any = x, y: Any = y) -> None:
            for module in modules:
                backward(cross_entropy(module(x), y), list(module.parameters()))

        runs = 3 if small else 31
        with torch.no_grad():
            inference = medians({"ours": lambda: infer(params, stacked, x), "theirs": in_turn}, runs)
        training = medians({"ours": lambda: gradients(params, stacked, x, y), "theirs": in_turn_gradients}, runs)
        for what, found in (("inference", inference), ("gradients", training)):
            case, reference = f"16 masks, {what}: {name}", "16 hook-pruned modules"
            if times is None:
                yield reported(case, found["ours"], reference, found["theirs"])
            else:
                yield at_least(times, case, found["ours"], reference, found["theirs"])
