"""A replacement for ``torch.nn.utils.prune``: the same names, signatures and state, ranked by the core.

Change ``from torch.nn.utils import prune`` to ``from funcprune.compat import prune`` and nothing else. Under one
``torch.manual_seed`` the masks are the same wherever no ties decide. Modules pruned by torch's own functions are
accepted, and torch's functions accept modules pruned here.

What differs, each a repair: pruning again ranks the parameter as it is now; a call that raises changes nothing; a
removed tensor returns to its position among the parameters; the library's masks are stored once; a mask has the dtype
of its parameter; memory layouts do not matter; counts are exact under ties; NaN scores, NaN amounts and masks that
are not zeros and ones are errors; pruned modules deep-copy, and reloading a state refreshes them.
"""

from funcprune.compat.prune.base import BasePruningMethod, PruningContainer
from funcprune.compat.prune.functions import (
    custom_from_mask,
    global_unstructured,
    identity,
    is_pruned,
    l1_unstructured,
    ln_structured,
    random_structured,
    random_unstructured,
    remove,
)
from funcprune.compat.prune.methods import (
    CustomFromMask,
    Identity,
    L1Unstructured,
    LnStructured,
    RandomStructured,
    RandomUnstructured,
)

__all__ = [
    "BasePruningMethod",
    "CustomFromMask",
    "Identity",
    "L1Unstructured",
    "LnStructured",
    "PruningContainer",
    "RandomStructured",
    "RandomUnstructured",
    "custom_from_mask",
    "global_unstructured",
    "identity",
    "is_pruned",
    "l1_unstructured",
    "ln_structured",
    "random_structured",
    "random_unstructured",
    "remove",
]
