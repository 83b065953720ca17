"""Every criterion with every structure, scope and selector; the masks are exact subsets, and nothing else changes."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import funcprune as fp

WEIGHTS = ["0.weight", "3.weight", "5.weight"]
COUPLED = fp.Coupled(
    {"0.weight": 0, "0.bias": 0, "3.weight": fp.Heads(4, 1)}, {"3.weight": 0, "3.bias": 0, "5.weight": 1}
)


def network() -> tuple[nn.Module, dict[str, Tensor], tuple[Tensor, Tensor]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(4, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 8), nn.ReLU(), nn.Linear(8, 4)
        ).eval()
        batch = torch.randn(6, 4, 3, 3), torch.randint(4, (6,))
    return model, {name: leaf.detach() for name, leaf in model.named_parameters()}, batch


def loss_of(model: nn.Module) -> Callable[..., Tensor]:
    def loss(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(torch.func.functional_call(model, params, (x,)), y)

    return loss


CRITERIA: dict[str, Callable[..., fp.criteria.Criterion]] = {
    "magnitude": lambda model, params, x, y: fp.criteria.magnitude(),
    "random": lambda model, params, x, y: fp.criteria.random(0),
    "saliency": lambda model, params, x, y: fp.criteria.saliency(loss_of(model), x, y),
    "grasp": lambda model, params, x, y: fp.criteria.grasp(loss_of(model), x, y),
    "taylor": lambda model, params, x, y: fp.criteria.taylor(loss_of(model), x, y),
    "fisher": lambda model, params, x, y: fp.criteria.fisher(loss_of(model), x, y),
    "movement": lambda model, params, x, y: fp.criteria.movement(params).update(
        params, torch.func.grad(loss_of(model))(params, x, y)
    ),
    "synflow": lambda model, params, x, y: fp.criteria.synflow(model, (4, 3, 3)),
    "lamp": lambda model, params, x, y: fp.criteria.lamp(),
    "wanda": lambda model, params, x, y: fp.criteria.wanda(model, [x]),
}
STRUCTURES = [
    fp.Elements(),
    fp.NM(2, 4),
    fp.Slices(0),
    fp.Slices(1, n=1),
    fp.Blocks((2, 2)),
    fp.Blocks((1, 1, -1, -1)),
    fp.Heads(2, 0),
    COUPLED,
]
SCOPES = ["leaf", "global", fp.within(0), fp.uniform(), fp.er(), fp.erk(), {"0.weight": 0.5, "3.weight": 2}]


def fitting(structure: object, scope: object) -> fp.selectors.Where | None:
    """Where a structure fits, None where it excludes a scope by design."""
    if isinstance(structure, fp.NM) and scope != "leaf":
        return None
    if scope == fp.within(0) and not isinstance(structure, fp.Elements | fp.Blocks):
        return None
    if isinstance(structure, fp.Blocks):
        return fp.ndim(4) if len(structure.shape) == 4 else WEIGHTS[1:]
    return WEIGHTS


def alive_units(groups: list[fp.structures.Group], params: dict[str, Tensor], masks: fp.trees.Masks) -> int:
    found = [(group.unit_shape(params), group.alive(params, masks or dict.fromkeys(params))) for group in groups]
    return sum(math.prod(shape) if units is None else int(units.sum()) for shape, units in found)


def test_every_criterion_is_in_the_table() -> None:
    made = {name for name in fp.criteria.__all__ if name[0].islower()}
    assert made == CRITERIA.keys()


@pytest.mark.parametrize("name", CRITERIA)
def test_everything_goes_with_everything(name: str) -> None:
    model, params, batch = network()
    criterion = CRITERIA[name](model, params, *batch)
    before = fp.random_unstructured(0.2, seed=3, where=WEIGHTS)(params)
    copies = {path: leaf.clone() for path, leaf in params.items()}
    count = 0
    for structure in STRUCTURES:
        for scope in SCOPES:
            where = fitting(structure, scope)
            if where is None:
                continue
            if isinstance(scope, dict):
                groups = fp.structures.grouped(structure, fp.selectors.resolve(where, params), params)
                scope = {path: amount for path, amount in scope.items() if path in {group.name for group in groups}}
            budget = {} if isinstance(structure, fp.NM) or isinstance(scope, dict) else {"amount": 0.5}
            pruner = fp.Pruner(criterion, structure=structure, scope=scope, where=where, **budget)
            for start in (None, before):
                masks = pruner(params, start)
                assert start is None or fp.masks.is_subset(masks, start)
                chosen = fp.selectors.resolve(where, params)
                assert fp.masks.sparsity(params, masks, where=chosen) > 0
                groups = fp.structures.grouped(structure, chosen, params)
                had, left = (alive_units(groups, params, tree) for tree in (start, masks))
                if (scope == "global" or isinstance(scope, fp.allocation.Share)) and structure is not COUPLED:
                    assert left == had - round(0.5 * had)  # units of coupled groups may die by those of another
                count += 1
    assert count == 2 * (8 * 7 - 6 - 4)  # NM has one scope; four structures have no units to rank within rows
    assert all(torch.equal(leaf, copies[path]) for path, leaf in params.items())


@pytest.mark.parametrize("name", CRITERIA)
def test_scores_are_a_tree_of_floats_like_the_params(name: str) -> None:
    model, params, batch = network()
    criterion = CRITERIA[name](model, params, *batch)
    nested = criterion(params, fp.random_unstructured(0.2, seed=3)(params))
    assert nested.keys() == params.keys()
    for path, score in nested.items():
        assert score is None or (score.shape == params[path].shape and score.is_floating_point())
        assert score is None or not score.requires_grad
    # Scores handed over rank entries as the criterion itself does.
    pruner = fp.Pruner(criterion, 0.5, scope="global", where=WEIGHTS)
    assert fp.masks.equal(pruner(params), pruner(params, scores=criterion(params, dict.fromkeys(params))))


@pytest.mark.parametrize("name", CRITERIA)
def test_half_precision_and_other_strides(name: str) -> None:
    model, params, (x, y) = network()
    model = model.to(torch.bfloat16)
    params = {path: leaf.to(torch.bfloat16) for path, leaf in params.items()}
    params["0.weight"] = params["0.weight"].to(memory_format=torch.channels_last)
    params["3.weight"] = params["3.weight"].T.contiguous().T
    criterion = CRITERIA[name](model, params, x.to(torch.bfloat16), y)
    masks = fp.Pruner(criterion, 0.5, scope="global", where=WEIGHTS)(params)
    total = sum(params[path].numel() for path in WEIGHTS)
    assert (
        sum(row.kept for path, row in fp.masks.counts(params, masks).items() if path in WEIGHTS) == total - total // 2
    )


@pytest.mark.parametrize("name", ["magnitude", "saliency", "grasp", "taylor", "fisher", "movement", "lamp"])
def test_nested_params_score_as_flat_ones(name: str) -> None:
    _, params, _ = network()
    flat = {"a.w": params["0.weight"].flatten(1), "b.0": params["5.weight"]}
    nested = {"a": {"w": flat["a.w"]}, "b": [flat["b.0"]]}

    def loss(params: dict, x: Tensor) -> Tensor:
        first, second = (params["a.w"], params["b.0"]) if "a.w" in params else (params["a"]["w"], params["b"][0])
        return (x @ first[:, :4].T).tanh().square().sum() + (x @ second[:, :4].T).sin().mean()

    def criterion(tree: dict) -> fp.criteria.Criterion:
        x = torch.linspace(-1, 1, 12).view(3, 4)
        if name in ("magnitude", "lamp"):
            return getattr(fp.criteria, name)()
        if name == "movement":
            return fp.criteria.movement(tree).update(tree, torch.func.grad(loss)(tree, x))
        return getattr(fp.criteria, name)(loss, x)

    one, other = criterion(flat)(flat, dict.fromkeys(flat)), criterion(nested)(nested, {"a": {"w": None}, "b": [None]})
    assert torch.equal(one["a.w"], other["a"]["w"])
    assert torch.equal(one["b.0"], other["b"][0])
