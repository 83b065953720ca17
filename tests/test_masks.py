"""The algebra: what None means, and what is refused. The laws of the lattice are in tests/laws."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor

import funcprune as fp

PARAMS = {"a": torch.zeros(2, 2), "n": {"b": torch.zeros(3), "c": [torch.zeros(())]}}
A = torch.tensor([[True, False], [True, True]])


def tree(a: Any = None, b: Any = None, c: Any = None) -> Any:
    return {"a": a, "n": {"b": b, "c": [c]}}


def test_none_is_all_true_everywhere() -> None:
    full, none = fp.masks.full(PARAMS), tree()
    assert fp.masks.equal(full, none)
    assert fp.masks.equal(fp.masks.intersect(tree(A), none), tree(A))
    assert fp.masks.equal(fp.masks.union(tree(A), none), none)
    assert fp.masks.union(tree(A), none)["a"] is None
    assert fp.masks.is_subset(tree(A), none)
    assert not fp.masks.is_subset(none, tree(A))
    assert fp.masks.is_subset(full, none)
    assert fp.masks.is_subset(none, full)
    assert fp.masks.sparsity(PARAMS, none) == 0.0
    assert fp.masks.equal(fp.masks.difference(PARAMS, none, tree(A)), fp.masks.invert(PARAMS, tree(A)))
    assert not fp.masks.invert(PARAMS, none)["n"]["b"].any()


def test_full_writes_out_what_is_none_and_keeps_the_rest() -> None:
    full = fp.masks.full(PARAMS, tree(A))
    assert full["a"] is A
    assert full["n"]["c"][0].shape == ()


def test_counts_by_path_in_natural_order() -> None:
    params = {f"w{index}": torch.zeros(2) for index in (10, 9)}
    counts = fp.masks.counts(params, {"w9": None, "w10": torch.tensor([True, False])})
    assert list(counts.items()) == [("w9", (2, 2)), ("w10", (1, 2))]
    assert all(type(number) is int for count in counts.values() for number in count)


def test_sparsity_of_everything_or_of_what_is_selected() -> None:
    masks = tree(A)
    assert fp.masks.sparsity(PARAMS, masks) == 1 / 8
    assert fp.masks.sparsity(PARAMS, masks, where="a") == 1 / 4
    assert fp.masks.sparsity({}, {}) == 0.0


def test_stack_and_unstack() -> None:
    stacked = fp.masks.stack([tree(A), tree(~A, torch.tensor([False] * 3))])
    assert stacked["a"].shape == (2, 2, 2)
    assert stacked["n"]["b"].tolist() == [[True] * 3, [False] * 3]
    assert stacked["n"]["c"] == [None]
    first, second = fp.masks.unstack(stacked)
    assert fp.masks.equal(first, tree(A))
    assert torch.equal(second["a"], ~A)
    assert fp.in_dims(stacked) == tree(0, 0)
    assert fp.masks.equal(fp.masks.stack(masks for masks in (first, second)), stacked)
    with pytest.raises(ValueError, match="found str"):
        fp.masks.stack(first)  # one tree is no sequence of trees


def test_contiguous_masks_are_plain_and_equal() -> None:
    expanded = torch.tensor([True, False]).view(2, 1).expand(2, 2)
    plain = fp.masks.contiguous(tree(expanded))
    assert plain["a"].is_contiguous()
    assert fp.masks.equal(plain, tree(expanded))
    assert plain["n"]["b"] is None


def test_dictionaries_align_by_key_whatever_their_order() -> None:
    """C2: an OrderedDict flattens as inserted, a dict sorted: aligning by position would mix the leaves up."""
    mask = {"x": torch.tensor([True]), "y": torch.tensor([False])}
    backwards = OrderedDict(reversed(mask.items()))
    assert fp.masks.equal(mask, backwards)
    assert fp.apply({"x": torch.ones(1), "y": torch.ones(1)}, backwards) == {"x": torch.ones(1), "y": torch.zeros(1)}


def test_nothing_is_written_in_place() -> None:
    one, other = tree(A.clone(), torch.tensor([True, False, True])), tree(~A)
    before = fp.masks.stack([one, other])
    for function in (fp.masks.intersect, fp.masks.union):
        function(one, other)
    for with_params in (fp.masks.difference, fp.masks.invert, fp.masks.full, fp.masks.counts):
        with_params(PARAMS, *([one, other] if with_params is fp.masks.difference else [one]))
    assert fp.masks.equal(before, fp.masks.stack([one, other]))


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "missing": ({"a": None}, ValueError, r"missing 'n.b', 'n.c.0'"),
    "unexpected": ({**tree(), "z": None}, ValueError, "unexpected 'z'"),
    "shallower": ({"a": None, "n": None}, ValueError, "missing 'n.b'"),
    "deeper": (tree({"x": None}), ValueError, "masks at 'a': found a subtree"),
    "container": ({"a": None, "n": {"b": None, "c": (None,)}}, ValueError, "tuple"),
    "no tensor": (tree(1), ValueError, "masks at 'a': found int"),
    "dtype": (tree(A.float()), TypeError, "masks at 'a': found dtype torch.float32, expected torch.bool"),
    "shape": (tree(None, A), ValueError, r"masks at 'n.b': found shape \(2, 2\), expected \(3,\)"),
    "stacked": (tree(A.expand(3, 2, 2)), ValueError, "vmap"),
    "device": (tree(A.to("meta")), ValueError, "masks at 'a': found device meta, expected cpu"),
    "nothing": (None, ValueError, "found NoneType, expected a tree with the leaves 'a', 'n.b', 'n.c.0'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_takes_params_refuses_masks_that_do_not_fit(wrong: str) -> None:
    masks, error, words = WRONG[wrong]
    x = torch.zeros(1)
    for call in (
        lambda: fp.masks.check(PARAMS, masks),
        lambda: fp.masks.invert(PARAMS, masks),
        lambda: fp.masks.difference(PARAMS, tree(), masks),
        lambda: fp.masks.sparsity(PARAMS, masks),
        lambda: fp.masks.counts(PARAMS, masks),
        lambda: fp.apply(PARAMS, masks),
        lambda: fp.bake(PARAMS, masks),
        lambda: fp.project_(PARAMS, masks),
        lambda: fp.summary(PARAMS, masks),
        lambda: fp.masked(lambda params, x: x)(PARAMS, masks, x),
        lambda: fp.custom_from_mask(masks)(PARAMS),
    ):
        with pytest.raises(error, match=words):
            call()


@pytest.mark.parametrize("wrong", sorted(set(WRONG) - {"device", "nothing"}))
def test_what_takes_masks_alone_refuses_masks_that_do_not_match(wrong: str) -> None:
    masks, error, words = WRONG[wrong]
    full = fp.masks.full(PARAMS)
    for call in (
        lambda: fp.masks.intersect(full, masks),
        lambda: fp.masks.union(full, masks),
        lambda: fp.masks.is_subset(full, masks),
        lambda: fp.masks.equal(full, masks),
        lambda: fp.masks.stack([full, masks]),
    ):
        with pytest.raises(error, match=words if wrong != "stacked" else "shape"):
            call()


def test_project_changes_nothing_when_a_later_mask_is_wrong() -> None:
    params: dict[str, Tensor] = {"a": torch.ones(2), "b": torch.ones(2)}
    with pytest.raises(ValueError, match="'b'"):
        fp.project_(params, {"a": torch.tensor([False, False]), "b": torch.tensor([True])})
    assert params["a"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fp.masks.intersect(), "intersect: found no mask tree"),
        (lambda: fp.masks.union(), "union: found no mask tree"),
        (lambda: fp.masks.stack([]), "stack: found no mask tree"),
        (lambda: fp.masks.unstack(tree()), "unstack: .*no tensor at all"),
        (lambda: fp.masks.unstack({"a": A, "b": A[:1]}), "unstack: .*'a': 2, 'b': 1"),
    ],
)
def test_empty_and_uneven_stacks_are_refused(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
