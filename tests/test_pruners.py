"""Pruners: tables of known values, agreement with torch.nn.utils.prune, and refusals."""

import pickle
from collections import OrderedDict
from fractions import Fraction
from typing import Any, NamedTuple

import numpy
import pytest
import torch
from torch import nn
from torch.nn.utils import prune as incumbent

import funcprune as fp
from funcprune.criteria import magnitude, random

W = torch.tensor([[1.0, -4.0, 3.0], [-2.0, 6.0, 5.0]])


def kept(pruner: Any, params: Any, masks: Any = None, **kwargs: Any) -> dict[str, list[Any]]:
    return {path: mask.tolist() for path, mask in pruner(params, masks, **kwargs).items() if mask is not None}


# ---------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("amount", "left"),
    [(0.0, 10), (0.5, 5), (0.25, 8), (0.35, 6), (0.45, 6), (1.0, 0), (0, 10), (1, 9), (10, 0)],
    ids=str,
)
def test_amount_is_a_rounded_fraction_or_a_count(amount: float, left: int) -> None:
    """Half to even, as torch.nn.utils.prune: 0.25 of 10 is 2, 0.35 of 10 is 4 (3.5), 0.45 is 4."""
    masks = fp.l1_unstructured(amount)({"w": torch.arange(10.0).view(2, 5)})
    assert fp.masks.counts({"w": torch.zeros(2, 5)}, masks)["w"].kept == left


def test_amount_counts_against_what_is_left_and_sparsity_against_all() -> None:
    params = {"w": torch.arange(10.0).view(2, 5)}
    twice = fp.chain(fp.l1_unstructured(0.5), fp.l1_unstructured(0.5))
    assert fp.masks.counts(params, twice(params))["w"].kept == 3  # 10 -> 5 -> 5 - round(2.5)
    target = fp.chain(fp.l1_unstructured(sparsity=0.5), fp.l1_unstructured(sparsity=0.7))
    assert fp.masks.equal(target(params), fp.l1_unstructured(sparsity=0.7)(params))
    lower = fp.chain(fp.l1_unstructured(sparsity=0.7), fp.l1_unstructured(sparsity=0.5))
    assert fp.masks.equal(lower(params), fp.l1_unstructured(sparsity=0.7)(params))


def test_counts_past_the_integers_of_float32() -> None:
    """C4: float32 cannot count past 2**24; a mean or sum of a float mask would be off by one here."""
    size = 2**24 + 3
    masks = fp.l1_unstructured(size - 1)({"w": torch.ones(1, size)})
    assert torch.count_nonzero(masks["w"]) == 1
    assert masks["w"][0, -1]


# ---------------------------------------------------------------- order and scopes


def test_ties_go_by_path_in_natural_order_then_by_flat_index() -> None:
    """C2: dicts flatten sorted, layers.10 before layers.2; the order of pruning must not follow that."""
    ones = {f"layers.{index}": torch.ones(1, 2) for index in (10, 2, 1)}
    pruner = fp.l1_unstructured(3, scope="global")
    expected = {"layers.1": [[False, False]], "layers.2": [[False, True]], "layers.10": [[True, True]]}
    assert kept(pruner, ones) == expected
    assert kept(pruner, OrderedDict(reversed(ones.items()))) == expected


def test_global_scope_ranks_all_leaves_together() -> None:
    params = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([[3.0, 4.0]]), "bias": torch.zeros(5)}
    assert kept(fp.l1_unstructured(0.5, scope="global"), params) == {"a": [[False, False]], "b": [[True, True]]}


def test_within_ranks_each_slice_for_itself() -> None:
    pruner = fp.Pruner(magnitude(), 1, scope=fp.within(0))
    assert kept(pruner, {"w": W}) == {"w": [[False, True, True], [False, True, True]]}
    columns = fp.Pruner(magnitude(), 0.25, scope=fp.within(-1))
    assert kept(columns, {"w": W}) == {}  # round(0.25 * 2) is 0 in each
    assert kept(fp.Pruner(magnitude(), 1, scope=fp.within(1)), {"w": W}) == {
        "w": [[False, False, False], [True, True, True]]
    }


def test_structured_units_compete_by_power_mean_across_leaves() -> None:
    """The norm of a wide slice is larger than that of a narrow one with the same entries; the mean is not."""
    params = {"wide": torch.full((2, 100), 1.0), "narrow": torch.full((2, 4), 2.0)}
    masks = fp.ln_structured(2, n=2, dim=0, scope="global")(params)
    assert [masks["wide"].any().item(), masks["narrow"].all().item()] == [False, True]


def test_a_unit_is_ranked_by_its_kept_entries_while_it_has_one() -> None:
    masks = {"w": torch.tensor([[True, False, False], [False, False, False], [True, True, True]])}
    params = {"w": torch.tensor([[1.0, 9.0, 9.0], [0.0, 0.0, 0.0], [2.0, 2.0, 2.0]])}
    pruner = fp.ln_structured(1, n=1, dim=0)
    assert kept(pruner, params, masks) == {"w": [[False] * 3, [False] * 3, [True] * 3]}


@pytest.mark.parametrize("n", [1, 2, 3.5, float("inf"), -float("inf"), -1, 0])
def test_norms_of_every_order(n: float) -> None:
    found = fp.Slices(0, n).pool(W, None)
    size = 1 if n in (float("inf"), -float("inf")) else 3 if n == 0 else 3 ** (1 / n)
    torch.testing.assert_close(found, torch.linalg.vector_norm(W, n, 1) / size)


def test_scores_replace_the_criterion() -> None:
    scores = {"w": -W.abs()}
    assert kept(fp.l1_unstructured(2), {"w": W}, scores=scores) == {"w": [[True, True, True], [True, False, False]]}


def test_a_plain_function_is_a_criterion() -> None:
    def signed(params: Any, masks: Any) -> Any:
        return params

    assert kept(fp.Pruner(signed, 2), {"w": W}) == {"w": [[True, False, True], [False, True, True]]}


def test_random_draws_depend_on_seed_and_path_alone() -> None:
    params = {"a": torch.zeros(8, 8), "b": torch.zeros(8, 8)}
    pruner = fp.random_unstructured(0.5, seed=3)
    state = torch.get_rng_state()
    alone, both = pruner({"b": params["b"]}), pruner(params)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(alone["b"], both["b"])
    assert not torch.equal(both["a"], both["b"])
    assert not torch.equal(both["a"], fp.random_unstructured(0.5, seed=4)(params)["a"])


def test_random_draws_are_the_same_in_every_release() -> None:
    """Masks are reproducible from a seed: this pins the hashing and the generator."""
    masks = fp.random_unstructured(4, seed=0)({"w": torch.zeros(2, 4)})
    assert masks["w"].int().tolist() == [[1, 1, 0, 1], [0, 0, 1, 0]]


# ---------------------------------------------------------------- trees


class Layer(NamedTuple):
    weight: torch.Tensor
    bias: torch.Tensor


def test_nested_trees_of_every_kind() -> None:
    params = {"layers": [Layer(W, torch.zeros(2)), (W * 2, {"deep": W * 3})]}
    masks = fp.l1_unstructured(0.5, where=["layers.0.weight", "layers.1.*"])(params)
    assert isinstance(masks["layers"][0], Layer)
    assert masks["layers"][0].bias is None
    assert fp.masks.counts(params, masks) == {
        "layers.0.bias": (2, 2),
        "layers.0.weight": (3, 6),
        "layers.1.0": (3, 6),
        "layers.1.1.deep": (3, 6),
    }


def test_an_empty_tree_has_empty_masks() -> None:
    assert fp.l1_unstructured(0.5)({}) == {}
    assert fp.l1_unstructured(0.5, scope="global")({}) == {}


def test_fresh_structured_masks_are_views_of_one_bool_a_unit() -> None:
    masks = fp.ln_structured(0.5, n=2, dim=0)({"w": torch.randn(64, 64)})
    assert masks["w"].stride() == (1, 0)
    assert masks["w"].untyped_storage().nbytes() == 64


# ---------------------------------------------------------------- the incumbent


def torch_masks(method: Any, parameter: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    module = nn.Module()
    module.weight = nn.Parameter(parameter.clone())
    method(module, "weight", *args, **kwargs)
    return module.weight_mask.bool()


@pytest.mark.parametrize("shape", [(7,), (5, 6), (4, 3, 3, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("amount", [0.0, 0.2, 0.5, 0.99, 1.0, 0, 1])
def test_l1_agrees_with_torch(shape: tuple[int, ...], amount: float) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    (mask,) = kept(fp.chain(fp.identity(where="*"), fp.l1_unstructured(amount, where="*")), {"w": weight}).values()
    assert mask == torch_masks(incumbent.l1_unstructured, weight, amount).tolist()


@pytest.mark.parametrize("n", [1, 2, float("inf"), -float("inf")])
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("amount", [0.3, 0.5, 2, 1.0])
def test_ln_structured_agrees_with_torch(n: float, dim: int, amount: float) -> None:
    weight = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(1))
    (mask,) = kept(fp.ln_structured(amount, n=n, dim=dim), {"w": weight}).values()
    assert mask == torch_masks(incumbent.ln_structured, weight, amount, n=n, dim=dim).tolist()


def test_global_l1_agrees_with_torch() -> None:
    generator = torch.Generator().manual_seed(2)
    model = nn.Sequential(*(nn.Linear(9, 9) for _ in range(3)))
    params = {name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()}
    model.load_state_dict(params)
    masks = fp.l1_unstructured(0.37, scope="global", where="*.weight")(params)
    incumbent.global_unstructured([(m, "weight") for m in model], incumbent.L1Unstructured, amount=0.37)
    for index, module in enumerate(model):
        assert torch.equal(masks[f"{index}.weight"], module.weight_mask.bool())


@pytest.mark.parametrize("method", ["random_unstructured", "random_structured"])
def test_random_methods_prune_as_many_as_torch(method: str) -> None:
    weight = torch.randn(7, 9)
    dim = {"dim": 1} if method == "random_structured" else {}
    (mask,) = kept(getattr(fp, method)(0.4, seed=0, **dim), {"w": weight}).values()
    found = torch_masks(getattr(incumbent, method), weight, 0.4, **dim)
    assert int(torch.tensor(mask).sum()) == int(found.sum())


@pytest.mark.parametrize("amount", [0.3, 0.5, 4, 0.9])
def test_with_ties_as_many_go_as_with_torch(amount: float) -> None:
    weight = torch.randn(6, 7).round()
    found = torch_masks(incumbent.l1_unstructured, weight, amount)
    (mask,) = kept(fp.l1_unstructured(amount), {"w": weight}).values()
    assert int(torch.tensor(mask).sum()) == int(found.sum())


def test_custom_mask_and_iterations_agree_with_torch() -> None:
    weight = torch.randn(6, 6, generator=torch.Generator().manual_seed(5))
    module = nn.Module()
    module.weight = nn.Parameter(weight.clone())
    mask = torch.rand(6, 6, generator=torch.Generator().manual_seed(6)) > 0.3
    incumbent.custom_from_mask(module, "weight", mask)
    incumbent.l1_unstructured(module, "weight", 0.4)
    incumbent.ln_structured(module, "weight", 0.5, n=2, dim=0)
    pruner = fp.chain(fp.custom_from_mask({"w": mask}), fp.l1_unstructured(0.4), fp.ln_structured(0.5, n=2, dim=0))
    assert torch.equal(pruner({"w": weight})["w"], module.weight_mask.bool())


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    "pruner",
    [
        fp.l1_unstructured(0.2),
        fp.random_unstructured(3, seed=1, where=["a", "b*"]),
        fp.ln_structured(sparsity=0.5, n=1, dim=0, scope="global", where=fp.ndim(min=2) & ~fp.glob("x")),
        fp.random_structured(1, dim=0, seed=0, where=fp.regex("w.*") | "v"),
        fp.chain(fp.l1_unstructured(1), fp.identity()),
        fp.Pruner(magnitude(), 0.5, scope=fp.within(0)),
    ],
    ids=repr,
)
def test_pruners_are_values(pruner: Any) -> None:
    twin = pickle.loads(pickle.dumps(pruner))
    assert twin == pruner
    assert hash(twin) == hash(pruner)
    names = {name: getattr(fp, name) for name in fp.__all__} | {"magnitude": magnitude, "random": random}
    names |= {"default": fp.selectors.default}
    assert eval(repr(pruner), names) == pruner
    with pytest.raises(AttributeError):
        pruner.amount = 1


def test_custom_from_mask_says_how_many_masks_it_holds() -> None:
    assert repr(fp.custom_from_mask({"a": torch.ones(2).bool(), "b": None})) == "custom_from_mask(<1 masks>)"


@pytest.mark.parametrize(
    "make",
    [
        lambda: fp.l1_unstructured(0.5, scope="global"),
        lambda: fp.random_unstructured(0.5, seed=0),
        lambda: fp.random_structured(0.5, seed=0, dim=0),
        lambda: fp.ln_structured(0.5, n=2, dim=0),
        lambda: fp.ln_structured(0.5, n=-1, dim=0),
        lambda: fp.l1_unstructured(0.5, scope=fp.within(0)),
        lambda: fp.Pruner(
            fp.criteria.taylor(lambda p, _: p["a"].square().sum(), 0), 0.5, structure=fp.Slices(0), where="a"
        ),
        lambda: fp.Pruner(magnitude(), 1, structure=fp.Coupled({"a": 0})),
    ],
)
def test_the_default_device_does_not_matter(make: Any) -> None:
    """Under `torch.set_default_device` draws and counts were made there, away from the params."""
    torch.manual_seed(0)
    params = {"a": torch.randn(120, 100), "empty": torch.zeros(4, 0)}
    once = make()(params)
    twice = make()(params, once)
    with torch.device("meta"):
        again = make()(params)
        assert fp.masks.equal(again, once)
        assert fp.masks.equal(make()(params, again), twice)


# ---------------------------------------------------------------- refusals

INT8 = torch.tensor([[-128, 1], [2, 3]], dtype=torch.int8)  # abs() of -128 is -128, the least of all
NAN = {"w": torch.tensor([[1.0, torch.nan], [2.0, 3.0]])}


@pytest.mark.parametrize("amount", [-1, -0.1, 1.1, float("nan"), float("inf"), True, "half", None, 2 + 0j])
def test_amounts_out_of_range_are_refused(amount: Any) -> None:
    """A19 of the incumbent's defects: nan passes its check, True counts as one unit."""
    with pytest.raises(ValueError, match="amount"):
        fp.l1_unstructured(amount)


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, float("nan"), True, 2])
def test_sparsities_out_of_range_are_refused(sparsity: Any) -> None:
    with pytest.raises(ValueError, match="sparsity"):
        fp.l1_unstructured(sparsity=sparsity)


@pytest.mark.parametrize("number", [numpy.float16(1), numpy.float32(1), Fraction(1)], ids=repr)
def test_fractions_of_any_type_count_exactly(number: Any) -> None:
    """A float32 sparsity counted in float32: 1.0 of 2**24 + 1 units was 2**24; in float16 it overflowed."""
    for budget in (fp.allocation.Budget(sparsity=number), fp.allocation.Budget(number)):
        assert budget.drops(2**24 + 1, 2**24 + 1, "w") == 2**24 + 1


def test_amount_and_sparsity_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="both"):
        fp.l1_unstructured(0.5, sparsity=0.5)
    with pytest.raises(ValueError, match="neither"):
        fp.l1_unstructured()


@pytest.mark.parametrize(
    ("make", "call", "error", "words"),
    [
        (lambda: fp.l1_unstructured(7), {}, ValueError, "amount=7: more than the 6 alive units of 'w'"),
        (lambda: fp.l1_unstructured(0.5, where="nope*"), {}, ValueError, r"glob\('nope\*'\).* matches none of the 1"),
        (lambda: fp.l1_unstructured(0.5, where=["w", "x"]), {}, ValueError, r"glob\('x'\)"),
        (lambda: fp.l1_unstructured(0.5, where=[]), {}, ValueError, "empty sequence"),
        (lambda: fp.l1_unstructured(0.5, where=3), {}, TypeError, "where: found int"),
        (lambda: fp.regex("("), {}, ValueError, "not a regular expression"),
        (lambda: fp.of_type(nn.Linear(2, 2), nn.Conv2d), {}, ValueError, "no such parameter"),
        (lambda: fp.Pruner(magnitude(), 0.5, scope="row"), {}, ValueError, "scope='row'"),
        (lambda: fp.Pruner("l1", 0.5), {}, TypeError, "criterion"),
        (lambda: fp.ln_structured(0.5, n=2, dim=2), {}, ValueError, "params at 'w': .*no dimension 2"),
        (lambda: fp.ln_structured(0.5, n=2, dim="0"), {}, TypeError, "dim='0'"),
        (lambda: fp.ln_structured(0.5, n=float("nan"), dim=0), {}, ValueError, "n=nan"),
        (lambda: fp.Pruner(magnitude(), 0.5, scope=fp.within(5)), {}, ValueError, "params at 'w'"),
        (lambda: fp.Pruner(magnitude(), 3, scope=fp.within(0), where="w"), {"masks": "row"}, ValueError, "slice 0"),
        (lambda: fp.random_unstructured(0.5, seed=0.5), {}, TypeError, "seed=0.5"),
        (lambda: fp.random_unstructured(0.5, seed=True), {}, TypeError, "seed=True"),
        (lambda: fp.l1_unstructured(0.5), {"scores": {"w": W.int()}}, TypeError, "scores at 'w': found dtype"),
        (lambda: fp.l1_unstructured(0.5), {"scores": {"w": W[0]}}, ValueError, "scores at 'w': found shape"),
        (lambda: fp.l1_unstructured(0.5), {"scores": {"w": None}}, ValueError, "scores at 'w': found None"),
        (lambda: fp.l1_unstructured(0.5), {"scores": {"v": W}}, ValueError, "scores"),
        (lambda: fp.l1_unstructured(0.5), {"scores": {"w": W * torch.nan}}, ValueError, "scores at 'w': found NaN"),
        (lambda: fp.l1_unstructured(0.5), {"masks": {"w": W}}, TypeError, "masks at 'w': found dtype torch.float32"),
        (lambda: fp.l1_unstructured(0.5), {"masks": {"w": W[0] > 0}}, ValueError, "masks at 'w': found shape"),
        (lambda: fp.l1_unstructured(0.5), {"masks": {}}, ValueError, "masks must have .*: missing 'w'"),
        (lambda: fp.l1_unstructured(0.5), {"params": {"w": None}}, TypeError, "params at 'w': found NoneType"),
        (lambda: fp.l1_unstructured(0.5), {"params": {"w": 1.0}}, TypeError, "params at 'w': found float"),
        (lambda: fp.l1_unstructured(0.5), {"params": nn.Linear(2, 2)}, TypeError, "found a module"),
        (lambda: fp.l1_unstructured(0.5), {"params": {"a.b": W, "a": {"b": W}}}, ValueError, "path 'a.b'"),
        (lambda: fp.l1_unstructured(0.5), {"params": {"w": W.to("meta")}}, ValueError, "params at 'w'.*meta"),
        (lambda: fp.l1_unstructured(0.5), {"params": {"w": W.to_sparse()}}, TypeError, "params at 'w'.*layout"),
        (lambda: fp.l1_unstructured(0.5), {"params": NAN}, ValueError, "scores at 'w': found NaN"),
        (lambda: fp.ln_structured(0.5, n=2, dim=0), {"params": NAN}, ValueError, "scores at 'w': found NaN"),
        (lambda: fp.Pruner(magnitude(), 1, scope=fp.within(0)), {"params": NAN}, ValueError, "scores at 'w'"),
        (lambda: fp.l1_unstructured(1, where="w"), {"params": {"w": INT8}}, TypeError, "params at 'w': .*int8"),
        (lambda: fp.l1_unstructured(1, where="w"), {"params": {"w": INT8.bool()}}, TypeError, "params at 'w': .*bool"),
        (lambda: fp.ln_structured(1, n=2, dim=0, where="w"), {"params": {"w": INT8}}, TypeError, "params at 'w'"),
        (lambda: fp.l1_unstructured(1), {"params": {"w": W.to(torch.float8_e5m2)}}, TypeError, "params at 'w'.*float8"),
        (lambda: fp.l1_unstructured(1), {"scores": {"w": W.to(torch.float8_e5m2)}}, TypeError, "scores at 'w'.*float8"),
        (lambda: fp.Pruner(magnitude(), 1, structure=fp.Slices), {}, TypeError, "structure: found <class"),
        (lambda: fp.Pruner(magnitude(), 1, structure=0), {}, TypeError, "structure: found 0"),
        (lambda: fp.chain(fp.l1_unstructured(1)), {"scores": {"w": W}}, TypeError, "scores"),
        (lambda: fp.identity(), {"scores": {"w": W}}, TypeError, "scores"),
        (lambda: fp.custom_from_mask({"w": W > 0}), {"scores": {"w": W}}, TypeError, "scores"),
        (lambda: fp.chain(3), {}, TypeError, "chain"),
    ],
    ids=lambda value: "" if not isinstance(value, str) else value[:30],
)
def test_bad_input_is_refused_and_nothing_changes(make: Any, call: dict[str, Any], error: Any, words: str) -> None:
    call = dict(call)
    params = call.pop("params", {"w": W.clone()})
    if call.get("masks") == "row":
        call["masks"] = {"w": torch.tensor([[True, False, True], [True, True, True]])}
    before = (
        {path: leaf.clone() for path, leaf in params.items() if isinstance(leaf, torch.Tensor)}
        if isinstance(params, dict)
        else {}
    )
    with pytest.raises(error, match=words):
        make()(params, **call)
    for path, leaf in before.items():
        if not leaf.is_meta:
            torch.testing.assert_close(params[path], leaf, equal_nan=True, rtol=0, atol=0)


def test_a_nan_that_is_pruned_already_is_no_error() -> None:
    masks = {"w": torch.tensor([[True, False], [True, True]])}
    assert kept(fp.l1_unstructured(1), NAN, masks) == {"w": [[False, False], [True, True]]}


@pytest.mark.parametrize("transform", ["vmap", "grad"])
def test_pruners_refuse_to_run_inside_transforms(transform: str) -> None:
    def inside(weight: torch.Tensor) -> torch.Tensor:
        return (fp.l1_unstructured(1)({"w": weight})["w"] * weight).sum()

    with pytest.raises(ValueError, match="params at 'w': found a tensor inside"):
        getattr(torch.func, transform)(inside)(W[None] if transform == "vmap" else W)


def test_pruners_refuse_fake_tensors() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode, pytest.raises(ValueError, match=r"params at 'w'.*without data"):
        fp.l1_unstructured(1)({"w": mode.from_tensor(W)})
