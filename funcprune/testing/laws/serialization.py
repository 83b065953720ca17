"""Laws of files. The subject of the first is a function of masks that writes and reads them; of the second a pruner."""

import pickle
from typing import Any

from funcprune.testing import strategies
from funcprune.testing.law import Case, ensure, law, same


@law("files", "Masks come back from a file as they went in, expanded views and None among them.")
def masks_survive_files(round_trip: Any, case: Case) -> None:
    """``load(save(m)) = m``."""
    params = case.draw(strategies.params(nested=False), "params")
    masks = case.masks(params)
    same(round_trip(masks), masks, "masks from the file")


@law(
    "pruner",
    "A pickled pruner comes back with the same repr, and prunes the same.",
    needs=["picklable", "deterministic"],
)
def pruners_survive_pickle(pruner: Any, case: Case) -> None:
    """``loads(dumps(pruner)) = pruner``."""
    params = case.params()
    masks = case.masks(params)
    back = pickle.loads(pickle.dumps(pruner))
    ensure(repr(back) == repr(pruner), f"found {back!r}")
    same(back(params, masks), pruner(params, masks), "masks of the pickled pruner")
