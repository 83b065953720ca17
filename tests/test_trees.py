"""Pytrees: paths, their order, alignment, and the messages that name them."""

import copy
import pickle
from collections import OrderedDict, defaultdict
from typing import Any, NamedTuple

import optree
import pytest
import torch
from torch import nn

import funcprune as fp
from funcprune import trees


class Pair(NamedTuple):
    weight: Any
    bias: Any = None


class Other(NamedTuple):
    weight: Any
    bias: Any = None


def leaf(value: float = 1.0) -> torch.Tensor:
    return torch.full((2,), value)


def tree(make: Any) -> Any:
    return {"layers": [Pair(make(), make()), Pair(make(), make())], "head": (make(), {"scale": make()})}


PATHS = [
    "head.0",
    "head.1.scale",
    "layers.0.weight",
    "layers.0.bias",
    "layers.1.weight",
    "layers.1.bias",
]


def test_c1_none_is_a_leaf_of_masks() -> None:
    """optree's own tree_map takes None for an empty container: it fails, or worse, does not."""
    masks, params = {"a": None, "b": torch.tensor([True, False])}, {"a": leaf(), "b": leaf()}
    with pytest.raises(ValueError, match="Expected None"):
        optree.tree_map(lambda m, p: p, masks, params)
    found = fp.apply(params, masks)
    assert found["a"] is params["a"]
    assert found["b"].tolist() == [1.0, 0.0]
    assert trees.paths({"a": None, "b": (None, None)}) == ["a", "b.0", "b.1"]


def test_c1_a_deeper_tree_of_masks_is_an_error() -> None:
    """optree's own tree_map lets later trees be deeper and hands the subtree over."""
    handed = optree.tree_map(lambda p, m: m, {"a": leaf()}, {"a": {"x": None}}, none_is_leaf=True)
    assert handed == {"a": {"x": None}}
    with pytest.raises(ValueError, match="masks at 'a': found a subtree, expected a tensor or None"):
        fp.apply({"a": leaf()}, {"a": {"x": None}})
    for empty in ({}, [], ()):
        with pytest.raises(ValueError, match="masks at 'a': found a subtree"):
            fp.apply({"a": leaf()}, {"a": empty})


def test_c2_no_result_depends_on_the_order_or_the_type_of_a_dict() -> None:
    params = {"b": leaf(1), "a": leaf(2), "c": leaf(3)}
    masks = {"a": torch.tensor([True, False]), "b": torch.tensor([False, True]), "c": None}
    expected = fp.bake(params, masks)
    for kind in (dict, OrderedDict, lambda items: defaultdict(None, items)):
        for first in (params, kind(reversed(params.items()))):
            for second in (masks, kind(reversed(masks.items()))):
                for write in (fp.apply, fp.bake, lambda p, m: fp.project_(copy.deepcopy(p), m)):
                    found = write(first, second)
                    assert type(found) is type(first)
                    assert list(found) == list(first)
                    assert all(torch.equal(found[name], expected[name]) for name in expected)
                assert [row.path for row in fp.summary(first, second).rows] == ["a", "b", "c"]
                assert list(fp.masks.counts(first, second)) == ["a", "b", "c"]


def test_c2_layers_are_in_natural_order() -> None:
    params = {f"layers.{index}.w": leaf() for index in (10, 2, 1)}
    assert list(trees.named(params)) == ["layers.1.w", "layers.2.w", "layers.10.w"]
    lists = {"layers": [leaf() for _ in range(11)]}
    assert list(trees.named(lists))[-2:] == ["layers.9", "layers.10"]
    assert sorted(["a.b", "a", "a10", "a9", "10", "9", "", "a9b"], key=trees.natural) == [
        "",
        "9",
        "10",
        "a",
        "a9",
        "a9b",
        "a10",
        "a.b",
    ]


def test_c3_a_tied_weight_has_one_name_in_params_and_all_in_a_state_dict() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    assert list(dict(model.named_parameters())) == ["0.weight"]
    assert list(model.state_dict()) == ["0.weight", "1.weight"]
    found = fp.functional(model)({"0.weight": torch.eye(2)}, {"0.weight": torch.eye(2).bool()}, torch.ones(2))
    assert found.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"'1.weight' is tied to '0.weight' in this model: pass it once"):
        fp.functional(model)(model.state_dict(), dict.fromkeys(model.state_dict()), torch.ones(2))


def test_c4_ties_have_an_order_and_nan_scores_are_no_maximum() -> None:
    """topk leaves ties unordered and calls NaN the largest: the selection engine has its own tests of the counts."""
    assert torch.topk(torch.tensor([1.0, torch.nan]), 1).values.isnan()
    mask = fp.l1_unstructured(2, where="w")({"w": torch.ones(4)})["w"]
    assert mask.tolist() == [False, False, True, True]
    with pytest.raises(ValueError, match="'w'"):
        fp.l1_unstructured(1, where="w")({"w": torch.tensor([1.0, torch.nan])})


def test_c4_counts_are_integers_past_two_to_the_24() -> None:
    size = (1 << 24) + 3
    params = {"w": torch.zeros(1).expand(size)}
    mask = torch.ones(1, dtype=torch.bool).expand(size).contiguous()
    mask[-1] = False
    assert fp.masks.counts(params, {"w": mask})["w"] == (size - 1, size)
    assert fp.summary(params, {"w": mask}).all.kept == size - 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int8], ids=str)
def test_c5_nothing_promotes(dtype: torch.dtype) -> None:
    params, mask = {"w": torch.ones(2).to(dtype)}, torch.tensor([True, False])
    if dtype == torch.bfloat16:
        assert (params["w"] * mask.float()).dtype == torch.float32
    for write in (fp.apply, fp.bake, fp.project_):
        found = write(params, {"w": mask})["w"]
        assert found.dtype == dtype
        assert found.float().tolist() == [1.0, 0.0]


def test_nested_trees_keep_their_types() -> None:
    params, masks = tree(leaf), tree(lambda: torch.tensor([True, False]))
    assert trees.paths(params) == PATHS
    assert list(trees.named(params)) == sorted(PATHS, key=trees.natural)
    for write in (fp.apply, fp.bake):
        found = write(params, masks)
        assert type(found["layers"][0]) is Pair
        assert type(found["head"]) is tuple
        assert [values.tolist() for values in trees.flatten(found)[0]] == [[1.0, 0.0]] * 6
    assert [values.tolist() for values in trees.flatten(params)[0]] == [[1.0, 1.0]] * 6


@pytest.mark.parametrize("empty", [{}, [], (), {"a": {}}, [(), {}], OrderedDict()], ids=repr)
def test_empty_trees(empty: Any) -> None:
    for write in (fp.apply, fp.bake, fp.project_):
        assert write(empty, empty) == empty
    assert trees.paths(empty) == []
    assert trees.named(empty) == {}
    assert fp.summary(empty, empty).rows == ()
    fp.masks.check(empty, empty)


def test_a_bare_tensor_is_a_tree() -> None:
    assert fp.apply(leaf(), torch.tensor([True, False])).tolist() == [1.0, 0.0]
    assert trees.paths(leaf()) == [""]
    with pytest.raises(ValueError, match=r"masks at '': found shape \(1,\)"):
        fp.apply(leaf(), torch.tensor([True]))


A, B = torch.tensor([True, False]), None
WRONG: dict[str, tuple[Any, Any, str]] = {
    "missing": ({"a": leaf(), "b": leaf()}, {"a": A}, "missing 'b'"),
    "unexpected": ({"a": leaf()}, {"a": A, "b": A}, "unexpected 'b'"),
    "both": ({"a": leaf()}, {"b": A}, "missing 'a', unexpected 'b'"),
    "many": ({f"w{i}": leaf() for i in range(9)}, {}, "missing 'w0', 'w1', 'w2', 'w3' and 5 more"),
    "longer list": ([leaf()], [A, A], "unexpected '1'"),
    "shorter list": ([leaf(), leaf()], [A], "missing '1'"),
    "list for tuple": ((leaf(),), [A], "list"),
    "tuple for namedtuple": (Pair(leaf(), leaf()), (A, A), "missing 'weight', 'bias', unexpected '0', '1'"),
    "another namedtuple": (Pair(leaf(), leaf()), Other(A, A), "Other"),
    "dict for list": ([leaf()], {"0": A}, "dict"),
    "empty for empty": ({"a": {}}, {"a": []}, "list"),
    "None for empty": ({"a": {}}, {"a": None}, "unexpected 'a'"),
    "None for all": ({"a": leaf()}, None, "found NoneType, expected a tree with the leaves 'a'"),
    "a module": ({"a": leaf()}, nn.Linear(1, 1), "found Linear, expected a tree with the leaves 'a'"),
    "mixed keys": ({"a": leaf(), 1: leaf()}, {"a": A, 2: A}, "missing '1', unexpected '2'"),
    "string": ({"a": leaf()}, {"a": "keep"}, "masks at 'a': found str"),
    "array": ({"a": leaf()}, {"a": [True, False]}, "masks at 'a': found a subtree"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("call", [fp.apply, fp.bake, fp.project_, fp.masks.check, fp.summary, fp.masks.counts])
def test_structures_that_differ_are_named(call: Any, case: str) -> None:
    params, masks, words = WRONG[case]
    before = copy.deepcopy(params)
    with pytest.raises(ValueError, match=words):
        call(params, masks)
    for now, then in zip(trees.flatten(params)[0], trees.flatten(before)[0], strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"a": None}, "params at 'a': found NoneType, expected a tensor"),
        ({"a": [leaf(), 3.0]}, "params at 'a.1': found float, expected a tensor"),
        (None, "params at '': found NoneType"),
        (nn.Linear(1, 1), r"found a module, expected a pytree of tensors such as dict\(model.named_parameters\(\)\)"),
        (Pair(leaf(), "x"), "params at 'bias': found str"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("call", [fp.apply, fp.bake, fp.project_, fp.masks.check, fp.summary, fp.masks.counts])
def test_params_that_are_no_tensors_are_named(call: Any, params: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        call(params, params)
    with pytest.raises(TypeError, match=words):
        fp.l1_unstructured(0.5)(params)


@pytest.mark.parametrize(
    "params",
    [
        {"a.b": leaf(), "a": {"b": leaf()}},
        {1: leaf(), "1": leaf()},
        {"a": [leaf()], "a.0": leaf()},
    ],
    ids=["dotted", "number and string", "index"],
)
def test_what_goes_by_paths_refuses_paths_that_collide(params: Any) -> None:
    masks = fp.masks.full(params)
    for call in (
        lambda: fp.summary(params, masks),
        lambda: fp.masks.counts(params, masks),
        lambda: fp.l1_unstructured(1, where="*")(params),
    ):
        with pytest.raises(ValueError, match="two leaves have the path"):
            call()


def test_the_summary_of_a_nested_tree() -> None:
    masks = tree(lambda: None)
    masks["head"][1]["scale"] = torch.tensor([False, False])
    found = fp.summary(tree(leaf), masks)
    assert [row.path for row in found.rows] == sorted(PATHS, key=trees.natural)
    assert found.pruned == ("pruned leaves", None, 0, 2)
    assert found.all == ("all leaves", None, 10, 12)
    assert fp.summary(tree(leaf), tree(lambda: None)).pruned.sparsity == 0.0
    assert pickle.loads(pickle.dumps(found)) == found == copy.deepcopy(found)


def test_deep_copies_and_pickles_of_masks_are_masks() -> None:
    params, pruner = {"w": torch.arange(12.0).view(3, 4), "b": leaf()}, fp.ln_structured(1, n=1, dim=0)
    masks = pruner(params)
    for other in (copy.deepcopy(masks), pickle.loads(pickle.dumps(masks))):
        assert fp.masks.equal(other, masks)
        assert torch.equal(fp.apply(params, other)["w"], fp.apply(params, masks)["w"])
        assert other["b"] is None
        assert fp.masks.equal(pruner(params, other), pruner(params, masks))


def test_hints_for_names() -> None:
    assert trees.closest("conv1.weigth", ["conv1.weight", "fc.bias"]) == " (did you mean 'conv1.weight'?)"
    assert trees.closest("zzz", ["conv1.weight"]) == ""
    assert trees.closest("a", []) == ""
