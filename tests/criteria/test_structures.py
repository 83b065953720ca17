"""Structures: N:M, blocks, heads and coupled units against brute force."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import funcprune as fp

MAGNITUDE = fp.criteria.magnitude()


def tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 6).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))), st.integers(0, 3), st.data())
def test_nm_keeps_the_best_of_each_run(counts: tuple[int, int], dim: int, data: st.DataObject) -> None:
    keep, of = counts
    shape = [2, 3, 1, 2]
    shape[dim] = of * data.draw(st.integers(0, 3))
    values = torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99)))).float()
    before = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.7
    mask = fp.Pruner(MAGNITUDE, structure=fp.NM(keep, of, dim=dim))({"w": values}, {"w": before})["w"]
    lines = zip(*(t.movedim(dim, -1).reshape(-1, of).tolist() for t in (values, before, mask)), strict=True)
    for run, alive, kept in lines:
        order = sorted((i for i in range(of) if alive[i]), key=lambda i: (abs(run[i]), i))
        best = set(order[max(0, len(order) - keep) :])
        assert [i in best for i in range(of)] == kept


def test_nm_on_a_linear_and_a_convolution_leaves_half() -> None:
    params = {"fc": tensor(8, 16), "conv": tensor(8, 12, 3, 3)}
    masks = fp.Pruner(MAGNITUDE, structure=fp.NM(keep=2, of=4))(params)
    assert (masks["fc"].view(8, 4, 4).sum(-1) == 2).all()
    assert (masks["conv"].view(8, 3, 4, 3, 3).sum(2) == 2).all()


def test_nm_fixes_its_own_count() -> None:
    for wrong in ({"amount": 0.5}, {"sparsity": 0.5}):
        with pytest.raises(ValueError, match=r"NM\(keep=2, of=4, dim=1\) sets the counts itself"):
            fp.Pruner(MAGNITUDE, structure=fp.NM(2, 4), **wrong)
    for scope in ("global", fp.within(0), fp.erk(), {"w": 1}):
        with pytest.raises(ValueError, match="ranks each run for itself"):
            fp.Pruner(MAGNITUDE, structure=fp.NM(2, 4), scope=scope)
    with pytest.raises(ValueError, match=r"params at 'w': NM.* needs a multiple of 4 along dimension 1, found 6"):
        fp.Pruner(MAGNITUDE, structure=fp.NM(2, 4))({"w": tensor(4, 6)})
    with pytest.raises(ValueError, match=r"params at 'b': shape .* has no dimension 1"):
        fp.Pruner(MAGNITUDE, structure=fp.NM(2, 4), where="b")({"b": tensor(4)})
    for keep, of in ((5, 4), (-1, 4), (0, 0)):
        with pytest.raises(ValueError, match="keep counts what stays"):
            fp.NM(keep, of)
    with pytest.raises(TypeError, match="expected an int"):
        fp.NM(True, 4)


def test_nm_refuses_nan_and_names_the_leaf() -> None:
    values = tensor(2, 4)
    values[1, 2] = float("nan")
    with pytest.raises(ValueError, match="scores at 'w': found NaN"):
        fp.Pruner(MAGNITUDE, structure=fp.NM(2, 4))({"w": values})


def test_blocks_go_by_their_norm() -> None:
    values = tensor(6, 8)
    mask = fp.Pruner(MAGNITUDE, 5, structure=fp.Blocks((2, 4)))({"w": values})["w"]
    norms = {(i, j): values[2 * i : 2 * i + 2, 4 * j : 4 * j + 4].norm().item() for i in range(3) for j in range(2)}
    gone = sorted(norms, key=norms.__getitem__)[:5]
    for i, j in norms:
        assert mask[2 * i : 2 * i + 2, 4 * j : 4 * j + 4].eq((i, j) not in gone).all()


def test_a_block_of_minus_one_is_a_whole_dimension() -> None:
    values = tensor(4, 3, 2, 2)
    mask = fp.Pruner(MAGNITUDE, 7, structure=fp.Blocks((1, 1, -1, -1)))({"w": values})["w"]
    kernels = values.flatten(2).norm(dim=2)
    assert torch.equal(mask.flatten(2).all(2), mask.flatten(2).any(2))
    assert torch.equal(mask[:, :, 0, 0], kernels > kernels.flatten().kthvalue(7).values)
    slices = fp.Pruner(MAGNITUDE, 2, structure=fp.Slices(0))({"w": values})
    assert fp.masks.equal(slices, fp.Pruner(MAGNITUDE, 2, structure=fp.Blocks((1, -1, -1, -1)))({"w": values}))


def test_blocks_within_rows_lose_the_same_count() -> None:
    mask = fp.Pruner(MAGNITUDE, 0.5, structure=fp.Blocks((2, 2)), scope=fp.within(0))({"w": tensor(6, 8)})["w"]
    assert (mask.view(3, 2, 4, 2).any(3).any(1).sum(1) == 2).all()


def test_blocks_that_do_not_fit_name_the_leaf() -> None:
    with pytest.raises(ValueError, match=r"params at 'w': blocks of \(4, 4\) do not divide shape \(6, 8\)"):
        fp.Pruner(MAGNITUDE, 0.5, structure=fp.Blocks((4, 4)))({"w": tensor(6, 8)})
    with pytest.raises(ValueError, match=r"params at 'w': blocks of \(4, 4\) need 2 dimensions"):
        fp.Pruner(MAGNITUDE, 0.5, structure=fp.Blocks((4, 4)))({"w": tensor(4, 4, 1)})
    with pytest.raises(ValueError, match="found the length 0"):
        fp.Blocks((0, 4))


def test_within_needs_units_along_every_dimension() -> None:
    with pytest.raises(ValueError, match="needs units along every dimension"):
        fp.Pruner(MAGNITUDE, 0.5, structure=fp.Slices(0), scope=fp.within(0))
    with pytest.raises(ValueError, match=r"params at 'w': shape .* has no dimension 2"):
        fp.l1_unstructured(0.5, scope=fp.within(2))({"w": tensor(3, 3)})


def test_within_slices_of_one_entry_and_of_none() -> None:
    # A leaf of one dimension has slices of one entry, and an empty leaf had rows of a size that reshape cannot infer.
    assert fp.l1_unstructured(1, scope=fp.within(0), where="b")({"b": tensor(3)})["b"].tolist() == [False] * 3
    assert fp.l1_unstructured(1.0, scope=fp.within(1), where="w")({"w": tensor(0, 3)})["w"] is None
    assert fp.Pruner(MAGNITUDE, structure=fp.NM(2, 4), where="w")({"w": tensor(0, 4)})["w"] is None


def test_heads_are_consecutive_parts() -> None:
    values = tensor(12, 5)
    mask = fp.Pruner(MAGNITUDE, 1, structure=fp.Heads(3, 0))({"w": values})["w"]
    weakest = values.view(3, 20).norm(dim=1).argmin()
    assert torch.equal(mask.view(3, 20).any(1), torch.arange(3) != weakest)
    assert torch.equal(mask.view(3, 20).all(1), torch.arange(3) != weakest)
    with pytest.raises(ValueError, match="params at 'w': 5 heads do not divide dimension 0"):
        fp.Pruner(MAGNITUDE, 1, structure=fp.Heads(5, 0))({"w": values})


def test_heads_of_multihead_attention_go_across_q_k_v_and_output() -> None:
    torch.manual_seed(0)
    attention = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    torch.nn.init.normal_(attention.in_proj_bias)
    params = dict(attention.named_parameters())
    heads = fp.Coupled(
        {
            "in_proj_weight": fp.Heads(3, 0, parts=3),
            "in_proj_bias": fp.Heads(3, 0, parts=3),
            "out_proj.weight": fp.Heads(3, 1),
        }
    )
    masks = fp.Pruner(MAGNITUDE, 1, structure=heads)(params)
    inward, outward = params["in_proj_weight"].view(3, 3, 4, 12), params["out_proj.weight"].view(12, 3, 4)
    power = [(inward[:, h].square().sum() + outward[:, h].square().sum()).item() for h in range(3)]
    dead = power.index(min(power))
    gone = torch.arange(3) == dead
    assert torch.equal(~masks["in_proj_weight"].view(3, 3, 48).any(2), gone.expand(3, 3))
    assert torch.equal(~masks["out_proj.weight"].view(12, 3, 4).any(2), gone.expand(12, 3))
    assert torch.equal(~masks["in_proj_bias"].view(3, 3, 4).any(2), gone.expand(3, 3))
    assert masks["out_proj.bias"] is None
    # The pruned head no longer matters: whatever its weights are, the output is the same.
    x = tensor(2, 5, 12)
    f = fp.functional(attention)
    noisy = {
        name: leaf + 0 if masks[name] is None else torch.where(masks[name], leaf, leaf + 7)
        for name, leaf in params.items()
    }
    assert torch.equal(f(params, masks, x, x, x)[0], f(noisy, masks, x, x, x)[0])


def test_coupled_channels_go_with_bias_norm_and_consumer() -> None:
    torch.manual_seed(0)
    params = dict(
        torch.nn.Sequential(
            torch.nn.Conv2d(2, 6, 3), torch.nn.BatchNorm2d(6), torch.nn.Conv2d(6, 3, 1), torch.nn.BatchNorm2d(3)
        ).named_parameters()
    )
    couple = fp.Coupled({"0.weight": 0, "0.bias": 0, "1.weight": 0, "1.bias": 0, "2.weight": 1})
    masks = fp.Pruner(MAGNITUDE, 2, structure=couple, where="0.weight")(params)
    norms = params["0.weight"].flatten(1).norm(dim=1)
    stays = norms > norms.kthvalue(2).values
    for path in ("0.weight", "0.bias", "1.weight", "1.bias"):
        assert torch.equal(masks[path].reshape(6, -1).all(1), stays)
        assert torch.equal(masks[path].reshape(6, -1).any(1), stays)
    assert torch.equal(masks["2.weight"], stays.view(1, 6, 1, 1).expand(3, 6, 1, 1))
    assert all(masks[path] is None for path in ("2.bias", "3.weight", "3.bias"))


def test_where_says_which_coupled_leaves_are_scored() -> None:
    params = {"w": torch.tensor([[3.0], [1.0]]), "v": torch.tensor([[0.0, 10.0]]), "b": torch.tensor([100.0, 0.0])}
    couple = fp.Coupled({"w": 0, "v": 1, "b": 0})
    gone = {
        where: int((~fp.Pruner(MAGNITUDE, 1, structure=couple, where=where)(params)["w"]).flatten().nonzero())
        for where in ("w", "v", "b")
    }
    assert gone == {"w": 1, "v": 0, "b": 1}
    assert int((~fp.Pruner(MAGNITUDE, 1, structure=couple)(params)["w"]).flatten().nonzero()) == 0  # sqrt 9 < sqrt 101


@pytest.mark.parametrize("scope", ["leaf", "global", fp.uniform(), fp.erk(), {"a": 2, "c": 3}], ids=repr)
def test_groups_compete_by_scope(scope: fp.allocation.Scope) -> None:
    params = {"a": tensor(8, 4), "b": tensor(3, 8, seed=1), "c": tensor(6, 5, seed=2) * 3, "d": tensor(6, seed=3)}
    couple = fp.Coupled({"a": 0, "b": 1}, {"c": 0, "d": 0})
    budget = {} if isinstance(scope, dict) else {"amount": 0.5}
    masks = fp.Pruner(MAGNITUDE, structure=couple, scope=scope, **budget)(params)
    dead = (
        int((~fp.masks.full(params, masks)["a"].any(1)).sum()),
        int((~fp.masks.full(params, masks)["c"].any(1)).sum()),
    )
    assert dead == {"'leaf'": (4, 3), "'global'": (7, 0), "uniform()": (4, 3)}.get(repr(scope), dead)
    assert sum(dead) == (5 if isinstance(scope, dict) else 7)
    if isinstance(scope, dict):
        assert dead == (2, 3)
    assert torch.equal(fp.masks.full(params, masks)["b"].any(0), fp.masks.full(params, masks)["a"].any(1))


def test_random_draws_one_number_a_coupled_unit() -> None:
    params = {"a": tensor(40, 4), "b": tensor(3, 40)}
    masks = fp.Pruner(fp.criteria.random(0), 0.5, structure=fp.Coupled({"a": 0, "b": 1}))(params)
    assert torch.equal(masks["a"].any(1), masks["b"].any(0))
    assert int(masks["a"].any(1).sum()) == 20


def test_coupled_errors_name_the_path() -> None:
    params = {"a": tensor(8, 4), "b": tensor(3, 6)}
    with pytest.raises(ValueError, match=r"params at 'b': found units of shape \(6,\), expected \(8,\) as at 'a'"):
        fp.Pruner(MAGNITUDE, 1, structure=fp.Coupled({"a": 0, "b": 1}))(params)
    with pytest.raises(ValueError, match="no leaf at 'aa'"):
        fp.Pruner(MAGNITUDE, 1, structure=fp.Coupled({"aa": 0}))(params)
    with pytest.raises(ValueError, match="selects no leaf of any group"):
        fp.Pruner(MAGNITUDE, 1, structure=fp.Coupled({"a": 0}), where="b")(params)
    with pytest.raises(ValueError, match="two groups begin with 'a'"):
        fp.Coupled({"a": 0}, {"a": 1, "b": 0})
    with pytest.raises(TypeError, match="Coupled at 'a': found 'x'"):
        fp.Coupled({"a": "x"})
    assert repr(fp.Coupled({"a": 0, "b": fp.Heads(2, 1)}, n=1)) == (
        "Coupled({'a': 0, 'b': Heads(count=2, dim=1, n=2, parts=1)}, n=1)"
    )


STRUCTURES = [fp.Slices(1), fp.Slices(-1, n=1), fp.Blocks((2, 3)), fp.Heads(2, 0), fp.Heads(3, 1)]


@pytest.mark.parametrize("structure", STRUCTURES, ids=repr)
def test_units_partition_the_entries(structure: fp.Blocks | fp.Slices | fp.Heads) -> None:
    leaf = torch.arange(24.0).view(4, 6)
    units = structure.unit_shape(leaf.shape)
    entries = structure.entries(leaf)
    assert entries.shape[:-1] == units
    assert sorted(entries.flatten().tolist()) == leaf.flatten().tolist()
    for index in itertools.product(*map(range, units)):
        one = torch.zeros(units, dtype=torch.bool)
        one[index] = True
        assert sorted(leaf[structure.expand(one, leaf.shape)].tolist()) == sorted(entries[index].tolist())
        assert torch.equal(structure.alive(leaf.shape, structure.expand(one, leaf.shape)), one)
    mask = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    kept = structure.entries(torch.where(mask, leaf, 0.0))
    torch.testing.assert_close(structure.total(leaf, mask), kept.sum(-1))
    torch.testing.assert_close(structure.pool(leaf, mask), (kept**structure.n).mean(-1) ** (1 / structure.n))
