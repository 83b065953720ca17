"""Lottery tickets: the ladder, rewinding, controls, and a kill in the middle of a round."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import funcprune as fp
from funcprune.training import find_tickets, lottery, reinitialized, shuffled

from .helpers import normal, same_bits, zeros_stay

PARAMS = {"w": normal((6, 5), 0), "b": normal((6,), 1)}
X, Y = normal((40, 5), 2), normal((40, 6), 3)


def loss(params: Any, x: Any, y: Any) -> Any:
    return ((x @ params["w"].T + params["b"]).tanh() - y).square().mean()


def step(params: Any, opt_state: Any, masks: Any, number: int) -> tuple[Any, Any]:
    """Momentum SGD; the batch depends on the number of the step alone."""
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(number))[:8]
    grads = torch.func.grad(fp.masked(loss))(params, masks, X[rows], Y[rows])
    momentum = {name: 0.9 * opt_state[name] + grads[name] + 0.01 * params[name] for name in params}
    return {name: params[name] - 0.1 * momentum[name] for name in params}, momentum


ZERO = {name: torch.zeros_like(value) for name, value in PARAMS.items()}
METHOD = lottery(fp.l1_unstructured(0.2), rounds=3, steps=12, rewind=4)


def test_the_ladder_of_lenet_300_100() -> None:
    params = {"fc1": normal((300, 784), 0), "fc2": normal((100, 300), 1), "fc3": normal((10, 100), 2)}
    pruner = fp.chain(fp.l1_unstructured(0.2, where=["fc1", "fc2"]), fp.l1_unstructured(0.1, where="fc3"))
    method = lottery(pruner, rounds=20, steps=1)
    state, kept = method.init(params), {}
    while not method.done(state):
        state, params, _ = method.update(state, params)
        kept[state.round] = round(100 * (1 - fp.masks.sparsity(params, state.masks)), 2)
    # kept per cent after 3, 7, 9, 15, 18 and 20 rounds, Frankle and Carbin 2019
    assert {n: kept[n] for n in (3, 7, 9, 15, 18, 20)} == {3: 51.28, 7: 21.07, 9: 13.52, 15: 3.58, 18: 1.85, 20: 1.19}


def test_a_run_has_as_many_steps_as_its_rounds_and_no_more() -> None:
    method = lottery(fp.l1_unstructured(0.3), rounds=2, steps=3, rewind=1)
    state, trained = method.init(PARAMS), []
    while not method.done(state):
        trained.append((state.round, state.step))
        state, _, _ = method.update(state, PARAMS)
    assert trained == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
    with pytest.raises(ValueError, match="after the last step"):
        method.update(state, PARAMS)


def test_training_in_place_does_not_reach_the_weights_to_rewind_to() -> None:
    params = {"w": torch.nn.Parameter(torch.ones(2, 2))}
    method = lottery(fp.l1_unstructured(1), rounds=1, steps=2)
    state = method.init(params, params)
    with torch.no_grad():
        params["w"].mul_(3.0)
    state, params, opt_state = method.update(state, params, params)
    state, params, opt_state = method.update(state, params, opt_state)
    expected = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    assert torch.equal(params["w"], expected)
    assert params["w"].requires_grad
    with torch.no_grad():
        params["w"].mul_(3.0)
    assert torch.equal(opt_state["w"], expected)
    assert torch.equal(state.params["w"], torch.ones(2, 2))


def uninterrupted(directory: Path, **options: Any) -> list[Any]:
    return find_tickets(METHOD, step, PARAMS, ZERO, directory=directory, **options)


def test_every_round_is_on_disk(tmp_path: Path) -> None:
    tickets = uninterrupted(tmp_path / "new" / "run")
    assert [ticket.round for ticket in tickets] == [0, 1, 2, 3]
    assert [fp.masks.counts(PARAMS, ticket.masks)["w"].kept for ticket in tickets] == [30, 24, 19, 15]
    for number, ticket in enumerate(tickets):
        same_bits(torch.load(tmp_path / "new" / "run" / f"round-00{number}.pt", weights_only=True), ticket)
    same_bits([ticket.start for ticket in tickets[1:]], [tickets[0].start] * 3)
    params, opt_state = PARAMS, ZERO
    for number in range(4):
        params, opt_state = step(params, opt_state, tickets[0].masks, number)
    same_bits(tickets[0].start, params)
    params, opt_state = (fp.bake(tree, tickets[2].masks) for tree in (params, opt_state))
    for number in range(4, 12):
        params, opt_state = step(params, opt_state, tickets[2].masks, number)
    same_bits(tickets[2].params, params)
    zeros_stay(tickets[3].params, tickets[3].masks)


class StopError(Exception):
    pass


@pytest.mark.parametrize("every", [1, 5, 100])
@pytest.mark.parametrize("stops", [[0], [1], [11], [12], [13, 3], [15, 2, 9], [34], [35]])
def test_a_run_that_stops_anywhere_goes_on_with_the_same_bits(tmp_path: Path, every: int, stops: list[int]) -> None:
    expected = uninterrupted(tmp_path / "whole")
    for stop in stops:
        left = stop

        def failing(*args: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise StopError
            return step(*args)

        with pytest.raises(StopError):
            find_tickets(METHOD, failing, PARAMS, ZERO, directory=tmp_path / "cut", every=every)
    calls = []
    found = find_tickets(
        METHOD, lambda *a: calls.append(a[3]) or step(*a), PARAMS, ZERO, directory=tmp_path / "cut", every=every
    )
    same_bits(found, expected)
    done = sum(stops) if every == 1 else 0
    assert len(calls) <= 12 + 3 * 8 - done  # with a checkpoint at each step, no step runs twice


CHILD = """
import os, signal, sys
sys.path.insert(0, {here!r})
import training.test_lottery as t
def deadly(params, opt_state, masks, number):
    deadly.calls += 1
    if deadly.calls == {calls}:
        os.kill(os.getpid(), signal.SIGKILL)
    return t.step(params, opt_state, masks, number)
deadly.calls = 0
t.find_tickets(t.METHOD, deadly, t.PARAMS, t.ZERO, directory={directory!r}, every=3)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_process_killed_in_the_middle_of_a_round_loses_nothing(tmp_path: Path) -> None:
    expected = uninterrupted(tmp_path / "whole")
    here = str(Path(__file__).parent.parent)
    code = CHILD.format(here=here, calls=19, directory=str(tmp_path / "cut"))
    child = subprocess.run(
        [sys.executable, "-c", code], check=False, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert child.returncode == -signal.SIGKILL
    state, _, _ = torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)
    assert (state.round, state.step) == (1, 9)  # in the middle of the second run, the last multiple of three
    assert (tmp_path / "cut" / "round-000.pt").exists()
    same_bits(uninterrupted(tmp_path / "cut", every=3), expected)


def test_a_half_written_file_is_never_read(tmp_path: Path) -> None:
    expected = uninterrupted(tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    for name in ("start", "checkpoint", "round-000"):
        (tmp_path / "cut" / f"{name}.partial").write_bytes(b"half")
    same_bits(uninterrupted(tmp_path / "cut"), expected)


def test_a_finished_run_is_read_not_trained(tmp_path: Path) -> None:
    expected = uninterrupted(tmp_path)

    def never(*args: Any) -> Any:
        raise AssertionError("trained again")

    same_bits(find_tickets(METHOD, never, PARAMS, ZERO, directory=tmp_path), expected)


def test_the_directory_of_another_run_is_refused(tmp_path: Path) -> None:
    uninterrupted(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = lottery(fp.l1_unstructured(0.3), rounds=3, steps=12, rewind=4)
    with pytest.raises(ValueError, match=r"found the run of lottery\(Pruner\(magnitude\(\), 0\.2\)"):
        find_tickets(other, step, PARAMS, ZERO, directory=tmp_path)
    with pytest.raises(ValueError, match="other initial weights"):
        find_tickets(METHOD, step, PARAMS | {"b": torch.ones(6)}, ZERO, directory=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_pruner_that_is_a_function_can_be_resumed(tmp_path: Path) -> None:
    def make() -> Any:
        def pruner(params: Any, masks: Any) -> Any:
            return fp.l1_unstructured(0.5)(params, masks)

        return lottery(pruner, rounds=1, steps=2)

    first = find_tickets(make(), step, PARAMS, ZERO, directory=tmp_path)
    same_bits(find_tickets(make(), step, PARAMS, ZERO, directory=tmp_path), first)  # at another address


def test_progress_wraps_the_steps_that_are_left(tmp_path: Path) -> None:
    totals = []

    def progress(steps: Any) -> Any:
        totals.append(len(steps))
        return steps

    uninterrupted(tmp_path, progress=progress)
    uninterrupted(tmp_path, progress=progress)
    assert totals == [12 + 3 * 8, 0]


def test_shuffled_masks_differ_by_seed_and_keep_units_whole() -> None:
    params = {"w": normal((40, 40), 0)}
    masks = fp.ln_structured(0.5, n=2, dim=0)(params)
    rows = shuffled(params, masks, seed=0, structure=fp.Slices(0))["w"]
    assert torch.equal(rows.all(1), rows.any(1))
    assert int(rows.all(1).sum()) == 20
    assert not torch.equal(rows, masks["w"])
    assert not torch.equal(shuffled(params, masks, seed=0)["w"], shuffled(params, masks, seed=1)["w"])
    assert shuffled(params, {"w": torch.ones(40, 40).bool()}, seed=0)["w"].all()


def test_reinitialized_leaves_hold_the_same_values_elsewhere() -> None:
    params = {"w": normal((40, 40), 0), "b": torch.ones(4), "none": torch.zeros(0, 3)}
    a, b = (reinitialized(params, seed=seed) for seed in (0, 1))
    assert torch.equal(a["w"].flatten().sort().values, params["w"].flatten().sort().values)
    assert (a["w"] == params["w"]).float().mean() < 0.01
    assert (a["w"] == b["w"]).float().mean() < 0.01
    same_bits({name: a[name] for name in ("b", "none")}, {name: params[name] for name in ("b", "none")})
    same_bits(reinitialized(dict(reversed(params.items())), seed=0)["w"], a["w"])


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"rounds": -1, "steps": 2}, ValueError, "rounds=-1"),
        ({"rounds": 1, "steps": 2, "rewind": 2}, ValueError, "rewind < steps"),
        ({"rounds": 1, "steps": 0}, ValueError, "rewind < steps"),
        ({"rounds": 1.0, "steps": 2}, TypeError, "rounds=1"),
        ({"rounds": True, "steps": 2}, TypeError, "rounds=True"),
    ],
)
def test_bad_counts_are_refused(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        lottery(fp.l1_unstructured(0.2), **options)


def test_bad_arguments_of_a_run_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="step=3"):
        find_tickets(METHOD, 3, PARAMS, ZERO, directory=tmp_path / "new")
    with pytest.raises(ValueError, match="every=0"):
        find_tickets(METHOD, step, PARAMS, ZERO, directory=tmp_path / "new", every=0)
    assert not (tmp_path / "new").exists()


def test_shuffling_units_that_span_leaves_is_refused() -> None:
    params, couple = {"w": torch.ones(2, 3), "b": torch.ones(2)}, fp.Coupled({"w": 0, "b": 0})
    with pytest.raises(TypeError, match="Coupled"):
        shuffled(params, {"w": torch.eye(2, 3) > 0, "b": None}, seed=0, structure=couple)
