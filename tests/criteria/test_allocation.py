"""Allocations: known values, exactness, monotonicity."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import funcprune as fp
from funcprune.allocation import Leaf, apportion

leaves = st.lists(st.tuples(st.fractions(Fraction(1, 50), 50, max_denominator=50), st.integers(0, 40)), max_size=6)


def resnet50() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"conv1": (64, 3, 7, 7)}
    inputs = 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            shapes[f"{name}.conv1"] = (width, inputs, 1, 1)
            shapes[f"{name}.conv2"] = (width, width, 3, 3)
            shapes[f"{name}.conv3"] = (4 * width, width, 1, 1)
            if block == 0:
                shapes[f"{name}.downsample"] = (4 * width, inputs, 1, 1)
            inputs = 4 * width
    return shapes | {"fc": (1000, 2048)}


def test_erk_of_resnet50_gives_the_published_table() -> None:
    shapes = resnet50()
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = sum(sizes.values())
    assert (len(shapes), total) == (54, 25_502_912)
    rows = [Leaf(shape, sizes[name], sizes[name]) for name, shape in shapes.items()]
    budget = sum(size - math.floor(0.9 * size) for size in sizes.values())  # the paper's code floors leaf by leaf
    kept = dict(zip(shapes, fp.erk().keep(budget, rows), strict=True))
    assert sum(kept.values()) == budget
    percent = {name: 100 * (1 - kept[name] / sizes[name]) for name in shapes}
    known = {"conv1": 58.00, "layer1.0.conv1": 0, "layer1.0.conv2": 82.27, "layer3.0.conv2": 95.72, "fc": 92.74}
    assert {name: round(percent[name], 2) for name in known} == pytest.approx(known, abs=0.011)
    assert kept["fc"] / sum(shapes["fc"]) == pytest.approx(48.7866, abs=2 / 3048)
    for name, shape in shapes.items():
        assert abs(kept[name] - min(sizes[name], 48.7866 * sum(shape))) < 2


def test_er_ignores_the_kernel_in_torchs_layout() -> None:
    rows = [Leaf((64, 32, 3, 3), 64 * 32 * 9, 64 * 32 * 9), Leaf((50, 40), 2000, 2000)]
    conv, fc = fp.er().keep(1500, rows)
    density = conv / rows[0].units, fc / rows[1].units
    assert density[0] / density[1] == pytest.approx(((64 + 32) / (64 * 32)) / ((50 + 40) / (50 * 40)), rel=1e-2)


@given(leaves, st.data())
def test_shares_are_exact_capped_and_monotone(rows: list[tuple[Fraction, int]], data: st.DataObject) -> None:
    weights, caps = [w for w, _ in rows], [c for _, c in rows]
    total = data.draw(st.integers(0, sum(caps)))
    shares = apportion(total, weights, caps)
    assert sum(shares) == total
    assert all(0 <= share <= cap for share, cap in zip(shares, caps, strict=True))
    if total < sum(caps):
        more = apportion(total + 1, weights, caps)
        assert all(a <= b for a, b in zip(shares, more, strict=True))


@given(leaves, st.data())
def test_shares_equal_the_seats_handed_out_one_by_one(rows: list[tuple[Fraction, int]], data: st.DataObject) -> None:
    weights, caps = [w for w, _ in rows], [c for _, c in rows]
    total = data.draw(st.integers(0, sum(caps)))
    expected = [0] * len(rows)
    for _ in range(total):
        open_ = [i for i in range(len(rows)) if expected[i] < caps[i]]
        expected[max(open_, key=lambda i: (weights[i] / (2 * expected[i] + 1), -i))] += 1
    assert apportion(total, weights, caps) == expected


def test_the_largest_remainder_is_not_monotone_but_this_is() -> None:
    # The Alabama paradox: with largest remainders the third leaf has 2 of 10 seats, and 1 of 11.
    weights, caps = [Fraction(6), Fraction(6), Fraction(2)], [100, 100, 100]

    def remainders(total: int) -> list[int]:
        exact = [Fraction(total) * weight / 14 for weight in weights]
        floors = [math.floor(value) for value in exact]
        order = sorted(range(3), key=lambda i: floors[i] - exact[i])
        return [floors[i] + (order.index(i) < total - sum(floors)) for i in range(3)]

    assert remainders(11)[2] < remainders(10)[2]
    assert apportion(11, weights, caps)[2] >= apportion(10, weights, caps)[2]


def test_shares_count_beyond_what_floats_hold() -> None:
    big = 10**18 + 1
    assert apportion(big, [Fraction(1), Fraction(1)], [big, big]) == [big // 2 + 1, big // 2]
    with pytest.raises(ValueError, match="cannot share 3 seats"):
        apportion(3, [Fraction(1)], [2])


@pytest.mark.parametrize("scope", [fp.uniform(), fp.er(), fp.erk()], ids=repr)
@pytest.mark.parametrize("budget", [{"amount": 0.73}, {"amount": 333}, {"sparsity": 0.73}])
def test_budgets_add_up_and_compose(scope: fp.allocation.Share, budget: dict[str, float]) -> None:
    torch.manual_seed(0)
    params = {"c": torch.randn(8, 4, 3, 3), "f": torch.randn(10, 20), "g": torch.randn(5, 7)}
    total = sum(leaf.numel() for leaf in params.values())
    masks = fp.Pruner(fp.criteria.magnitude(), scope=scope, **budget)(params)
    kept = sum(row.kept for row in fp.masks.counts(params, masks).values())
    assert kept == total - (333 if budget.get("amount") == 333 else round(0.73 * total))
    direct = fp.Pruner(fp.criteria.magnitude(), sparsity=0.9, scope=scope)(params)
    through = fp.Pruner(fp.criteria.magnitude(), sparsity=0.9, scope=scope)(params, masks)
    assert fp.masks.equal(direct, through)


def test_a_leaf_below_its_share_keeps_all_it_has() -> None:
    params = {"a": torch.rand(10, 10), "b": torch.rand(10, 10)}
    thin = fp.l1_unstructured(95, where="a")(params)
    masks = fp.l1_unstructured(sparsity=0.5, scope=fp.uniform())(params, thin)
    assert {path: row.kept for path, row in fp.masks.counts(params, masks).items()} == {"a": 5, "b": 95}


def test_charged_leaves_count_as_dense() -> None:
    params = {"w": torch.rand(10, 10), "v": torch.rand(10, 5), "b": torch.rand(50)}
    masks = fp.l1_unstructured(sparsity=0.5, scope=fp.erk(charge="b"))(params)
    assert fp.masks.sparsity(params, masks) == 0.5
    assert masks["b"] is None
    with pytest.raises(ValueError, match="more than the 150 alive units"):
        fp.l1_unstructured(sparsity=0.9, scope=fp.erk(charge="b"))(params)
    with pytest.raises(ValueError, match="charges entries"):
        fp.ln_structured(0.5, n=2, dim=0, scope=fp.erk(charge="b"))(params)
    assert repr(fp.erk(charge="b")) == "erk(charge=glob('b'))"


def test_a_mapping_gives_each_leaf_its_own_amount() -> None:
    params = {"a": torch.rand(10, 10), "b": torch.rand(10, 10), "c": torch.rand(10, 10)}
    pruner = fp.Pruner(fp.criteria.magnitude(), scope={"a": 0.3, "b": 17})
    kept = {path: row.kept for path, row in fp.masks.counts(params, pruner(params)).items()}
    assert kept == {"a": 70, "b": 83, "c": 100}
    assert repr(pruner) == "Pruner(magnitude(), scope={'a': 0.3, 'b': 17})"
    assert hash(pruner) == hash(fp.Pruner(fp.criteria.magnitude(), scope={"a": 0.3, "b": 17}))


def test_mappings_refuse_what_they_cannot_mean() -> None:
    params = {"a": torch.rand(2, 2)}
    with pytest.raises(ValueError, match=r"no selected leaf at 'aa' \(did you mean 'a'\?\)"):
        fp.Pruner(fp.criteria.magnitude(), scope={"aa": 0.5})(params)
    with pytest.raises(ValueError, match="expected neither"):
        fp.l1_unstructured(0.5, scope={"a": 0.5})
    with pytest.raises(ValueError, match=r"scope at 'a': amount=1\.5"):
        fp.Pruner(fp.criteria.magnitude(), scope={"a": 1.5})
    with pytest.raises(ValueError, match="amount=5: more than the 4 alive units of 'a'"):
        fp.Pruner(fp.criteria.magnitude(), scope={"a": 5})(params)
    with pytest.raises(ValueError, match="scope='layer'"):
        fp.l1_unstructured(0.5, scope="layer")


def test_structured_units_are_shared_out_too() -> None:
    params = {"a": torch.rand(16, 3, 3, 3), "b": torch.rand(32, 16, 3, 3)}
    masks = fp.ln_structured(0.5, n=2, dim=0, scope=fp.uniform())(params)
    channels = {path: int(mask.flatten(1).any(1).sum()) for path, mask in masks.items()}
    assert channels == {"a": 8, "b": 16}
