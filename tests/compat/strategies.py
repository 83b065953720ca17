"""Hypothesis strategies for the stateful world: small modules and sequences of pruning calls on them."""

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn

from .helpers import EveryOther

SEEDS = st.integers(0, 2**31 - 1)


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))


MODELS = {"dense": (dense, (3, 6)), "convolution": (convolution, (3, 2, 3))}


@dataclass(frozen=True)
class World:
    """A model by its name and seed: made anew as often as needed, without ties among its values."""

    name: str
    seed: int

    def model(self) -> nn.Module:
        torch.manual_seed(self.seed)
        return MODELS[self.name][0]()

    def inputs(self) -> torch.Tensor:
        return torch.randn(MODELS[self.name][1], generator=torch.Generator().manual_seed(self.seed))


worlds = st.builds(World, st.sampled_from(sorted(MODELS)), SEEDS)

layers = st.sampled_from([0, -1])
names = st.sampled_from(["weight", "weight", "bias"])
good_amounts = st.floats(0, 1) | st.integers(0, 3)
bad_amounts = st.sampled_from([-1, 1.5, -0.5, 10_000, "half", None, float("nan")])
amounts = st.one_of(good_amounts, good_amounts, good_amounts, bad_amounts)
dims = st.sampled_from([0, 1, -1, 0, 1, 5, -7])
norms = st.sampled_from([1, 2, 3, float("inf"), "fro"])  # tie-free: no 0, and no -inf, which is 0 for half-dead slices


@dataclass(frozen=True)
class Call:
    """One call on a model: ``call(prune, model)`` with either library's functions as ``prune``."""

    kind: str
    layer: int
    name: str
    options: dict[str, Any]
    seed: int

    def __call__(self, prune: Any, model: nn.Module) -> Any:
        generator = torch.Generator().manual_seed(self.seed)
        layer, options = model[self.layer], dict(self.options)
        tensor = getattr(layer, self.name)
        if options.pop("scored", False):
            options["importance_scores"] = torch.randn(tensor.shape, generator=generator)
        torch.manual_seed(self.seed)
        if self.kind == "custom_from_mask":
            mask = torch.rand(tensor.shape, generator=generator) < 0.7
            return prune.custom_from_mask(layer, self.name, mask.to(options["dtype"]))
        if self.kind == "every_other":
            return type("EveryOther", (prune.BasePruningMethod,), dict(vars(EveryOther))).apply(layer, self.name)
        if self.kind == "global_unstructured":
            method = getattr(prune, options.pop("method"))
            entries = [(part, name) for part in (model[0], model[-1]) for name in ("weight", "bias")]
            if "importance_scores" in options:
                options["importance_scores"] = {(layer, self.name): options["importance_scores"]}
            return prune.global_unstructured(entries, method, **options)
        if self.kind == "step":
            return _step(model, generator)
        if self.kind == "remove":
            prune.remove(layer, self.name)
            return _step(model, generator)  # the zeros it leaves are ties
        return getattr(prune, self.kind)(layer, self.name, **options)


def _step(model: nn.Module, generator: torch.Generator) -> None:
    """Changes every parameter, then calls the hooks, which makes the masked tensors current."""
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    for layer in (model[0], model[-1]):
        for hook in layer._forward_pre_hooks.values():
            hook(layer, ())


def _call(kind: str, **options: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.builds(Call, st.just(kind), layers, names, st.fixed_dictionaries(options), SEEDS)


scored = st.booleans()
calls = st.one_of(
    _call("identity"),
    _call("random_unstructured", amount=amounts),
    _call("l1_unstructured", amount=amounts, scored=scored),
    _call("random_structured", amount=amounts, dim=dims),
    _call("ln_structured", amount=amounts, n=norms, dim=dims, scored=scored),
    _call("custom_from_mask", dtype=st.sampled_from([torch.bool, torch.float32, torch.int64])),
    _call("every_other"),
    _call(
        "global_unstructured",
        amount=amounts,
        method=st.sampled_from(["L1Unstructured", "RandomUnstructured", "LnStructured"]),
        scored=scored,
    ),
    _call("remove"),
    _call("step"),
)
