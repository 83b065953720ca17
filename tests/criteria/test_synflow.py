"""SynFlow: conservation, iteration, no layer collapse."""

import itertools

import pytest
import torch
from torch import Tensor, nn

import funcprune as fp


def deep(width: int = 12, depth: int = 5) -> nn.Sequential:
    """A convolutional net with BatchNorm, trained a bit, so that running statistics are not those of a fresh one."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()]
    size = 4 * 3 * 3
    for _ in range(depth):
        layers += [nn.Linear(size, width), nn.BatchNorm1d(width), nn.ReLU()]
        size = width
    model = nn.Sequential(*layers, nn.Linear(size, 3))
    for _ in range(5):
        model(torch.randn(16, 1, 8, 8) * 3 + 1)
    return model


def layer_sums(model: nn.Module, params: dict[str, Tensor], masks: fp.trees.Masks) -> list[float]:
    scores = fp.criteria.synflow(model, (1, 8, 8))(params, masks)
    return [scores[name].sum().item() for name in params if params[name].ndim >= 2]


def test_the_flow_of_every_layer_sums_to_the_same() -> None:
    model = deep()
    params = dict(model.named_parameters())
    masks = fp.l1_unstructured(0.5)(params)
    for tree in (dict.fromkeys(params), masks):
        sums = layer_sums(model, params, tree)
        assert len(sums) == 7
        assert sums == pytest.approx([sums[0]] * 7, rel=1e-12)


def test_the_flow_through_a_unit_is_conserved() -> None:
    # Tanaka et al., theorem 1: what flows into a hidden unit flows out of it.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    scores = fp.criteria.synflow(model, (5,))(dict(model.named_parameters()))
    torch.testing.assert_close(scores["0.weight"].sum(1), scores["2.weight"].sum(0))


def test_scores_are_leave_one_out_in_a_linear_network() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
    params = {name: leaf.detach() for name, leaf in model.named_parameters()}

    def total(params: dict[str, Tensor]) -> float:
        ones = torch.ones(1, 3, dtype=torch.float64)
        return (params["1.weight"].double().abs() @ (params["0.weight"].double().abs() @ ones.T)).sum().item()

    scores = fp.criteria.synflow(model, (3,))(params)
    for name, leaf in params.items():
        for index in range(leaf.numel()):
            without = leaf.clone()
            without.view(-1)[index] = 0
            rise = total(params) - total(params | {name: without})
            assert scores[name].view(-1)[index].item() == pytest.approx(rise, rel=1e-9)


def test_biases_flow_nothing_and_the_scores_are_float64() -> None:
    model = deep()
    scores = fp.criteria.synflow(model, (1, 8, 8))(dict(model.named_parameters()))
    assert all(score.dtype == torch.float64 for score in scores.values())
    assert all((score == 0).all() for name, score in scores.items() if name.endswith("bias"))


def test_iterated_synflow_keeps_every_layer_alive_where_single_shots_do_not() -> None:
    torch.manual_seed(0)
    widths = [40, 40, 40, 160, 40, 40, 40, 3]
    stack = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(*stack[:-1])
    params = dict(model.named_parameters())
    weights = fp.ndim(2)
    total = sum(leaf.numel() for leaf in params.values() if leaf.ndim >= 2)
    drop = total - 30

    def layers(masks: fp.trees.Masks) -> list[int]:
        return [row.kept for name, row in fp.masks.counts(params, masks).items() if params[name].ndim >= 2]

    single = fp.Pruner(fp.criteria.synflow(model, (40,)), drop, scope="global", where=weights)
    iterated = layers(fp.iterate(single, rounds=100)(params))
    assert sum(iterated) == sum(layers(single(params))) == 30
    assert min(iterated) > 0
    assert min(layers(single(params))) == 0
    assert min(layers(fp.l1_unstructured(drop, scope="global", where=weights)(params))) == 0


SCOPES = ["leaf", "global", fp.within(0), fp.erk(), fp.uniform(), {"a": 0.7, "b": 11}]


@pytest.mark.parametrize("scope", SCOPES, ids=repr)
@pytest.mark.parametrize("schedule", ["exponential", "linear"])
def test_rounds_reach_the_same_masks_where_scores_do_not_change(scope: fp.allocation.Scope, schedule: str) -> None:
    torch.manual_seed(0)
    params = {"a": torch.randn(6, 7), "b": torch.randn(5, 9)}
    before = fp.random_unstructured(0.2, seed=0)(params)
    for budget in ({"amount": 0.83}, {"sparsity": 0.83}, {"amount": 1.0}):
        pruner = fp.Pruner(fp.criteria.magnitude(), scope=scope, **({} if isinstance(scope, dict) else budget))
        slow = fp.iterate(pruner, rounds=7, schedule=schedule)
        assert fp.masks.equal(slow(params, before), pruner(params, before))


def test_rounds_follow_the_schedule_and_score_anew() -> None:
    kept = []

    def criterion(params: dict[str, Tensor], masks: dict[str, Tensor | None]) -> dict[str, Tensor]:
        kept.append(fp.masks.counts(params, masks)["w"].kept)
        return {"w": params["w"].abs()}

    pruner = fp.Pruner(criterion, sparsity=0.99)
    params = {"w": torch.randn(10, 100)}
    fp.iterate(pruner, rounds=4)(params)
    assert kept == [1000, 316, 100, 32]
    kept.clear()
    fp.iterate(pruner, rounds=2, schedule="linear", progress=list)(params)
    assert kept == [1000, 505]


def test_rounds_of_structures_count_units() -> None:
    params = {"a": torch.randn(20, 3, 3, 3), "b": torch.randn(12, 20, 3, 3)}
    masks = fp.iterate(fp.ln_structured(0.75, n=2, dim=0), rounds=5)(params)
    assert [int(mask.flatten(1).any(1).sum()) for mask in masks.values()] == [5, 3]


def test_the_target_can_be_moved() -> None:
    params = {"w": torch.randn(10, 10)}
    slow = fp.iterate(fp.l1_unstructured(0.5), rounds=3).at(0.9)
    assert repr(slow) == "iterate(Pruner(magnitude(), sparsity=0.9), rounds=3, schedule='exponential')"
    assert fp.masks.sparsity(params, slow(params)) == 0.9


def test_iterate_refuses_what_has_no_rounds() -> None:
    with pytest.raises(TypeError, match="expected a Pruner"):
        fp.iterate(fp.chain())
    with pytest.raises(ValueError, match="fixes its own count"):
        fp.iterate(fp.Pruner(fp.criteria.magnitude(), structure=fp.NM(2, 4)))
    with pytest.raises(ValueError, match="rounds=0"):
        fp.iterate(fp.l1_unstructured(0.5), rounds=0)
    with pytest.raises(ValueError, match="schedule='cosine'"):
        fp.iterate(fp.l1_unstructured(0.5), schedule="cosine")
    with pytest.raises(TypeError, match="scores="):
        fp.iterate(fp.l1_unstructured(0.5))({"w": torch.ones(2, 2)}, scores={"w": torch.ones(2, 2)})


def test_synflow_refuses_bad_shapes() -> None:
    with pytest.raises(ValueError, match="found no shape"):
        fp.criteria.synflow(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="expected the shapes"):
        fp.criteria.synflow(nn.Linear(2, 2), 2)
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module"):
        fp.criteria.synflow(lambda x: x, (2,))
