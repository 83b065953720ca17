"""The masked call and its pieces: every promise of the docstrings, and what torch.func gets wrong without us."""

import copy
import importlib
import pickle
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

import funcprune as fp
from funcprune import compiling, masking

REAL = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
COMPLEX = [torch.complex64, torch.complex128]
OTHER = [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.int64, torch.uint8, torch.uint16, torch.bool]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def kept(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


# The three ways to write a mask into params.


def by_project(params: Any, masks: Any) -> Any:
    return fp.project_(copy.deepcopy(params), masks)


WRITERS = [fp.apply, fp.bake, by_project]


@pytest.mark.parametrize("dtype", [*REAL, *COMPLEX, *OTHER], ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0), (4, 5)], ids=str)
@pytest.mark.parametrize("write", WRITERS)
def test_every_dtype_and_shape_is_kept(write: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    leaf = (drawn(*shape) * 10).abs().ceil().to(dtype)
    mask = kept(*shape, seed=2)
    out = write({"w": leaf}, {"w": mask})["w"]
    assert out.dtype == dtype
    assert out.shape == shape
    assert torch.equal(wide(out), torch.where(mask, wide(leaf), 0))


LAYOUTS: dict[str, Callable[[], Tensor]] = {
    "contiguous": lambda: drawn(4, 5, 3, 2),
    "channels_last": lambda: drawn(4, 5, 3, 2).to(memory_format=torch.channels_last),
    "transposed": lambda: drawn(2, 3, 5, 4).permute(3, 2, 1, 0),
    "every other": lambda: drawn(4, 5, 3, 4)[..., ::2],
    "gaps": lambda: drawn(4, 5, 6, 2)[:, :, :3],
}


@pytest.mark.parametrize("masked_as", ["contiguous", "transposed", "channels_last"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.int64, torch.float8_e5m2], ids=str)
def test_the_memory_format_is_that_of_the_leaf(dtype: torch.dtype, layout: str, masked_as: str) -> None:
    """`bake`, and `apply` of integers, took over the strides of the mask: a transposed weight became contiguous."""
    leaf, mask = LAYOUTS[layout]().to(dtype), LAYOUTS[masked_as]() > 0
    strides = leaf.clone().stride()  # what a copy keeps: dense strides as they are
    for write in (fp.apply, fp.bake):
        out = write(leaf, mask)
        assert out.stride() == strides
        assert torch.equal(wide(out), torch.where(mask, wide(leaf), 0))
    view, before = leaf[:], leaf.stride()
    fp.project_(view, mask)
    assert leaf.stride() == before
    assert not wide(leaf)[~mask].any()


@pytest.mark.parametrize("layout", ["rows", "columns", "scalar"])
def test_expanded_masks_and_leaves(layout: str) -> None:
    mask = {"rows": kept(4, 1), "columns": kept(1, 5), "scalar": torch.tensor(False)}[layout].expand(4, 5)
    for leaf in (drawn(4, 5), drawn(5, 4).t(), drawn(4, 1).expand(4, 5)):
        for write in (fp.apply, fp.bake):
            assert torch.equal(write(leaf, mask), torch.where(mask, leaf, 0))


HOSTILE = torch.tensor([-2.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-45, 3e38, -1e-45])


@pytest.mark.parametrize("dtype", [*REAL, *COMPLEX], ids=str)
@pytest.mark.parametrize("write", [fp.bake, by_project])
def test_written_zeros_are_positive_and_erase_what_is_not_finite(write: Any, dtype: torch.dtype) -> None:
    leaf = HOSTILE.to(dtype) if not dtype.is_complex else torch.complex(HOSTILE, -HOSTILE).to(dtype)
    out = write(leaf, torch.zeros(8, dtype=torch.bool))
    parts = torch.view_as_real(out) if dtype.is_complex else out
    assert torch.equal(parts, torch.zeros_like(parts))
    assert not parts.signbit().any()


@pytest.mark.parametrize("dtype", [*REAL, *COMPLEX], ids=str)
@pytest.mark.parametrize("write", WRITERS)
def test_kept_entries_are_unchanged(write: Any, dtype: torch.dtype) -> None:
    """A complex product by one is none: inf + 1j became inf + NaN j, at a kept entry."""
    leaf = HOSTILE.to(dtype) if not dtype.is_complex else torch.complex(HOSTILE, HOSTILE.flip(0)).to(dtype)
    out = write(leaf, torch.ones(8, dtype=torch.bool))
    found, expected = (torch.view_as_real(x) if dtype.is_complex else x for x in (out, leaf))
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(found.signbit() | found.isnan(), expected.signbit() | expected.isnan())


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_apply_is_a_product_of_what_is_pruned(dtype: torch.dtype) -> None:
    out = fp.apply(HOSTILE.to(dtype), torch.zeros(8, dtype=torch.bool))
    assert torch.equal(out.real.isnan(), ~HOSTILE.isfinite())
    assert not out.real[HOSTILE.isfinite()].any()


def test_conjugate_and_negative_views_are_written_through() -> None:
    """Their bits are not their values: viewing them as other bits raises, after other leaves were written."""
    base = torch.complex(drawn(4), drawn(4, seed=2))
    mask, before = torch.tensor([True, False, True, False]), base.clone()
    assert torch.equal(fp.bake(base.conj(), mask), torch.where(mask, base.conj(), 0))
    assert torch.equal(fp.bake(base.conj().imag, mask), torch.where(mask, -base.imag, 0))
    negative = base.conj().imag
    assert negative.is_neg()
    assert not fp.project_(negative, mask)[~mask].signbit().any()
    assert torch.equal(base, torch.where(mask, before, before.real.to(base)))
    conjugate = fp.project_(base.conj(), mask)
    assert torch.equal(torch.view_as_real(conjugate.resolve_conj())[~mask], torch.zeros(2, 2))
    assert torch.equal(base, torch.where(mask, before, 0))


def test_project_refuses_expanded_leaves_and_changes_nothing() -> None:
    """torch raised in the middle: the leaves before the expanded one were projected already."""
    params = {"a": torch.ones(2), "b": torch.ones(1).expand(2)}
    with pytest.raises(ValueError, match="params at 'b': found an expanded tensor"):
        fp.project_(params, {"a": torch.tensor([True, False]), "b": torch.tensor([True, False])})
    assert params["a"].tolist() == [1.0, 1.0]
    assert fp.project_(params, {"a": torch.tensor([True, False]), "b": None})["a"].tolist() == [1.0, 0.0]


def test_project_writes_into_the_parameters_of_a_model() -> None:
    model = nn.Linear(3, 2)
    params = dict(model.named_parameters())
    weight, masks = model.weight, {"weight": kept(2, 3), "bias": None}
    expected = fp.bake(params, masks)
    assert fp.project_(params, masks) is params
    assert model.weight is weight
    assert weight.requires_grad
    assert weight.is_leaf
    assert torch.equal(weight, expected["weight"])
    stale = (weight**2).sum()
    fp.project_(params, masks)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stale.backward()


def test_parameters_are_leaves_like_any_other() -> None:
    weight, bias = nn.Parameter(drawn(2, 3)), nn.Parameter(drawn(2))
    params, masks = {"w": weight, "b": bias}, {"w": kept(2, 3), "b": None}
    out = fp.apply(params, masks)
    assert out["b"] is bias
    assert type(out["w"]) is Tensor
    (grad_w,) = torch.autograd.grad(out["w"].sum(), weight)
    assert torch.equal(grad_w, masks["w"].float())
    baked = fp.bake(params, masks)
    assert not any(leaf.requires_grad for leaf in baked.values())
    baked["b"].zero_()
    assert bias.all()


def test_writing_out_leaves_the_inputs_alone() -> None:
    params, masks = {"w": drawn(3), "b": drawn(3)}, {"w": kept(3), "b": None}
    before = copy.deepcopy((params, masks))
    for write in (fp.apply, fp.bake):
        write(params, masks)["w"].fill_(7)
    assert torch.equal(params["w"], before[0]["w"])
    assert torch.equal(masks["w"], before[1]["w"])
    assert list(params) == ["w", "b"]


# Under transforms.

IGNORE_TORCHS_OWN = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")


class Layer(NamedTuple):
    weight: Any
    bias: Any


NESTED = {"layers": [Layer(drawn(3, 4), drawn(3)), Layer(drawn(3, 3), drawn(3))], "head": (drawn(3),)}
NESTED_MASKS = {"head": (None,), "layers": [Layer(kept(3, 4), None), Layer(kept(3, 3, seed=5), kept(3))]}


def energy(params: Any, x: Tensor) -> Tensor:
    for layer in params["layers"]:
        x = torch.tanh(x @ layer.weight.T + layer.bias)
    return (x @ params["head"][0]).sum()


@IGNORE_TORCHS_OWN
@pytest.mark.parametrize("differentiate", [grad, jacrev, torch.func.jacfwd])
def test_gradients_are_zero_where_pruned_and_dense_elsewhere(differentiate: Any) -> None:
    x = drawn(5, 4)
    found = differentiate(fp.masked(energy))(NESTED, NESTED_MASKS, x)
    dense = differentiate(energy)(fp.bake(NESTED, NESTED_MASKS), x)
    rows = list(zip(leaves_of(found), leaves_of(dense), leaves_of(NESTED_MASKS), strict=True))
    assert len(rows) == 5
    for ours, at_masked_point, mask in rows:
        kept_here = torch.ones_like(ours, dtype=torch.bool) if mask is None else mask
        torch.testing.assert_close(ours[kept_here], at_masked_point[kept_here])
        assert not ours[~kept_here].any()
    assert any(dense_leaf[~mask].any() for _, dense_leaf, mask in rows if mask is not None)


def leaves_of(tree: Any) -> list[Any]:
    return [*tree["layers"][0], *tree["layers"][1], *tree["head"]]


@IGNORE_TORCHS_OWN
def test_forward_mode() -> None:
    params, masks, tangents = {"w": drawn(4)}, {"w": kept(4)}, {"w": drawn(4, seed=9)}
    out, tangent = jvp(lambda p: fp.apply(p, masks), (params,), (tangents,))
    assert torch.equal(out["w"], params["w"] * masks["w"])
    assert torch.equal(tangent["w"], tangents["w"] * masks["w"])


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_gradients_of_complex_params(dtype: torch.dtype) -> None:
    leaf, mask = torch.complex(drawn(4), drawn(4, seed=2)).to(dtype).requires_grad_(), kept(4)
    (found,) = torch.autograd.grad(fp.apply(leaf, mask).abs().square().sum(), leaf)
    torch.testing.assert_close(found, torch.where(mask, 2 * leaf, 0).detach())


def test_vmap_over_masks_params_and_both() -> None:
    masks = [{"w": kept(2, 3, seed=seed), "b": None} for seed in range(3)]
    params = [{"w": drawn(2, 3, seed=seed), "b": drawn(2, seed=seed)} for seed in range(3)]
    stacked = fp.masks.stack(masks)
    ensemble = {name: torch.stack([leaf[name] for leaf in params]) for name in ("w", "b")}
    for write in (fp.apply, fp.bake):
        for found, loop in (
            (vmap(write, (None, fp.in_dims(stacked)))(params[0], stacked), [(params[0], mask) for mask in masks]),
            (vmap(write, (0, None))(ensemble, masks[0]), [(leaf, masks[0]) for leaf in params]),
            (vmap(write, (0, fp.in_dims(stacked)))(ensemble, stacked), zip(params, masks, strict=True)),
        ):
            for index, (leaf, mask) in enumerate(loop):
                assert torch.equal(found["w"][index], fp.bake(leaf, mask)["w"])
                assert torch.equal(found["b"][index], leaf["b"])


def test_in_dims_of_nested_masks() -> None:
    assert fp.in_dims(NESTED_MASKS) == {"head": (None,), "layers": [Layer(0, None), Layer(0, 0)]}
    assert fp.in_dims({}) == {}
    with pytest.raises(ValueError, match="masks at 'w': found int, expected a tensor or None"):
        fp.in_dims({"w": 0})


def test_masked_passes_arguments_on() -> None:
    def loss(params: Any, x: Tensor, *, scale: float = 1.0) -> Tensor:
        """Words."""
        return (params["w"] * x).sum() * scale

    call = fp.masked(loss)
    params, masks = {"w": torch.ones(2)}, {"w": torch.tensor([True, False])}
    assert call(params, masks, torch.tensor([3.0, 4.0]), scale=2.0) == 6.0
    assert call.__name__ == "loss"
    assert call.__doc__ == "Words."
    assert not hasattr(call, "__wrapped__")


# The model as a function. Traps of torch.func.functional_call, and what ours does.


def snapshot(model: nn.Module) -> Callable[[], None]:
    """A check that the model's tensors are the same objects with the same bits as now."""

    def state() -> list[tuple[str, Tensor]]:
        both = (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
        return [pair for named in both for pair in named]

    before = [(name, tensor, tensor.detach().clone()) for name, tensor in state()]

    def check() -> None:
        after = state()
        assert [name for name, _ in after] == [name for name, _, _ in before]
        for (name, now), (_, then, bits) in zip(after, before, strict=True):
            assert now is then, name
            assert torch.equal(now, bits), name
        copy.deepcopy(model)
        pickle.loads(pickle.dumps(model))

    return check


def problem(model: nn.Module, amount: float = 0.5) -> tuple[Any, Any]:
    """Detached params of a model and masks for them."""
    params = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    return params, fp.random_unstructured(amount, seed=0)(params)


def baked_model(model: nn.Module, masks: Any) -> nn.Module:
    """A dense model with the zeros written in: what a masked call must agree with."""
    other = copy.deepcopy(model)
    fp.project_(dict(other.named_parameters()), masks)
    return other


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("inside")


def shared() -> nn.Module:
    linear = nn.Linear(4, 4)
    return nn.Sequential(linear, nn.ReLU(), linear)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(torch.relu(self.encoder(x)))


def test_b1_shared_submodule_keeps_its_parameters() -> None:
    broken = shared()
    functional_call(broken, {name: p.detach() for name, p in broken.named_parameters()}, torch.zeros(1, 4))
    assert not any(p.requires_grad for p in broken.parameters())  # torch's own call replaced them (pytorch#164759)

    model = shared()
    params, masks = problem(model)
    unchanged = snapshot(model)
    x = drawn(2, 4)
    out = fp.functional(model)(params, masks, x)
    unchanged()
    assert [type(p) for p in model.parameters()] == [nn.Parameter, nn.Parameter]
    torch.testing.assert_close(out, baked_model(model, masks)(x))


def test_b2_tied_parameters_get_one_masked_tensor() -> None:
    model = Tied()
    params, masks = problem(model)
    x = drawn(2, 4)
    assert list(params) == ["encoder.weight", "encoder.bias", "decoder.bias"]
    one_name = fp.apply(params, masks)
    half = functional_call(model, one_name, x, tie_weights=False)
    unchanged = snapshot(model)
    out = fp.functional(model)(params, masks, x)
    unchanged()
    torch.testing.assert_close(out, baked_model(model, masks)(x))
    assert not torch.allclose(out, half)  # the decoder stays dense there
    found = grad(lambda p: fp.functional(model)(p, masks, x).sum())(params)["encoder.weight"]
    assert not found[~masks["encoder.weight"]].any()
    dense = baked_model(model, masks)
    dense(x).sum().backward()
    expected = dense.encoder.weight.grad
    torch.testing.assert_close(found, expected * masks["encoder.weight"])


def test_b2_two_names_of_one_parameter_in_one_module() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.ones(2))
            self.b = self.a

        def forward(self) -> Tensor:
            return self.a + self.b

    assert fp.functional(Twice())({"a": torch.ones(2)}, {"a": torch.tensor([True, False])}).tolist() == [2.0, 0.0]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"encoder.weigth": 0}, ValueError, r"unknown parameter 'encoder.weigth' \(did you mean 'encoder.weight'\?\)"),
        ({"decoder.weight": 0}, ValueError, "'decoder.weight' is tied to 'encoder.weight' in this model"),
        ({"encoder.bias": None}, ValueError, "missing parameter 'encoder.bias'"),
        (3, TypeError, "parameters: found int"),
        ("model", TypeError, "parameters: found Tied, expected the names"),
    ],
)
def test_b3_names_are_checked(change: Any, error: type[Exception], words: str) -> None:
    model = Tied()
    params, masks = problem(model)
    if isinstance(change, dict):
        for name, value in change.items():
            if value is None:
                del params[name], masks[name]
            else:
                params[name], masks[name] = torch.zeros(4, 4), None
    else:
        params = model if change == "model" else change
    unchanged = snapshot(model)
    with pytest.raises(error, match=words):
        fp.functional(model)(params, masks, torch.zeros(1, 4))
    with pytest.raises(error, match=words):
        fp.masked_call(model, params, masks, torch.zeros(1, 4))
    unchanged()


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self) -> Tensor:
        self.calls = self.calls + 1
        return self.scale * self.calls


def test_b3_the_dicts_passed_in_are_not_written_to() -> None:
    model = Counts()
    f, masks = fp.functional(model), {"scale": None}
    written = {"scale": torch.ones(2), "calls": torch.zeros(())}
    functional_call(model, written, ())
    assert written["calls"] == 1.0  # torch's own call writes into the dict
    params, buffers = {"scale": torch.ones(2)}, dict(model.named_buffers())
    before = dict(params), dict(buffers)
    unchanged = snapshot(model)
    out, new = f(params, masks, buffers=buffers)
    out, newer = f(params, masks, buffers=new)
    unchanged()
    assert (new["calls"], newer["calls"]) == (1.0, 2.0)
    assert out.tolist() == [2.0, 2.0]
    for given, kept_dict in zip((params, buffers), before, strict=True):
        assert list(given) == list(kept_dict)
        assert all(given[name] is kept_dict[name] for name in given)
    f(params, masks)
    assert model.calls == 1.0  # without buffers=, as model() would


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.inner, self.reentrant = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)), reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [True, False])
def test_b4_checkpointing_inside_the_model_is_wrong_and_around_the_call_is_right(reentrant: bool) -> None:
    """The recomputation runs when the call is over, with the module's own parameters: no error, wrong gradients."""
    model = Checkpointed(reentrant)
    params, masks = problem(model)
    x = drawn(3, 4).requires_grad_()
    for leaf in params.values():
        leaf.requires_grad_()
    inner = {name.removeprefix("inner."): leaf for name, leaf in params.items()}
    inner_masks = {name.removeprefix("inner."): mask for name, mask in masks.items()}
    f = fp.functional(model.inner)

    def x_grad(out: Tensor) -> Tensor:
        x.grad = None
        out.sum().backward()
        return x.grad

    right = x_grad(f(inner, inner_masks, x))
    inside = functional_call(model, fp.apply(params, masks), x)
    torch.testing.assert_close(inside, f(inner, inner_masks, x))
    assert not torch.allclose(x_grad(inside), right)
    around = checkpoint(f, inner, inner_masks, x, use_reentrant=reentrant)
    torch.testing.assert_close(x_grad(around), right)


def test_b4_checkpoint_wrappers_are_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
    model = nn.Sequential(checkpoint_wrapper(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="module '0' is wrapped for activation checkpointing"):
        fp.functional(model)


def test_b5_the_documentation_says_that_calls_are_not_thread_safe() -> None:
    """And this is why: while a call runs, the module holds the masked tensors, for every thread to see."""
    seen = []
    model = nn.Linear(2, 1, bias=False)
    model.register_forward_pre_hook(lambda module, args: seen.append(module.weight))
    fp.functional(model)({"weight": torch.ones(1, 2)}, {"weight": torch.zeros(1, 2).bool()}, torch.ones(2))
    assert seen[0] is not model.weight
    assert not seen[0].any()
    assert "Not thread-safe" in str(fp.functional.__doc__)


def test_b6_modules_pruned_with_hooks_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    torch.nn.utils.prune.l1_unstructured(model[0], "weight", 0.5)
    with pytest.raises(ValueError, match=r"module '0' is pruned with hooks.*fp\.compat\.extract"):
        fp.functional(model)
    with pytest.raises(ValueError, match="module '0' is pruned with hooks"):
        fp.masked_call(model, {}, {})


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x

    def right_inverse(self, x: Tensor) -> Tensor:
        return x / 2


def test_b7_parametrized_modules_go_by_their_original() -> None:
    model = nn.Linear(3, 2)
    parametrize.register_parametrization(model, "weight", Doubled())
    params, masks = problem(model)
    assert "parametrizations.weight.original" in params
    unchanged = snapshot_of_parametrized(model)
    x = drawn(4, 3)
    out = fp.functional(model)(params, masks, x)
    unchanged()
    torch.testing.assert_close(out, baked_model(model, masks)(x))
    with pytest.raises(ValueError, match="unknown parameter 'weight'"):
        fp.functional(model)({"weight": params["bias"], "bias": params["bias"]}, {"weight": None, "bias": None}, x)


def snapshot_of_parametrized(model: nn.Module) -> Callable[[], None]:
    before = [(p, p.detach().clone()) for p in model.parameters()]

    def check() -> None:
        assert all(p is q and torch.equal(p, bits) for p, (q, bits) in zip(model.parameters(), before, strict=True))

    return check


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match="model: found OrderedDict, expected"):
        fp.functional(nn.Linear(2, 2).state_dict())


def test_lazy_modules_are_refused() -> None:
    """A call would have initialized them, from inside a function that promises not to touch the model."""
    model = nn.Sequential(nn.LazyLinear(2))
    with pytest.raises(ValueError, match="module '0' has uninitialized parameters"):
        fp.functional(model)
    assert torch.nn.parameter.is_lazy(model[0].weight)
    model(torch.zeros(1, 3))
    fp.functional(model)


# B8: what works, and must keep working.


def agrees_with_the_baked_model(model: nn.Module, *args: Any, **kwargs: Any) -> None:
    """The output, the gradients by ``torch.func`` and by autograd, and the model unchanged."""
    params, masks = problem(model)
    dense = baked_model(model, masks)
    f, unchanged = fp.functional(model), snapshot(model)
    torch.testing.assert_close(f(params, masks, *args, **kwargs), dense(*args, **kwargs))
    torch.testing.assert_close(fp.masked_call(model, params, masks, args, kwargs), dense(*args, **kwargs))

    def total(out: Any) -> Tensor:
        return out.square().sum() if isinstance(out, Tensor) else out[0].square().sum()

    by_func = grad(lambda p: total(f(p, masks, *args, **kwargs)))(params)
    live = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
    total(f(live, masks, *args, **kwargs)).backward()
    total(dense(*args, **kwargs)).backward()
    for name, expected in dense.named_parameters():
        mask = fp.masks.full(params, masks)[name]
        assert expected.grad is not None
        torch.testing.assert_close(by_func[name], expected.grad * mask)
        torch.testing.assert_close(live[name].grad, expected.grad * mask)
        assert not by_func[name][~mask].any()
    unchanged()


def test_b8_multihead_attention() -> None:
    model = nn.MultiheadAttention(8, 2, batch_first=True)
    x = drawn(2, 5, 8)
    agrees_with_the_baked_model(model, x, x, x, need_weights=False)


def test_b8_lstm_gradients() -> None:
    model = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    x = drawn(5, 2, 3)
    agrees_with_the_baked_model(model, x)
    before = model(x)[0].detach()
    params, masks = problem(model)
    fp.functional(model)(params, masks, x)
    assert torch.equal(model(x)[0], before)  # it holds its weights in a list besides


def test_b8_transformer_encoder_and_its_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    x = drawn(2, 5, 8)
    agrees_with_the_baked_model(model, x)
    model.eval()
    params, masks = problem(model)
    slow = fp.functional(model)(params, masks, x.clone().requires_grad_())
    fast, calls = torch._transformer_encoder_layer_fwd, []
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *args: calls.append(1) or fast(*args))
    with torch.no_grad():
        out = fp.functional(model)(params, masks, x)
    assert len(calls) == 2
    torch.testing.assert_close(out, slow.detach(), rtol=1e-4, atol=1e-5)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))


@pytest.mark.parametrize("inner", [lambda f: f, grad], ids=["values", "grad"])
def test_b8_vmap_over_masks_equals_the_loop(inner: Any) -> None:
    model, x = network(), drawn(4, 1, 4, 4)
    params, _ = problem(model)
    f = fp.functional(model)
    loss = inner(lambda p, m: f(p, m, x).square().sum())
    masks = [fp.random_unstructured(0.5, seed=seed)(params) for seed in range(3)]
    stacked = fp.masks.stack(masks)
    unchanged = snapshot(model)
    many = vmap(loss, (None, fp.in_dims(stacked)))(params, stacked)
    unchanged()
    for index, mask in enumerate(masks):
        one = loss(params, mask)
        for found, expected in (
            [(many, one)] if isinstance(one, Tensor) else [(many[name], one[name]) for name in params]
        ):
            torch.testing.assert_close(found[index], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (1, 25), (25, 1), (26,), (2, 3, 5)], ids=str)
def test_project_erases_in_blocks_what_it_erases_at_once(shape: tuple[int, ...], monkeypatch: Any) -> None:
    monkeypatch.setattr(masking, "_BLOCK", 6)
    mask = kept(*shape)
    for leaf in (drawn(*shape), drawn(*shape[::-1]).permute(*reversed(range(len(shape))))):
        expected = fp.bake({"w": leaf}, {"w": mask})["w"]
        assert torch.equal(fp.project_({"w": leaf}, {"w": mask})["w"], expected)


def test_b8_project_compiles_once_for_all_sizes(monkeypatch: Any) -> None:
    """Erasing in blocks was unrolled into the graph: a graph a size, and minutes to compile a large one."""
    monkeypatch.setattr(masking, "_BLOCK", 6)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(fp.project_, fullgraph=True, dynamic=True, backend=counter)
    for rows in range(5, 17):
        leaf, mask = drawn(rows, 3), kept(rows, 3)
        expected = fp.bake({"w": leaf}, {"w": mask})["w"]
        assert torch.equal(compiled({"w": leaf}, {"w": mask})["w"], expected)
    assert counter.frame_count == 1


def test_project_takes_a_stride_of_zero_over_a_single_entry() -> None:
    leaf = drawn(1, 3).as_strided((1, 3), (0, 1))
    assert not fp.project_({"w": leaf}, {"w": torch.zeros(1, 3, dtype=torch.bool)})["w"].any()


def test_b8_one_compiled_graph_serves_different_masks() -> None:
    model, x = network(), drawn(4, 1, 4, 4)
    params, _ = problem(model)
    f, counter = fp.functional(model), CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    compiled = torch.compile(f, fullgraph=True, backend=counter)
    for seed in range(3):
        masks = fp.masks.contiguous(fp.random_unstructured(0.5, seed=seed)(params))
        torch.testing.assert_close(compiled(params, masks, x), f(params, masks, x))
    structured = fp.masks.contiguous(fp.ln_structured(0.5, n=1, dim=0)(params))
    torch.testing.assert_close(compiled(params, structured, x), f(params, structured, x))
    assert counter.frame_count == 1


def test_b8_compiled_gradients() -> None:
    params, masks, x = {"w": drawn(4, 4), "b": drawn(4)}, {"w": kept(4, 4), "b": None}, drawn(3, 4)
    gradient = grad(fp.masked(lambda p, x: (x @ p["w"] + p["b"]).square().sum()))
    found = torch.compile(gradient, fullgraph=True, backend="aot_eager")(params, masks, x)
    torch.testing.assert_close(found, gradient(params, masks, x))
    assert not found["w"][~masks["w"]].any()


def test_b8_what_a_training_step_calls_compiles_as_one_graph() -> None:
    """A test of the negative bit in `project_`, and one for lazy parameters in `masked_call`, broke the graph."""
    model, x = network(), drawn(4, 1, 4, 4)
    params, masks = problem(model)
    params = {name: leaf.detach() for name, leaf in params.items()}
    compiled = torch.compile(lambda p, m, x: fp.masked_call(model, p, m, x), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(params, masks, x), fp.masked_call(model, params, masks, x))
    copies = {name: leaf.clone() for name, leaf in params.items()}
    torch.compile(fp.project_, fullgraph=True, backend="aot_eager")(copies, masks)
    torch.testing.assert_close(copies, fp.bake(params, masks), rtol=0, atol=0)
    counted = torch.compile(fp.masks.counts, fullgraph=True, backend="aot_eager")(params, dict.fromkeys(params))
    assert counted == {name: (leaf.numel(), leaf.numel()) for name, leaf in params.items()}


@IGNORE_TORCHS_OWN
def test_b8_transforms_compile() -> None:
    model, x = network(), drawn(4, 1, 4, 4)
    params = {name: leaf.detach() for name, leaf in model.named_parameters()}
    f, ones = fp.functional(model), {name: torch.ones_like(leaf) for name, leaf in params.items()}
    gradient = grad(lambda p, m, x: f(p, m, x).square().sum())
    masks = fp.ln_structured(0.5, n=1, dim=0)(params)
    stacked = fp.masks.stack([fp.random_unstructured(0.5, seed=seed)(params) for seed in range(3)])
    dims = fp.in_dims(stacked)
    for function, found in (
        (gradient, masks),
        (vmap(f, (None, dims, None)), stacked),
        (vmap(gradient, (None, dims, None)), stacked),
        (lambda p, m, x: jvp(lambda q: f(q, m, x), (p,), (ones,)), masks),
    ):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(params, found, x), function(params, found, x))


def test_b8_graphs_get_masks_as_bytes_and_exported_programs_as_they_are() -> None:
    """Compiled for a CPU, a product by bools takes three times one by bytes; an export must run without funcprune."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        graphs.append(graph.code)
        return graph

    params, masks = {"w": drawn(4, 4)}, {"w": kept(4, 4)}
    torch.testing.assert_close(torch.compile(fp.apply, backend=backend)(params, masks), fp.apply(params, masks))
    assert ["as_bytes" in code for code in graphs] == [True]

    class Masked(nn.Module):
        def forward(self, params: dict[str, Tensor], masks: dict[str, Tensor]) -> dict[str, Tensor]:
            return fp.apply(params, masks)

    for strict in (False, True):
        program = torch.export.export(Masked(), (params, masks), strict=strict)
        assert "mul" in program.graph_module.code
        assert "as_bytes" not in program.graph_module.code
        torch.testing.assert_close(program.module()(params, masks), fp.apply(params, masks))


@pytest.mark.parametrize("mask", [kept(4, 5), kept(4, 1).expand(4, 5), kept(4, 5).T, kept(), kept(0, 3)])
def test_b8_the_operator_keeps_the_rules_of_torch(mask: Tensor) -> None:
    torch.library.opcheck(torch.ops.funcprune.as_bytes.default, (mask,))
    assert torch.equal(torch.ops.funcprune.as_bytes(mask), mask.to(torch.uint8))
    assert torch.Tag.pt2_compliant_tag in torch.ops.funcprune.as_bytes.default.tags


def test_b8_the_operator_is_called_once_for_many_masks() -> None:
    """Without a rule of its own, torch calls an operator under vmap once a row."""
    many, masks = vmap(compiling.as_bytes, 1, 1), kept(4, 3)
    assert torch.equal(many(masks), masks.to(torch.uint8))
    assert make_fx(many)(masks).code.count("ops.funcprune.as_bytes") == 1


def test_b8_the_operator_outlives_its_module() -> None:
    """Loading the module again registered the operator twice, which torch refuses."""
    importlib.reload(compiling)
    assert torch.equal(compiling.as_bytes(kept(3)), kept(3).to(torch.uint8))


@IGNORE_TORCHS_OWN
@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
def test_b8_compiled_by_inductor() -> None:
    params, masks, x = {"w": drawn(4, 4), "b": drawn(4)}, {"w": kept(4, 4), "b": None}, drawn(3, 4)
    call = fp.masked(lambda p, x: torch.relu(x @ p["w"] + p["b"]))
    torch.testing.assert_close(torch.compile(call, fullgraph=True)(params, masks, x), call(params, masks, x))


# State: buffers, training mode, exceptions.


def normalized() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def test_batch_norm_in_training_updates_the_model_as_a_plain_call_does() -> None:
    model, x = normalized(), drawn(6, 4)
    params, masks = problem(model)
    dense = baked_model(model, masks)
    torch.testing.assert_close(fp.functional(model)(params, masks, x), dense(x))
    assert model[1].num_batches_tracked == 1
    torch.testing.assert_close(dict(model.named_buffers()), dict(dense.named_buffers()))


def test_batch_norm_with_buffers_leaves_the_model_and_the_buffers_alone() -> None:
    model, x = normalized(), drawn(6, 4)
    params, masks = problem(model)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    before, dense = copy.deepcopy(buffers), baked_model(model, masks)
    unchanged = snapshot(model)
    out, new = fp.functional(model)(params, masks, x, buffers=buffers)
    again, _ = fp.masked_call(model, params, masks, x, buffers=buffers)
    unchanged()
    torch.testing.assert_close(out, dense(x))
    torch.testing.assert_close(again, out)
    torch.testing.assert_close(new, dict(dense.named_buffers()))
    assert not torch.equal(new["1.running_mean"], buffers["1.running_mean"])
    assert all(torch.equal(buffers[name], before[name]) for name in buffers)


def test_batch_norm_under_grad_needs_buffers() -> None:
    model, x = normalized(), drawn(6, 4)
    params, masks = problem(model)
    f, dense, unchanged = fp.functional(model), baked_model(model, masks), snapshot(model)
    with pytest.raises(RuntimeError, match="in-place"):
        grad(lambda p: f(p, masks, x).sum())(params)

    def loss(p: Any) -> tuple[Tensor, Any]:
        out, new = f(p, masks, x, buffers=dict(model.named_buffers()))
        return out.square().sum(), new

    found, new = grad(loss, has_aux=True)(params)
    unchanged()
    dense(x).square().sum().backward()
    for name, parameter in dense.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad * fp.masks.full(params, masks)[name])
    torch.testing.assert_close(new, dict(dense.named_buffers()))


def test_batch_norm_under_vmap_needs_buffers() -> None:
    model, x = normalized(), drawn(6, 4)
    params, _ = problem(model)
    masks = [fp.random_unstructured(0.5, seed=seed)(params) for seed in range(3)]
    stacked, f = fp.masks.stack(masks), fp.functional(model)
    with pytest.raises(RuntimeError, match="Batch norm got a batched tensor"):
        vmap(lambda m: f(params, m, x), (fp.in_dims(stacked),))(stacked)
    buffers = {name: torch.stack([buffer] * 3) for name, buffer in model.named_buffers()}
    unchanged = snapshot(model)
    out, new = vmap(lambda m, b: f(params, m, x, buffers=b), (fp.in_dims(stacked), 0))(stacked, buffers)
    unchanged()
    for index, mask in enumerate(masks):
        one, one_new = f(params, mask, x, buffers=dict(model.named_buffers()))
        torch.testing.assert_close(out[index], one)
        torch.testing.assert_close({name: buffer[index] for name, buffer in new.items()}, one_new)


def test_batch_norm_in_evaluation_needs_no_buffers() -> None:
    model, x = normalized().eval(), drawn(6, 4)
    agrees_with_the_baked_model(model, x)


def test_the_training_mode_is_read_at_each_call() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(1.0))
    params, masks = problem(model)
    f = fp.functional(model)
    assert not f(params, masks, drawn(2, 4)).any()
    model.eval()
    assert f(params, masks, drawn(2, 4)).any()


@pytest.mark.parametrize("transform", [lambda f: f, grad], ids=["plain", "grad"])
@pytest.mark.parametrize("make", [shared, Tied, lambda: nn.LSTM(4, 4), normalized])
def test_an_exception_leaves_the_model_as_it_was(make: Any, transform: Any) -> None:
    model = nn.Sequential(make(), Raises())
    params, masks = problem(model)
    f, unchanged, x = fp.functional(model), snapshot(model), drawn(3, 4)
    buffers = dict(model.named_buffers())
    with pytest.raises(KeyError, match="inside"):
        transform(lambda p: f(p, masks, x, buffers=buffers))(params)
    unchanged()
    with pytest.raises(ValueError, match="shape"):
        f(params, {**masks, next(iter(masks)): torch.ones(1, dtype=torch.bool)}, x)
    unchanged()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"1.running_men": torch.zeros(3)}, ValueError, r"unknown buffer '1.running_men' \(did you mean"),
        ({"1.running_var": None}, ValueError, "missing buffer '1.running_var'"),
        ({"1.running_mean": 0}, TypeError, "buffer '1.running_mean': found int, expected a tensor"),
        ([], TypeError, "buffers: found list"),
    ],
)
def test_buffers_are_checked(change: Any, error: type[Exception], words: str) -> None:
    model = normalized()
    params, masks = problem(model)
    buffers = dict(model.named_buffers()) | change if isinstance(change, dict) else change
    buffers = {name: b for name, b in buffers.items() if b is not None} if isinstance(buffers, dict) else buffers
    unchanged = snapshot(model)
    with pytest.raises(error, match=words):
        fp.functional(model)(params, masks, drawn(2, 4), buffers=buffers)
    unchanged()


def test_a_model_without_parameters_and_arguments_of_every_kind() -> None:
    class Kinds(nn.Module):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return args, kwargs

    f = fp.functional(Kinds())
    assert f({}, {}, 1, 2, a=3) == ((1, 2), {"a": 3})
    assert f({}, {}, buffers={}) == (((), {}), {})
    assert fp.masked_call(Kinds(), {}, {}, [1]) == (([1],), {})
    assert fp.masked_call(Kinds(), {}, {}, (1, 2), {"b": 4}) == ((1, 2), {"b": 4})
    assert fp.masked_call(Kinds(), {}, {}) == ((), {})


def test_ordered_dicts_in_any_order_are_params() -> None:
    model, x = Tied(), drawn(2, 4)
    params, masks = problem(model)
    backwards = OrderedDict(reversed(params.items()))
    assert torch.equal(fp.functional(model)(backwards, masks, x), fp.functional(model)(params, masks, x))
