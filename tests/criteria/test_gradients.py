"""Gradient criteria against finite differences, leave-one-out and loops."""

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import funcprune as fp


def problem(batch: int = 12) -> tuple[nn.Module, dict[str, Tensor], tuple[Tensor, Tensor]]:
    """A tiny network in float64, so that finite differences are exact to many digits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        x, y = torch.randn(batch, 4, dtype=torch.float64), torch.randint(3, (batch,))
    return model, {name: leaf.detach() for name, leaf in model.named_parameters()}, (x, y)


def half(params: dict[str, Tensor]) -> dict[str, Tensor]:
    return fp.random_unstructured(0.4, seed=1)(params)


def cross_entropy(model: nn.Module, params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(torch.func.functional_call(model, params, (x,)), y)


def scaled(params: dict[str, Tensor], name: str, index: int, factor: float) -> dict[str, Tensor]:
    changed = params[name].clone()
    changed.view(-1)[index] *= factor
    return params | {name: changed}


def entries(params: dict[str, Tensor]) -> list[tuple[str, int]]:
    return [(name, index) for name, leaf in params.items() for index in range(leaf.numel())]


@pytest.mark.parametrize("pruned", [False, True])
def test_saliency_is_the_derivative_by_each_entry_of_the_mask(pruned: bool) -> None:
    model, params, batch = problem()
    masks = half(params) if pruned else dict.fromkeys(params)
    loss = functools.partial(cross_entropy, model)
    scores = fp.criteria.saliency(loss, *batch)(params, masks)
    soft = {
        name: torch.ones_like(leaf) if masks[name] is None else masks[name].double() for name, leaf in params.items()
    }
    for name, index in entries(params):
        ends = []
        for step in (1e-5, -1e-5):
            moved = soft[name].clone()
            moved.view(-1)[index] += step
            ends.append(loss({n: params[n] * (moved if n == name else soft[n]) for n in params}, *batch).item())
        assert scores[name].view(-1)[index].item() == pytest.approx(abs(ends[0] - ends[1]) / 2e-5, abs=1e-8)


def test_a_pruned_entry_has_a_saliency_but_stays_pruned() -> None:
    model, params, batch = problem()
    masks = half(params)
    criterion = fp.criteria.saliency(functools.partial(cross_entropy, model), *batch)
    scores = criterion(params, masks)["0.weight"]
    assert (scores[~masks["0.weight"]] > 0).all()
    assert fp.masks.is_subset(fp.Pruner(criterion, 0.5, scope="global")(params, masks), masks)


@pytest.mark.parametrize("make", [fp.criteria.saliency, fp.criteria.taylor, fp.criteria.grasp])
def test_several_batches_add_up(make: object) -> None:
    model, params, (x, y) = problem()

    def total(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(torch.func.functional_call(model, params, (x,)), y, reduction="sum")

    seen = []

    def progress(batches: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        seen.append(len(batches))
        return batches

    parts = [(x[:5], y[:5]), (x[5:6], y[5:6]), (x[6:], y[6:])]
    split = make(total, batches=parts, progress=progress)
    torch.testing.assert_close(split(params, half(params)), make(total, x, y)(params, half(params)))
    assert set(seen) == {3}


def test_taylor_predicts_the_change_of_the_loss_when_an_entry_shrinks() -> None:
    model, params, batch = problem()
    loss = functools.partial(cross_entropy, model)
    scores = fp.criteria.taylor(loss, *batch)(params)
    base = loss(params, *batch).item()
    for name, index in entries(params):
        slope = (loss(scaled(params, name, index, 1 - 1e-6), *batch).item() - base) / 1e-6
        assert scores[name].view(-1)[index].item() == pytest.approx(slope**2, rel=1e-3, abs=1e-10)


def test_taylor_of_a_unit_is_the_square_of_a_sum() -> None:
    model, params, batch = problem()
    loss = functools.partial(cross_entropy, model)
    criterion = fp.criteria.taylor(loss, *batch)
    masks = half(params)
    base = loss(fp.apply(params, masks), *batch).item()
    slopes = []
    for row in range(5):
        shrunk = params["0.weight"].clone()
        shrunk[row] *= 1 - 1e-6
        slopes.append((loss(fp.apply(params | {"0.weight": shrunk}, masks), *batch).item() - base) ** 2)
    gone = int(
        (~fp.Pruner(criterion, 1, structure=fp.Slices(0), where="0.weight")(params, masks)["0.weight"]).all(1).nonzero()
    )
    assert gone == min(range(5), key=slopes.__getitem__)
    norms = fp.Slices(0).pool(criterion(params, masks)["0.weight"], masks["0.weight"])
    sums = criterion.unit_scores(params, masks, fp.Slices(0), ["0.weight"])["0.weight"]
    assert not torch.allclose(norms / norms.sum(), sums / sums.sum())  # cancellation within a unit is what counts


def test_grasp_is_the_change_of_the_gradient_norm() -> None:
    model, params, batch = problem()
    loss = functools.partial(cross_entropy, model)
    masks = half(params)
    scores = fp.criteria.grasp(loss, *batch)(params, masks)

    def flow(point: dict[str, Tensor]) -> float:
        gradient = torch.func.grad(loss)(fp.apply(point, masks), *batch)
        return sum(leaf.square().sum().item() for leaf in fp.apply(gradient, masks).values())

    for name, index in entries(params):
        if masks[name] is not None and not masks[name].view(-1)[index]:
            continue
        slope = (flow(scaled(params, name, index, 1 + 1e-5)) - flow(scaled(params, name, index, 1 - 1e-5))) / 2e-5
        assert scores[name].view(-1)[index].item() == pytest.approx(slope / 2, rel=1e-5, abs=1e-9)


def test_grasp_keeps_its_sign_in_units() -> None:
    # A norm of signed scores would keep the unit that hurts the flow most.
    criterion = fp.criteria.grasp(lambda params: (params["w"] ** 3).sum() / 6, batches=[()])
    params = {"w": torch.tensor([[-3.0, -3.0], [1.0, 1.0]])}  # g = w^2 / 2, H = w, W (H g) = w^4 / 2: all positive
    negative = fp.criteria.grasp(lambda params: (params["w"].sin()).sum(), batches=[()])
    values = negative({"w": torch.tensor([[2.0, 2.0], [-0.1, -0.1]])})["w"]
    assert criterion(params)["w"].tolist() == [[40.5, 40.5], [0.5, 0.5]]
    assert (values[0] > values[1]).all() or (values[0] < values[1]).all()
    masks = fp.Pruner(negative, 1, structure=fp.Slices(0))({"w": torch.tensor([[2.0, 2.0], [-0.1, -0.1]])})
    assert masks["w"].any(1).tolist() == (values.sum(1) > values.sum(1).min()).tolist()


@pytest.mark.parametrize("chunk", [1, 5, 16])
def test_fisher_is_the_mean_of_squared_gradients_of_single_samples(chunk: int) -> None:
    model, params, (x, y) = problem()
    loss = functools.partial(cross_entropy, model)
    masks = half(params)
    singles = [torch.func.grad(loss)(fp.bake(params, masks), x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    expected = {n: sum(g[n] ** 2 for g in singles) / len(x) * params[n] ** 2 / 2 for n in params}
    torch.testing.assert_close(fp.criteria.fisher(loss, x, y, chunk=chunk)(params, masks), expected)
    batches = [(x[:7], y[:7]), (x[7:], y[7:])]
    torch.testing.assert_close(fp.criteria.fisher(loss, batches=batches, chunk=chunk)(params, masks), expected)


def test_fisher_is_the_leave_one_out_loss_of_a_quadratic() -> None:
    # For -log N(x | w, 1) at the mean of the samples with unit variance the Fisher information is the Hessian.
    x = torch.tensor([[-1.0, 1.0], [1.0, 3.0]], dtype=torch.float64)

    def loss(params: dict[str, Tensor], x: Tensor) -> Tensor:
        return ((x - params["w"]) ** 2).sum(1).mean() / 2

    params = {"w": torch.tensor([0.0, 2.0], dtype=torch.float64)}
    rises = [loss({"w": params["w"] * (torch.arange(2) != i)}, x).item() - loss(params, x).item() for i in range(2)]
    assert fp.criteria.fisher(loss, x)(params)["w"].tolist() == pytest.approx(rises)


def test_fisher_keeps_few_gradients_at_a_time() -> None:
    sizes = []

    def loss(params: dict[str, Tensor], x: Tensor) -> Tensor:
        sizes.append(x.shape)
        return (params["w"] * x).sum()

    fp.criteria.fisher(loss, torch.ones(10, 3), chunk=4)({"w": torch.ones(3)})
    assert sizes == [(1, 3)] * 3  # ceil(10 / 4) calls, each of which sees one sample
    with pytest.raises(ValueError, match="chunk=0"):
        fp.criteria.fisher(loss, torch.ones(1), chunk=0)
    with pytest.raises(ValueError, match="one common first size"):
        fp.criteria.fisher(lambda p, x, y: x.sum(), torch.ones(3), torch.ones(2))({"w": torch.ones(3)})


def test_movement_accumulates_over_steps_and_is_a_value() -> None:
    _, params, _ = problem()
    start = fp.criteria.movement(params)
    criterion, expected = start, {name: torch.zeros_like(leaf) for name, leaf in params.items()}
    for step in range(3):
        grads = {name: torch.full_like(leaf, step - 0.5) for name, leaf in params.items()}
        expected = {name: expected[name] - grads[name] * params[name] for name in params}
        criterion = criterion.update(params, grads)
    torch.testing.assert_close(criterion(params), expected)
    assert all((leaf == 0).all() for leaf in start(params).values())
    assert repr(criterion) == "movement(<3 steps>)"
    with pytest.raises(ValueError, match="grads must have the structure"):
        criterion.update(params, {"other": torch.ones(2)})


def test_lamp_scores_by_the_definition() -> None:
    torch.manual_seed(0)
    params = {"a": torch.randint(-4, 5, (5, 6)).float(), "b": torch.randn(7)}
    masks = fp.random_unstructured(0.3, seed=0, where="a")(params)
    scores = fp.criteria.lamp()(params, masks)
    for name, leaf in params.items():
        mask = fp.masks.full(params, masks)[name].flatten()
        squares = (leaf.double().flatten() ** 2).tolist()
        alive = [i for i in range(leaf.numel()) if mask[i]]
        order = sorted(alive, key=lambda i: (squares[i], i))
        for rank, i in enumerate(order):
            above = sum(squares[j] for j in order[rank:])
            expected = squares[i] / above if above else 0.0
            assert scores[name].flatten()[i].item() == pytest.approx(1.0 if rank == len(order) - 1 else expected)


def test_lamp_keeps_every_leaf_alive_to_the_last_entry() -> None:
    torch.manual_seed(0)
    params = {f"w{i}": torch.randn(30, 30) * 10.0 ** (-3 * i) for i in range(5)} | {"zero": torch.zeros(3, 3)}
    total = sum(leaf.numel() for leaf in params.values())
    masks = fp.Pruner(fp.criteria.lamp(), total - 6, scope="global")(params)
    assert [row.kept for row in fp.masks.counts(params, masks).values()] == [1] * 6
    plain = fp.l1_unstructured(total - 6, scope="global")(params)
    assert min(row.kept for row in fp.masks.counts(params, plain).values()) == 0
    assert all(leaf.max() == 1 for leaf in fp.criteria.lamp()(params).values())


def test_criteria_change_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4 * 4, 2))
    before = {name: leaf.clone() for name, leaf in model.state_dict().items()}
    params = dict(model.named_parameters())
    x, y = torch.randn(8, 1, 6, 6), torch.randint(2, (8,))
    buffers = dict(model.named_buffers())
    call = fp.functional(model)
    none = dict.fromkeys(params)
    state = torch.random.get_rng_state()

    def loss(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(call(params, none, x, buffers=buffers)[0], y)

    for criterion in (
        fp.criteria.saliency(loss, x, y),
        fp.criteria.grasp(loss, x, y),
        fp.criteria.taylor(loss, x, y),
        fp.criteria.synflow(model, (1, 6, 6)),
        fp.criteria.lamp(),
    ):
        masks = fp.Pruner(criterion, 0.5, scope="global")(params)
        assert fp.masks.sparsity(params, masks, where=fp.ndim(2)) == 62 / 123
    assert model.training
    assert all(leaf.grad is None and leaf.requires_grad for leaf in params.values())
    assert all(torch.equal(leaf, before[name]) for name, leaf in model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_integer_leaves_have_no_score_and_say_so() -> None:
    params = {"w": torch.ones(2, 2), "steps": torch.ones(2, 2, dtype=torch.int64)}
    criterion = fp.criteria.saliency(lambda params: params["w"].sum(), batches=[()])
    assert criterion(params)["steps"] is None
    assert fp.masks.sparsity(params, fp.Pruner(criterion, 1, where="w")(params)) == 1 / 8
    with pytest.raises(ValueError, match=r"no score at 'steps': exclude the leaf"):
        fp.Pruner(criterion, 1, where="steps")(params)


def test_data_that_cannot_be_is_refused() -> None:
    def loss(params: dict[str, Tensor], x: Tensor) -> Tensor:
        return params["w"].sum() * x.sum()

    with pytest.raises(ValueError, match="found neither of a batch"):
        fp.criteria.saliency(loss)
    with pytest.raises(ValueError, match="found both of a batch"):
        fp.criteria.saliency(loss, torch.ones(2), batches=[torch.ones(2)])
    with pytest.raises(TypeError, match="read only once"):
        fp.criteria.saliency(loss, batches=iter([torch.ones(2)]))
    with pytest.raises(TypeError, match="found Tensor, expected an iterable"):
        fp.criteria.saliency(loss, batches=torch.ones(2))
    with pytest.raises(TypeError, match="loss: found Tensor"):
        fp.criteria.saliency(torch.ones(2), torch.ones(2))
    with pytest.raises(ValueError, match="batches: found none"):
        fp.criteria.saliency(loss, batches=[])({"w": torch.ones(2)})


def test_pruned_infinities_do_not_poison_the_gradient() -> None:
    params = {"w": torch.tensor([[math.inf, 1.0], [2.0, 3.0]])}
    masks = {"w": torch.tensor([[False, True], [True, True]])}
    criterion = fp.criteria.saliency(lambda params, x: (params["w"] @ x).square().sum(), torch.ones(2))
    assert fp.Pruner(criterion, 1)(params, masks)["w"].tolist() == [[False, False], [True, True]]


def test_fisher_of_no_samples_is_refused() -> None:
    criterion = fp.criteria.fisher(lambda params, x: (params["w"] * x).sum(), batches=[torch.zeros(0, 2)])
    with pytest.raises(ValueError, match="no samples"):
        criterion({"w": torch.ones(2)})


@pytest.mark.parametrize("make", [fp.criteria.saliency, fp.criteria.taylor, fp.criteria.grasp])
def test_small_products_in_half_precision_do_not_vanish(make: Callable) -> None:
    params = {"w": torch.tensor([1e-5, 2e-5, 4e-5], dtype=torch.float16)}
    scores = make(lambda params, x: (params["w"] * x).sum() + params["w"].square().sum(), torch.tensor(1e-4))(params)
    assert scores["w"].dtype == torch.float32
    assert (scores["w"] > 0).all()
    assert (scores["w"].diff() > 0).all()
