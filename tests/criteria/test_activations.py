"""Wanda, layer after layer, SparseGPT: against loops, closed forms and each other."""

import copy

import pytest
import torch
from torch import Tensor, nn

import funcprune as fp
from funcprune.calibration.layerwise import execution_order
from funcprune.criteria import activations

LAYERS = [
    (lambda: nn.Linear(6, 4), (5, 3, 6)),
    (lambda: nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0)), (3, 4, 7, 6)),
    (lambda: nn.Conv2d(4, 6, 3, padding="same", dilation=2, groups=2), (2, 4, 8, 6)),
    (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="reflect"), (2, 4, 5, 5)),
    (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (3, 4, 9)),
    (lambda: nn.Conv1d(2, 6, 3, padding=1, padding_mode="circular"), (2, 9)),
]


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_a_layer_is_the_product_of_its_matrix_and_its_columns(make: object, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer, x = make().double(), torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        layer.bias.zero_()
        found = activations.columns(layer, x) @ activations.matrix(layer, layer.weight).transpose(1, 2)
        out = layer(x)
        out = (
            out
            if isinstance(layer, nn.Linear)
            else (out if out.ndim == layer.weight.ndim else out[None]).movedim(1, -1)
        )
        torch.testing.assert_close(found.transpose(0, 1).flatten(1), out.reshape(-1, out.shape[-1]))
        back = activations.weight_of(activations.matrix(layer, layer.weight), layer.weight.shape)
    assert torch.equal(back, layer.weight)


@pytest.mark.parametrize(("make", "shape"), LAYERS[:-1])
def test_wanda_is_the_norm_of_what_each_entry_adds_to_the_output(make: object, shape: tuple[int, ...]) -> None:
    # Leave one out: without entry (i, j) the output of the layer moves by exactly |W_ij| * |X_j|.
    torch.manual_seed(0)
    layer, x = make().double(), torch.randn(shape, dtype=torch.float64)
    params = {name: leaf.detach() for name, leaf in layer.named_parameters()}
    scores = fp.criteria.wanda(layer, [x[:1], x[1:]])(params)
    assert scores["bias"] is None
    call = fp.functional(layer)
    none = dict.fromkeys(params)
    for index in range(0, params["weight"].numel(), 5):
        without = params["weight"].clone()
        without.view(-1)[index] = 0
        moved = (call(params, none, x) - call(params | {"weight": without}, none, x)).norm().item()
        assert scores["weight"].view(-1)[index].item() == pytest.approx(moved)


def network() -> tuple[nn.Module, dict[str, Tensor], list[Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4)
    )
    mixing = torch.randn(36, 36) / 3  # correlated inputs: what an entry loses another can make up for
    batches = [(torch.randn(24, 36) @ mixing).reshape(24, 1, 6, 6) for _ in range(4)]
    model(torch.cat(batches))
    return model, {name: leaf.detach() for name, leaf in model.named_parameters()}, batches


def test_wanda_within_rows_and_runs() -> None:
    model, params, batches = network()
    criterion = fp.criteria.wanda(model, batches)
    masks = fp.Pruner(criterion, 0.5, scope=fp.within(0), where=["4.weight", "0.weight"])(params)
    assert (masks["4.weight"].sum(1) == 32).all()
    assert (masks["0.weight"].flatten(1).sum(1) == 5).all()
    assert masks["6.weight"] is None
    runs = fp.Pruner(criterion, structure=fp.NM(2, 4), where="4.weight")(params)["4.weight"]
    assert (runs.view(16, 16, 4).sum(2) == 2).all()
    rows = fp.Pruner(criterion, 4, structure=fp.Slices(0), where="4.weight")(params)["4.weight"]
    assert rows.any(1).sum() == 12


def test_wanda_and_sparsegpt_leave_the_model_alone() -> None:
    model, params, batches = network()
    model.train()
    before, twin = copy.deepcopy(model.state_dict()), dict(params)
    fp.Pruner(fp.criteria.wanda(model, batches), 0.5, where="4.weight")(params)
    fp.sparsegpt(model, params, batches, 0.5)
    assert model.training
    assert all(not module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(leaf, before[name]) for name, leaf in model.state_dict().items())
    assert all(params[name] is twin[name] for name in params)


def test_wanda_says_what_it_cannot_score() -> None:
    model, params, batches = network()
    criterion = fp.criteria.wanda(model, batches)
    with pytest.raises(ValueError, match=r"params at '1.weight': found no inputs"):
        fp.Pruner(criterion, 0.5, where="*.weight")(params)
    with pytest.raises(TypeError, match="read only once"):
        fp.criteria.wanda(model, iter(batches))
    idle = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    idle.forward = lambda x: idle["a"](x)
    with pytest.raises(ValueError, match=r"params at 'b.weight': the batches never reach"):
        fp.Pruner(fp.criteria.wanda(idle, [torch.ones(1, 2)]), 0.5, where="b.weight")(dict(idle.named_parameters()))


def test_tied_layers_add_their_inputs_up() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    params = {"0.weight": torch.tensor([[1.0, 0.0], [0.0, 2.0]])}
    scores = fp.criteria.wanda(model, [(torch.tensor([[3.0, 1.0]]),)])(params)
    torch.testing.assert_close(scores["0.weight"], torch.tensor([[18**0.5, 0.0], [0.0, 2 * 5**0.5]]))


class Backwards(nn.Module):
    """Uses its layers against the order of their names."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.unused = nn.Linear(8, 3), nn.Linear(8, 8), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(torch.relu(self.b(x)))


def test_layers_go_in_the_order_of_execution_with_pruned_activations() -> None:
    torch.manual_seed(0)
    model, x = Backwards(), torch.randn(32, 8)
    params = {name: leaf.detach() for name, leaf in model.named_parameters()}
    assert execution_order(model, x) == (
        "unused.weight",  # goes with the whole
        "unused.bias",
        "b.weight",
        "b.bias",
        "a.weight",
        "a.bias",
    )
    pruner = fp.Pruner(fp.criteria.wanda(model, [x]), 0.75, scope=fp.within(0), where=["a.weight", "b.weight"])
    masks = fp.layerwise(pruner, model, x)(params)
    first = fp.Pruner(pruner.criterion, 0.75, scope=fp.within(0), where="b.weight")(params)
    second = fp.Pruner(pruner.criterion, 0.75, scope=fp.within(0), where="a.weight")(params, first)
    assert fp.masks.equal(masks, second)
    assert not fp.masks.equal(masks, pruner(params))  # one shot, the last layer saw dense activations
    with pytest.raises(ValueError, match=r"params at 'unused.weight': the batches never reach this layer"):
        fp.layerwise(fp.Pruner(pruner.criterion, 0.5), model, x)(params)


@pytest.mark.parametrize(
    "scope", ["leaf", fp.within(0), fp.erk(), fp.uniform(), {"a.weight": 5, "b.weight": 0.5}], ids=repr
)
def test_layerwise_keeps_the_counts_of_its_pruner(scope: fp.allocation.Scope) -> None:
    torch.manual_seed(0)
    model, x = Backwards(), torch.randn(32, 8)
    params = {name: leaf.detach() for name, leaf in model.named_parameters()}
    budget = {} if isinstance(scope, dict) else {"amount": 0.63}
    pruner = fp.Pruner(fp.criteria.magnitude(), scope=scope, where=["a.weight", "b.weight"], **budget)
    before = fp.random_unstructured(0.2, seed=0)(params)
    assert fp.masks.equal(fp.layerwise(pruner, model, x)(params, before), pruner(params, before))


def test_layerwise_refuses_what_ranks_leaves_together() -> None:
    model, x = Backwards(), torch.randn(2, 8)
    with pytest.raises(ValueError, match="leaf by leaf"):
        fp.layerwise(fp.l1_unstructured(0.5, scope="global"), model, x)
    with pytest.raises(TypeError, match="expected a Pruner"):
        fp.layerwise(fp.chain(), model, x)


def test_one_entry_gone_is_made_up_for_exactly() -> None:
    # With only the first column to prune, the update is the least-squares solution without that input.
    torch.manual_seed(0)
    x, layer = (
        torch.randn(50, 4, dtype=torch.float64) @ torch.randn(4, 4, dtype=torch.float64),
        nn.Linear(4, 3).double(),
    )
    params = {name: leaf.detach() for name, leaf in layer.named_parameters()}
    masks = {"weight": torch.tensor([[False, True, True, True]]).repeat(3, 1), "bias": None}
    found, after = fp.sparsegpt(layer, params, [x], 0, masks=masks, damp=0.0)
    best = torch.linalg.lstsq(x[:, 1:], x @ params["weight"].T).solution.T
    torch.testing.assert_close(found["weight"][:, 1:], best)
    assert (found["weight"][:, 0] == 0).all()
    assert found["bias"] is params["bias"]
    assert fp.masks.equal(after, masks)


def test_sparsegpt_follows_the_paper_column_by_column() -> None:
    # Written out without blocks: prune within each row by w^2 / [U_jj]^2, spread the error over what comes later.
    torch.manual_seed(0)
    x = torch.randn(60, 8, dtype=torch.float64) @ torch.randn(8, 8, dtype=torch.float64)
    layer = nn.Linear(8, 5).double()
    params = {name: leaf.detach() for name, leaf in layer.named_parameters()}
    hessian = x.T @ x
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(8)
    weight = params["weight"].clone()
    for start in range(0, 8, 4):
        remaining = hessian[start:, start:].inverse()
        variances = [hessian[j:, j:].inverse()[0, 0] for j in range(start, start + 4)]  # [H^-1]_jj of what is left
        scores = torch.stack([weight[:, start + k] ** 2 / variances[k] for k in range(4)], 1)
        gone = torch.zeros(5, 4, dtype=torch.bool).scatter_(1, scores.argsort(1)[:, :2], True)
        for j in range(start, start + 4):
            remaining = hessian[j:, j:].inverse()
            error = torch.where(gone[:, j - start], weight[:, j], 0.0) / remaining[0, 0]
            weight[:, j:] -= error[:, None] * remaining[0]
    found, masks = fp.sparsegpt(layer, params, [x], 0.5, scope=fp.within(0), block=4)
    torch.testing.assert_close(found["weight"], weight)
    assert torch.equal(masks["weight"], found["weight"] != 0)


@pytest.mark.parametrize("where", ["4.weight", "0.weight", fp.selectors.default], ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        {"amount": 0.57},
        {"amount": 7},
        {"sparsity": 0.7},
        {"amount": 0.5, "scope": fp.within(0)},
        {"amount": 0.6, "scope": fp.erk()},
    ],
    ids=repr,
)
def test_sparsegpt_counts_are_those_of_a_pruner(where: fp.selectors.Where, settings: dict[str, object]) -> None:
    model, params, batches = network()
    before = fp.random_unstructured(0.3, seed=0)(params)
    found, masks = fp.sparsegpt(model, params, batches, where=where, masks=before, block=8, **settings)
    pruner = fp.Pruner(fp.criteria.magnitude(), where=where, **settings)
    assert fp.masks.counts(params, masks) == fp.masks.counts(params, pruner(params, before))
    assert fp.masks.is_subset(masks, before)
    for name in fp.selectors.resolve(where, params):
        assert (found[name][~masks[name]] == 0).all()


def test_sparsegpt_of_grouped_convolutions_solves_each_group() -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(4, 6, 3, groups=2), torch.randn(8, 4, 6, 6)
    params = {name: leaf.detach() for name, leaf in layer.named_parameters()}
    found, masks = fp.sparsegpt(layer, params, [x], 0.5, scope=fp.within(0))
    for group in range(2):
        part = nn.Conv2d(2, 3, 3)
        own = {"weight": params["weight"][3 * group : 3 * group + 3], "bias": params["bias"][3 * group : 3 * group + 3]}
        alone, kept = fp.sparsegpt(part, own, [x[:, 2 * group : 2 * group + 2]], 0.5, scope=fp.within(0))
        torch.testing.assert_close(found["weight"][3 * group : 3 * group + 3], alone["weight"])
        assert torch.equal(masks["weight"][3 * group : 3 * group + 3], kept["weight"])


def test_sparsegpt_runs_of_a_convolution_go_along_input_channels() -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(8, 5, 3), torch.randn(4, 8, 6, 6)
    found, masks = fp.sparsegpt(layer, dict(layer.named_parameters()), [x], structure=fp.NM(2, 4))
    assert (masks["weight"].view(5, 2, 4, 3, 3).sum(2) == 2).all()
    assert torch.equal(masks["weight"], found["weight"] != 0)


def test_dead_inputs_go_first() -> None:
    torch.manual_seed(0)
    x, layer = torch.randn(30, 6), nn.Linear(6, 3)
    x[:, [1, 4]] = 0
    _, masks = fp.sparsegpt(layer, dict(layer.named_parameters()), [x], 6)
    assert masks["weight"].all(0).tolist() == [True, False, True, True, False, True]


@pytest.mark.parametrize("settings", [{"amount": 0.6, "scope": fp.within(0)}, {"structure": fp.NM(2, 4)}], ids=repr)
def test_what_sees_more_loses_less(settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 48)
    x = torch.randn(400, 64) @ torch.randn(64, 64) * torch.logspace(-1, 1, 64)  # correlated, of unequal scale
    params = {name: leaf.detach() for name, leaf in layer.named_parameters()}
    found = {"sparsegpt": fp.sparsegpt(layer, params, [x], **settings)[0]}
    for name, criterion in [
        ("wanda", fp.criteria.wanda(layer, [x])),
        ("magnitude", fp.criteria.magnitude()),
        ("random", fp.criteria.random(0)),
    ]:
        found[name] = fp.bake(params, fp.Pruner(criterion, **settings)(params))
    error = {
        name: ((params["weight"] - pruned["weight"]) @ x.T).square().sum().item() for name, pruned in found.items()
    }
    assert error["sparsegpt"] < error["wanda"] < error["magnitude"] < error["random"]


def test_sparsegpt_refuses_what_it_cannot_do() -> None:
    model, params, batches = network()
    with pytest.raises(ValueError, match="found structure=Slices"):
        fp.sparsegpt(model, params, batches, 0.5, structure=fp.Slices(0))
    with pytest.raises(ValueError, match=r"found structure=NM\(keep=2, of=4, dim=0\)"):
        fp.sparsegpt(model, params, batches, structure=fp.NM(2, 4, dim=0))
    with pytest.raises(ValueError, match=r"expected within\(0\)"):
        fp.sparsegpt(model, params, batches, 0.5, scope=fp.within(1))
    with pytest.raises(ValueError, match="found block=0"):
        fp.sparsegpt(model, params, batches, 0.5, block=0)
    with pytest.raises(ValueError, match="batches: found none"):
        fp.sparsegpt(model, params, [], 0.5, where="4.weight")
    with pytest.raises(ValueError, match="found no counts"):
        fp.sparsegpt(model, params, batches, 0.5, scope="global")
    with pytest.raises(ValueError, match=r"params at '1.weight': found no inputs"):
        fp.sparsegpt(model, params, batches, 0.5, where="1.weight")


def test_wanda_in_half_precision_keeps_large_activations_finite() -> None:
    layer, x = nn.Linear(3, 2).half(), torch.tensor([[3000.0, 1.0, 1.0]]).half()
    scores = fp.criteria.wanda(layer, [x])(dict(layer.named_parameters()))["weight"]
    torch.testing.assert_close(scores, layer.weight.detach().float().abs() * x.float())


def test_sparsegpt_refuses_infinities_under_a_mask_which_it_would_make_up_for() -> None:
    torch.manual_seed(0)
    x, layer = torch.randn(32, 8), nn.Linear(8, 4)
    params = {name: leaf.detach().clone() for name, leaf in layer.named_parameters()}
    masks = fp.l1_unstructured(0.25, where="weight")(params)
    params["weight"][~masks["weight"]] = torch.inf
    with pytest.raises(ValueError, match="NaN or inf"):
        fp.sparsegpt(layer, params, [x], 0.25, where="weight", masks=masks)
    baked, _ = fp.sparsegpt(layer, fp.bake(params, masks), [x], 0.25, where="weight", masks=masks)
    assert baked["weight"].isfinite().all()


@pytest.mark.parametrize("settings", [{"amount": 0.5}, {"structure": fp.NM(2, 4)}], ids=repr)
def test_sparsegpt_damps_by_the_mean_over_samples_with_dead_inputs_at_one(settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    x, layer = torch.randn(200, 16, dtype=torch.float64) * 0.01, nn.Linear(16, 5, bias=False).double()
    x[:, :3] = 0
    params = dict(layer.named_parameters())
    found, masks = fp.sparsegpt(layer, params, [x[:150], x[150:]], **settings)
    hessian = 2 / 200 * x.T @ x
    hessian[range(3), range(3)] = 1
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(16)
    weight = layer.weight.detach().clone()
    weight[:, :3] = 0
    for row, kept in zip(weight, masks["weight"], strict=True):
        for j in range(16):
            if not kept[j]:
                remaining = hessian[j:, j:].inverse()
                row[j:] -= row[j] / remaining[0, 0] * remaining[0]
    torch.testing.assert_close(found["weight"], torch.where(masks["weight"], weight, 0.0))


def test_calibration_without_batches_or_with_nan_says_so() -> None:
    layer, x = nn.Linear(8, 4), torch.full((2, 8), torch.nan)
    params = dict(layer.named_parameters())
    with pytest.raises(ValueError, match="batches: found none"):
        fp.criteria.wanda(layer, [])(params)
    with pytest.raises(ValueError, match="'weight': found NaN"):
        fp.sparsegpt(layer, params, [x], 0.5)
