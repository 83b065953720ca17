"""Finding lottery tickets with every round on disk, and going on after a kill."""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from funcprune import trees
from funcprune.training.lottery import Lottery, LotteryState
from funcprune.training.steps import check_callable, check_steps
from funcprune.trees import Masks, Params

__all__ = ["Ticket", "find_tickets"]


class Ticket(NamedTuple):
    """A round of `lottery`: how often was pruned, the masks, the weights of step ``rewind``, and the trained ones."""

    round: int
    masks: Masks
    start: Params
    params: Params


torch.serialization.add_safe_globals([Ticket])


def find_tickets(
    method: Lottery,
    step: Callable[[Params, Any, Masks, int], tuple[Params, Any]],
    params: Params,
    opt_state: Any = None,
    *,
    directory: str | os.PathLike[str],
    every: int = 100,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
) -> list[Ticket]:
    """The tickets of all rounds, the dense network first, ``method.rounds + 1`` of them.

    The run is kept in ``directory``: ``round-000.pt`` and so on, one `Ticket` each, and ``checkpoint.pt``, written
    every ``every`` steps. A file appears whole or not at all. Called again with the same arguments after a kill at any
    moment, it goes on from the last checkpoint and ends with the same bits as if it had never stopped, provided that
    ``step`` depends on its arguments alone. Called after the end, it reads the tickets.

    Args:
        method: see `lottery`.
        step: one training step, ``step(params, opt_state, masks, number) -> (params, opt_state)``; draws what it
            needs (batches, dropout) from ``number``, which goes from 0 to ``method.steps - 1`` in the first run and
            begins at ``method.rewind`` in the later ones.
        params: the initial weights.
        opt_state: the initial optimizer state, any pytree that ``torch.load(..., weights_only=True)`` reads.
        directory: made where it does not exist.
        every: how many steps there are from one checkpoint to the next; there is one after each round besides.
        progress: wraps the range of all steps that are left, such as ``tqdm.tqdm``.

    Raises ValueError where the directory holds a run of another method, or from other initial weights.

    >>> import tempfile
    >>> method = fp.training.lottery(fp.l1_unstructured(1), rounds=2, steps=3)
    >>> grow = lambda params, opt_state, masks, number: ({"w": params["w"] * 2}, opt_state)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tickets = fp.training.find_tickets(method, grow, {"w": torch.tensor([[1.0, 2.0, 3.0]])}, directory=folder)
    >>> for ticket in tickets:
    ...     print(ticket.round, ticket.params["w"])
    0 tensor([[ 8., 16., 24.]])
    1 tensor([[ 0., 16., 24.]])
    2 tensor([[ 0.,  0., 24.]])
    """
    check_steps("find_tickets", every=every)
    check_callable("find_tickets", step=step)
    folder = Path(directory)
    state, params, opt_state = _begin(method, params, opt_state, folder)
    left = (method.rounds - state.round) * (method.steps - method.rewind) + method.steps - state.step
    for _ in range(left) if progress is None else progress(range(left)):
        params, opt_state = step(params, opt_state, state.masks, state.step)
        if state.step + 1 == method.steps:
            _write(folder / _name(state.round), Ticket(state.round, state.masks, state.params, params))
        state, params, opt_state = method.update(state, params, opt_state)
        if state.step % every == 0 or state.step == method.rewind or method.done(state):
            _write(folder / "checkpoint.pt", [state, params, opt_state])
    return [_read(folder / _name(number)) for number in range(method.rounds + 1)]


def _begin(method: Lottery, params: Params, opt_state: Any, folder: Path) -> tuple[LotteryState, Params, Any]:
    """Where to go on: from the checkpoint, or from the start, which is written down."""
    settings = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(method))  # the address of a function differs by process
    start, checkpoint = folder / "start.pt", folder / "checkpoint.pt"
    if start.exists():
        found, initial = _read(start)
        if found != settings:
            raise ValueError(f"{folder}: found the run of {found}, expected {settings}: choose another directory")
        if not _same(params, initial):
            raise ValueError(f"{folder}: found a run from other initial weights: choose another directory")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        _write(start, [settings, params])
    if checkpoint.exists():
        state, params, opt_state = _read(checkpoint)
        return state, params, opt_state
    return method.init(params, opt_state), params, opt_state


def _same(a: Params, b: Params) -> bool:
    leaves, spec = trees.params(a)
    return trees.matches(spec, b) and all(map(torch.equal, leaves, trees.align(spec, b, "params")))


def _name(number: int) -> str:
    return f"round-{number:03}.pt"


def _read(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def _write(path: Path, value: Any) -> None:
    """Writes a file whole or not at all, whenever the process dies."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
