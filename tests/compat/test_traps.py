"""Defects of torch.nn.utils.prune: each test shows one there, and that the drop-in has it not."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune
from torch.optim.swa_utils import AveragedModel

import funcprune as fp
from funcprune.compat import prune

from .helpers import Raising, bits, state_of


def linear(*rows, bias=False):
    weight = torch.tensor(rows)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias)
    layer.weight.data = weight
    return layer


def test_a1_a_pruned_module_deep_copies():
    # pytorch#37322: `weight` is no leaf, and copy.deepcopy refuses it; so does AveragedModel, which copies.
    theirs = torch_prune.l1_unstructured(nn.Linear(3, 2), "weight", 2)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(theirs)
    with pytest.raises(RuntimeError, match="deepcopy"):
        AveragedModel(theirs)

    ours, x = prune.l1_unstructured(nn.Linear(3, 2), "weight", 2), torch.randn(4, 3)
    before = copy.deepcopy(ours)
    ours(x).sum().backward()
    after = copy.deepcopy(nn.Sequential(ours))[0]
    averaged = AveragedModel(ours)
    averaged.update_parameters(ours)
    assert torch.equal(averaged(x), ours(x))
    for copied in (before, after, copy.deepcopy(after)):
        assert torch.equal(copied(x), ours(x))
        assert copied.weight_orig is not ours.weight_orig
        kept = state_of(ours)
        prune.l1_unstructured(copied, "weight", 2)
        copied(x).sum().backward()
        torch.optim.SGD(copied.parameters(), 0.1).step()
        assert int(copied.weight_mask.sum()) == 2
        fp.compat.bake(copied)
        assert [name for name, _ in copied.named_parameters()] == ["weight", "bias"]
        copy.deepcopy(copied)
        assert state_of(ours) == kept


def test_a2_pruning_again_ranks_the_values_of_now():
    def second_mask(module):
        layer = module.l1_unstructured(linear([1.0, 2.0, 3.0, 4.0]), "weight", 1)
        with torch.no_grad():
            layer.weight_orig.copy_(torch.tensor([[9.0, 40.0, 30.0, 20.0]]))  # what an optimizer step does
        return module.l1_unstructured(layer, "weight", 1).weight_mask.tolist()

    assert second_mask(torch_prune) == [[0, 0, 1, 1]]
    assert second_mask(prune) == [[0, 1, 1, 0]]


def test_a3_loading_refreshes_the_masked_tensor():
    def stale(module):
        layer = module.l1_unstructured(linear([1.0, 2.0]), "weight", 1)
        layer.load_state_dict({"weight_orig": torch.tensor([[5.0, 6.0]]), "weight_mask": torch.tensor([[1.0, 0.0]])})
        return not torch.equal(layer.weight, torch.tensor([[5.0, 0.0]]))

    assert stale(torch_prune)
    assert not stale(prune)


FAILURES = {
    "amount": lambda module, layer: module.l1_unstructured(layer, "weight", 99),
    "scores": lambda module, layer: module.l1_unstructured(layer, "weight", 1, importance_scores=torch.ones(7)),
    "method": lambda module, layer: type("Fails", (module.BasePruningMethod,), dict(vars(Raising))).apply(
        layer, "weight"
    ),
}


def test_a4_a_method_that_cannot_apply_its_mask_changes_nothing():
    class Fails(prune.Identity):
        def apply_mask(self, module):
            raise ArithmeticError

    layer = nn.Linear(2, 2)
    before = state_of(layer)
    with pytest.raises(ArithmeticError):
        Fails.apply(layer, "weight")
    assert state_of(layer) == before


@pytest.mark.parametrize("fails", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("history", [1, 2])
def test_a4_a_failed_call_changes_nothing(fails, history):
    def pruned(module):
        layer = nn.Linear(4, 3)
        for _ in range(history):
            module.l1_unstructured(layer, "weight", 1)
        return layer

    theirs = pruned(torch_prune)
    with pytest.raises(Exception) as incumbent:  # noqa: PT011 - the same as ours, below
        fails(torch_prune, theirs)
    assert not torch_prune.is_pruned(theirs)
    with pytest.raises(ValueError, match="has to be pruned"):
        torch_prune.remove(theirs, "weight")

    ours = pruned(prune)
    before = state_of(ours)
    with pytest.raises(incumbent.type):
        fails(prune, ours)
    assert state_of(ours) == before
    prune.remove(ours, "weight")


def test_a5_a_parameter_returns_to_its_position():
    def names(module, layer):
        module.remove(module.l1_unstructured(layer, "weight", 1), "weight")
        return [name for name, _ in layer.named_parameters()]

    assert names(torch_prune, nn.Linear(2, 2)) == ["bias", "weight"]
    layer = nn.Linear(2, 2)
    weight = layer.weight
    assert names(prune, layer) == ["weight", "bias"]
    assert layer.weight is weight


def test_a5_a_failed_first_call_keeps_the_order():
    def names(module):
        layer = nn.Linear(2, 2)
        with pytest.raises(ValueError, match="amount"):
            module.l1_unstructured(layer, "weight", 99)
        return [name for name, _ in layer.named_parameters()]

    assert names(torch_prune) == ["bias", "weight"]
    assert names(prune) == ["weight", "bias"]


def test_a5_saved_optimizer_state_loads_onto_its_own_tensors():
    # Adam's state is saved by position: after a removal that reorders, moments land on another tensor, silently.
    def moment_of_a(module):
        layer = nn.ParameterDict({"a": nn.Parameter(torch.ones(2)), "b": nn.Parameter(torch.ones(2))})
        adam = torch.optim.Adam(layer.parameters())
        (layer["a"].sum() * 3 + layer["b"].sum() * 7).backward()
        adam.step()
        module.remove(module.l1_unstructured(layer, "a", 1), "a")
        later = torch.optim.Adam(layer.parameters())
        later.load_state_dict(adam.state_dict())
        return later.state[layer["a"]]["exp_avg"] / 0.1

    assert torch.allclose(moment_of_a(torch_prune), torch.full((2,), 7.0))
    assert torch.allclose(moment_of_a(prune), torch.full((2,), 3.0))


@pytest.mark.parametrize("removed", [["a"], ["b"], ["c", "a"], ["a", "b", "c"], ["b", "c", "a"]])
def test_a5_order_survives_any_order_of_pruning_and_removing(removed):
    layer = nn.ParameterDict({name: nn.Parameter(torch.randn(3)) for name in "abc"})
    for name in ("c", "a", "b"):
        prune.l1_unstructured(layer, name, 1)
    for name in removed:
        prune.remove(layer, name)
    assert list(fp.compat.extract(layer)[0]) == ["a", "b", "c"]
    assert [name for name, _ in fp.compat.bake(layer).named_parameters()] == ["a", "b", "c"]


def test_a6_a_global_call_is_all_or_nothing():
    def first_changed(module):
        first, second = nn.Linear(2, 2), nn.Linear(2, 2)
        second.plain = torch.randn(3)  # no parameter: the second step fails
        before = state_of(first)
        with pytest.raises(TypeError):
            module.global_unstructured([(first, "weight"), (second, "plain")], module.L1Unstructured, amount=2)
        return state_of(first) != before

    assert first_changed(torch_prune)
    assert not first_changed(prune)


def test_a6_a_global_call_takes_a_generator():
    def run(module):
        layers = [nn.Linear(3, 2), nn.Linear(2, 2)]
        module.global_unstructured(((layer, "weight") for layer in layers), module.L1Unstructured, amount=4)
        return sum(int((layer.weight == 0).sum()) for layer in layers)

    with pytest.raises(ValueError, match="non-empty"):
        run(torch_prune)
    assert run(prune) == 4


def test_a6_a_global_call_checks_the_shape_of_scores():
    def run(module):
        layers = [nn.Linear(3, 2), nn.Linear(2, 3)]
        scores = {(layer, "weight"): torch.randn(layer.weight.numel()) for layer in layers}
        entries = [(layer, "weight") for layer in layers]
        module.global_unstructured(entries, module.L1Unstructured, scores, amount=4)

    run(torch_prune)
    with pytest.raises(AssertionError, match="importance_scores"):
        run(prune)


def test_a6_a_global_call_counts_every_parameter_once():
    def pruned(module, entries):
        first, second = linear([1.0, 2.0, 3.0, 4.0]), linear([5.0, 6.0, 7.0, 8.0])
        second_name = nn.Linear(4, 1, bias=False)
        second_name.weight = first.weight
        layers = {"first": first, "tied": second_name, "second": second}
        chosen = [(layers[name], "weight") for name in entries]
        module.global_unstructured(chosen, module.L1Unstructured, amount=4)
        return int((first.weight == 0).sum()), int((second_name.weight == 0).sum()), int((second.weight == 0).sum())

    assert pruned(torch_prune, ["first", "first", "second"]) == (2, 0, 0)
    assert pruned(prune, ["first", "first", "second"]) == (4, 0, 0)
    assert pruned(torch_prune, ["first", "tied", "second"]) == (2, 2, 0)
    assert pruned(prune, ["first", "tied", "second"]) == (4, 4, 0)


def test_a7_masks_made_here_are_kept_once():
    def growth(module):
        layer = nn.Linear(64, 64, bias=False)
        sizes = []
        for _ in range(4):
            module.global_unstructured([(layer, "weight")], module.L1Unstructured, amount=0.1)
            sizes.append(len(pickle.dumps(layer)))
        return sizes[-1] - sizes[0]

    mask = 64 * 64 * 4
    assert growth(torch_prune) > 3 * mask
    assert growth(prune) < mask / 10


def test_a7_the_history_reads_the_mask_from_the_module():
    layer = linear([1.0, 2.0, 3.0, 4.0])
    for amount in (1, 1):
        prune.global_unstructured([(layer, "weight")], prune.L1Unstructured, amount=amount)
    (container,) = layer._forward_pre_hooks.values()
    for step in container:
        assert isinstance(step, prune.CustomFromMask)
        assert step.mask is layer.weight_mask
    copied = copy.deepcopy(layer)
    assert next(iter(copied._forward_pre_hooks.values()))[0].mask is copied.weight_mask
    layer.double()
    assert container[0].mask is layer.weight_mask
    given = torch.ones(1, 4)
    prune.custom_from_mask(layer, "weight", given)
    assert container[2].mask is given


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a8_masks_have_the_dtype_of_their_parameter(dtype):
    def dtypes(module):
        found = set()
        scores = torch.randn(4, 4, dtype=torch.float64 if dtype != torch.float64 else torch.float32)
        for call in (
            lambda layer: module.ln_structured(layer, "weight", 1, 2, 0, importance_scores=scores),
            lambda layer: module.l1_unstructured(layer, "weight", 1, importance_scores=scores),
            lambda layer: module.custom_from_mask(layer, "weight", torch.eye(4, dtype=torch.bool)),
            lambda layer: module.identity(layer, "weight"),
        ):
            found.add(call(nn.Linear(4, 4).to(dtype)).weight_mask.dtype)
        return found

    assert len(dtypes(torch_prune)) > 1
    assert dtypes(prune) == {dtype}


def test_a9_an_empty_container_takes_its_first_method():
    def filled(module):
        container, method = module.PruningContainer(), module.L1Unstructured(1)
        method._tensor_name = "weight"
        container.add_pruning_method(method)
        return container

    with pytest.raises(AttributeError):
        filled(torch_prune)
    assert len(filled(prune)) == 1
    assert filled(prune)._tensor_name == "weight"


@pytest.mark.parametrize("kind", ["unstructured", "structured", "global"])
def test_a9_a_container_leaves_its_arguments_alone(kind):
    def changed(module):
        class Zeros(module.BasePruningMethod):
            PRUNING_TYPE, dim = kind, 0

            def compute_mask(self, t, default_mask):
                return default_mask.zero_()  # even a method that writes into what it is shown

        method = Zeros()
        method._tensor_name = "weight"
        mask = torch.ones(2, 3)
        module.PruningContainer(method).compute_mask(torch.randn(2, 3), default_mask=mask)
        return not torch.equal(mask, torch.ones(2, 3))

    assert changed(torch_prune)
    assert not changed(prune)


CALLS = {
    "random_unstructured": lambda module, layer: module.random_unstructured(layer, "weight", 0.4),
    "l1_unstructured": lambda module, layer: module.l1_unstructured(layer, "weight", 0.4),
    "global": lambda module, layer: module.global_unstructured([(layer, "weight")], module.L1Unstructured, amount=0.4),
    "ln_structured": lambda module, layer: module.ln_structured(layer, "weight", 0.5, 2, 0),
    "random_structured": lambda module, layer: module.random_structured(layer, "weight", 0.5, 1),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("layout", ["channels_last", "transposed"])
def test_a10_any_memory_layout_is_pruned(call, layout):
    def pruned(module):
        layer = nn.Conv2d(4, 4, 3)
        if layout == "channels_last":
            layer.to(memory_format=torch.channels_last)
        else:
            layer.weight.data = layer.weight.data.transpose(0, 1)
        before = layer.weight.detach().clone()
        for _ in range(2):
            call(module, layer)
        assert torch.equal(layer.weight, before * layer.weight_mask)
        assert 0 < int(layer.weight_mask.sum()) < layer.weight.numel()

    if call not in (CALLS["ln_structured"], CALLS["random_structured"]):
        with pytest.raises(RuntimeError, match="view"):
            pruned(torch_prune)
    pruned(prune)


def tied():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    return model


def test_a11_installed_masks_reach_every_name_of_a_tied_parameter():
    # The functions see one module, here as there: the other name stays dense until removal zeroes both.
    for module in (torch_prune, prune):
        model = tied()
        module.custom_from_mask(model[0], "weight", torch.tensor([[1, 0], [0, 1]]))
        assert int((model[0].weight == 0).sum()) == 2
        assert int((model[1].weight == 0).sum()) == 0
        module.remove(model[0], "weight")
        assert int((model[1].weight == 0).sum()) == 2

    model = tied()
    fp.compat.install(model, {"0.weight": torch.eye(2, dtype=torch.bool)})
    assert int((model[0].weight == 0).sum()) == int((model[1].weight == 0).sum()) == 2
    params, masks = fp.compat.extract(model)
    x = torch.randn(3, 2)
    clean = fp.compat.clean(model)
    assert torch.equal(model(x), fp.masked_call(clean, params, masks, x))
    assert clean[0].weight is clean[1].weight
    fp.compat.bake(model)
    assert model[0].weight is model[1].weight
    assert int((model[0].weight == 0).sum()) == 2


@pytest.mark.parametrize(
    ("make", "name", "error"),
    [(lambda: nn.Linear(2, 2, bias=False), "bias", TypeError), (lambda: nn.LazyLinear(2), "weight", ValueError)],
    ids=["bias=None", "lazy"],
)
def test_a12_what_cannot_be_pruned_is_refused_and_left_alone(make, name, error):
    theirs = make()
    with pytest.raises(error):
        torch_prune.l1_unstructured(theirs, name, 1)
    assert list(theirs._parameters) != list(make()._parameters)

    ours = make()
    before = state_of(ours)
    with pytest.raises(error, match=f"'{name}' of"):
        prune.l1_unstructured(ours, name, 1)
    assert state_of(ours) == before
    ours(torch.randn(1, 2))


def test_a13_nan_scores_are_an_error():
    def pruned(module):
        return module.l1_unstructured(linear([float("nan"), 1.0, 2.0]), "weight", 1).weight

    assert pruned(torch_prune).isnan().any()
    with pytest.raises(ValueError, match="'weight': found NaN"):
        pruned(prune)
    with pytest.raises(ValueError, match="'weight': found NaN"):
        prune.ln_structured(linear([float("nan"), 1.0], [2.0, 3.0]), "weight", 1, 2, 0)
    dead = prune.custom_from_mask(linear([float("nan"), 1.0], [2.0, 3.0]), "weight", torch.tensor([[0, 1], [1, 1]]))
    assert prune.ln_structured(dead, "weight", 1, 2, 0).weight_mask.tolist() == [[0, 0], [1, 1]]  # its NaN is pruned


def test_a13_masks_are_zeros_and_ones():
    layer = torch_prune.custom_from_mask(linear([1.0, 1.0]), "weight", torch.tensor([[0.5, 2.0]]))
    assert layer.weight.tolist() == [[0.5, 2.0]]
    with pytest.raises(ValueError, match="other than 0 and 1"):
        prune.custom_from_mask(linear([1.0, 1.0]), "weight", torch.tensor([[0.5, 2.0]]))
    with pytest.raises(ValueError, match="other than 0 and 1"):
        fp.compat.extract(layer)


def test_a14_momentum_revives_what_was_removed_here_as_there():
    # Kept as it is: after `remove` nothing masks the weight any more. `fp.project_` after each step does.
    def revived(module, project):
        layer = linear([1.0, 2.0])
        optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
        layer(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        masks = {"weight": torch.tensor([[False, True]])}
        module.remove(module.custom_from_mask(layer, "weight", masks["weight"]), "weight")
        optimizer.step()
        if project:
            fp.project_(dict(layer.named_parameters()), masks)
        return bool(layer.weight[0, 0] != 0)

    assert revived(torch_prune, False)
    assert revived(prune, False)
    assert not revived(prune, True)


def test_a15_ties_never_prune_more_than_asked(monkeypatch):
    def slices(module):
        monkeypatch.setattr(torch, "rand", lambda size: torch.full((size,), 0.5))
        layer = module.random_structured(nn.Linear(3, 6), "weight", 2, 0)
        return int((layer.weight_mask.sum(1) == 0).sum())

    assert slices(torch_prune) == 6
    assert slices(prune) == 2


def attention():
    torch.manual_seed(0)
    return nn.MultiheadAttention(4, 2, batch_first=True), torch.randn(2, 3, 4)


def test_a16_an_attention_output_projection_is_refreshed():
    # The attention reads out_proj.weight without calling out_proj, so a hook there never runs.
    theirs, x = attention()
    torch_prune.l1_unstructured(theirs.out_proj, "weight", 4)
    theirs(x, x, x)[0].sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        theirs(x, x, x)[0].sum().backward()

    ours, x = attention()
    masks = fp.l1_unstructured(4, where="out_proj.weight")(dict(ours.named_parameters()))
    fp.compat.install(ours, masks)
    for _ in range(2):
        ours(x, x, x)[0].sum().backward()
        torch.optim.SGD(ours.parameters(), 0.1).step()
    ours.eval()
    with torch.no_grad():
        out = ours(x, x, x)[0]
        expected = fp.masked_call(fp.compat.clean(ours), *fp.compat.extract(ours), (x, x, x))[0]
    assert torch.allclose(out, expected, atol=1e-6)
    assert len(fp.compat.bake(ours)._forward_pre_hooks) == 0


def test_a16_the_drop_in_warns_where_hooks_do_not_run():
    ours, x = attention()
    with pytest.warns(UserWarning, match="install"):
        prune.l1_unstructured(ours.out_proj, "weight", 4)
    fp.compat.install(ours, dict.fromkeys(fp.compat.extract(ours)[0]))  # what the warning asks for
    for _ in range(2):
        ours(x, x, x)[0].sum().backward()
    fp.compat.bake(ours)
    with pytest.warns(UserWarning, match="install"):
        prune.global_unstructured([(ours.out_proj, "bias")], prune.L1Unstructured, amount=1)
    with pytest.warns(UserWarning, match="install"):
        fp.compat.install(attention()[0].out_proj, {"weight": torch.ones(4, 4, dtype=torch.bool), "bias": None})


def test_a17_a_pruned_checkpoint_becomes_a_dense_one():
    pruned = prune.l1_unstructured(linear([1.0, 2.0]), "weight", 1)
    dense = linear([7.0, 8.0])
    dense.load_state_dict(pruned.state_dict(), strict=False)
    assert dense.weight.tolist() == [[7.0, 8.0]]  # nothing was loaded, and nothing was said
    state, masks = fp.compat.split_state_dict(pruned.state_dict())
    dense.load_state_dict(state)
    assert dense.weight.tolist() == [[1.0, 2.0]]
    dense.load_state_dict(fp.bake(state, masks))
    assert dense.weight.tolist() == [[0.0, 2.0]]


def test_a18_baking_is_recursive_and_may_have_nothing_to_do():
    for module in (torch_prune, prune):  # `remove` keeps its contract
        model = nn.Sequential(module.l1_unstructured(nn.Linear(2, 2), "weight", 1))
        with pytest.raises(ValueError, match="has to be pruned"):
            module.remove(model, "weight")
        assert not prune.is_pruned(fp.compat.bake(model))
        before = state_of(model)
        assert state_of(fp.compat.bake(model)) == before


def test_a19_nan_amounts_are_refused_at_once():
    torch_prune.L1Unstructured(float("nan"))
    with pytest.raises(ValueError, match="amount=nan"):
        prune.L1Unstructured(float("nan"))
    for module in (torch_prune, prune):  # True is one unit, here as there; the pure API refuses it
        assert int(module.ln_structured(linear([1.0], [2.0]), "weight", True, 2, 0).weight_mask.sum()) == 1


def test_bake_writes_positive_zeros_and_erases_what_is_not_finite():
    def baked(module):
        layer = linear([-1.0, float("inf"), 2.0])
        module.custom_from_mask(layer, "weight", torch.tensor([[0, 0, 1]]))
        return module.remove(layer, "weight").weight

    assert baked(torch_prune).isnan().any()
    assert torch.equal(bits(baked(prune)), bits(torch.tensor([[0.0, 0.0, 2.0]])))
