"""How many threads share a matrix product on the CPU while a run lasts; afterwards all is as before."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

__all__ = ["limited"]

logger = logging.getLogger("gpubp")

# Measured on two cores: below, two threads gain nothing, and lose threefold where the cores are busy.
_SHARED_FROM = 8e6  # floating-point operations a step


def limited(threads: int | None, operations: float) -> AbstractContextManager[Any]:
    """While it is open, NumPy's and SciPy's products take so many threads; None chooses for steps of so many
    floating-point operations: one where they are small, else as the machine is set.

    Raises
    ------
    RuntimeError : threads are asked for, and threadpoolctl isn't there
    """
    if threads is None and operations >= _SHARED_FROM:
        return nullcontext()
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        if threads is None:
            return nullcontext()
        raise RuntimeError(
            "threads needs threadpoolctl, which is not installed: pip install 'gpubp[fast]', or set "
            "OPENBLAS_NUM_THREADS before Python starts"
        ) from None
    logger.info("matrix products take %d thread(s)", threads or 1)
    return threadpool_limits(threads or 1, user_api="blas")  # type: ignore[no-any-return]
