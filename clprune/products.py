"""Matrix products that are the same to the last bit whatever the number of threads.

Two threads of a BLAS that share a product may round differently from one, on some processors in nearly every product. A choice among samples that are nearly equal would then depend on the
machine's settings. Here every product, or every block of its rows, is the work of one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from threadpoolctl import ThreadpoolController

S, T = TypeVar("S"), TypeVar("T")
ROWS = 4_096  # of a product that one thread works on at a time


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[int]:
    """Each product of numpy is one thread's work meanwhile; gives how many threads shared one before."""
    n_threads = max((library.num_threads for library in _libraries().lib_controllers if library.user_api == "blas"), default=1)
    with _libraries().limit(limits=1, user_api="blas"):
        yield n_threads


def by_threads(act: Callable[[S], T], items: Sequence[S]) -> list[T]:
    """`[act(item) for item in items]`, as many at a time as threads would share a product; inside, a product is one thread's work."""
    with one_thread() as n_threads:
        if n_threads == 1 or len(items) < 2:
            return [act(item) for item in items]
        with ThreadPoolExecutor(n_threads) as pool:  # of its own: one that lives on would not survive a fork
            return list(pool.map(act, items))


def product(a: Float[np.ndarray, "L M"], b: Float[np.ndarray, "M R"]) -> Float[np.ndarray, "L R"]:
    """a @ b, of matrices of one type. Threads share it by blocks of ROWS rows."""
    result = np.empty((len(a), b.shape[1]), dtype=a.dtype)

    def block(start: int) -> None:
        np.matmul(a[start : start + ROWS], b, out=result[start : start + ROWS])

    by_threads(block, range(0, len(a), ROWS))
    return result


def solution(a: Float[np.ndarray, "M M"], b: Float[np.ndarray, "M R"]) -> Float[np.ndarray, "M R"]:
    """x of a x = b. Raises numpy's LinAlgError where `a` is singular."""
    with one_thread():
        return np.linalg.solve(a, b)
