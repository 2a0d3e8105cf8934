"""Many workers: processes of this machine, or those of a Ray cluster.

Both hold whatever is asked of them in the order of the items, do again what a lost worker had, and give the error of an
item to the caller. Each worker computes with one thread, so that as many fit as there are cores.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from hwnas.errors import PluginError, WorkerError

A = TypeVar("A")
B = TypeVar("B")

TRIES = 2
"""An item whose worker is lost so often is given up: it may be what ends the workers."""


REACHED_S = 10.0
"""Time for the head of a cluster to answer."""


class Processes:
    """Processes of this machine; they stay until the executor is gone."""

    def __init__(self, workers: int = 0, threads: int = 1, gpus: int = 0) -> None:
        """Say how many.

        Args:
            workers: processes; 0: one a usable core, or one a GPU.
            threads: of each.
            gpus: of this machine, one for each worker in turn, which sees no other; 0: every worker sees all.

        Raises:
            PluginError: negative numbers.
        """
        if workers < 0 or threads < 1 or gpus < 0:
            raise PluginError(
                f"executor processes has workers={workers}, threads={threads}, gpus={gpus}; give 0 or more, 1 or more, "
                "and 0 or more"
            )
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        self.workers = workers or gpus or len(cores)
        self.threads = threads
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        self._gpus = (visible.split(",") if visible else [str(i) for i in range(gpus)])[:gpus]
        self._pool: ProcessPoolExecutor | None = None

    def map(self, function: Callable[[A], B], items: Sequence[A]) -> Iterator[B]:
        """See `hwnas.runs.executor.Executor.map`.

        Raises:
            WorkerError: the worker of an item was lost twice.
        """
        waiting = {number: self._submit(function, item) for number, item in enumerate(items)}
        lost = [0] * len(items)
        try:
            for number, item in enumerate(items):
                while True:
                    try:
                        result = waiting[number].result()
                        break
                    except BrokenProcessPool:
                        lost[number] += 1
                        if lost[number] == TRIES:
                            raise WorkerError(_given_up(item)) from None
                        self._pool = None  # every process of a broken pool is gone
                        for other in range(number, len(items)):
                            if waiting[other].done() and waiting[other].exception() is None:
                                continue
                            waiting[other] = self._submit(function, items[other])
                yield result
        finally:
            for future in waiting.values():
                future.cancel()

    def _submit(self, function: Callable[[A], B], item: A) -> Future[B]:
        if self._pool is None:
            # A fresh interpreter each: a copy of this process would share locks of its threads and of its libraries.
            context = multiprocessing.get_context("spawn")
            begun = context.Value("i", 0)
            self._pool = ProcessPoolExecutor(self.workers, context, _begin_one, (self.threads, self._gpus, begun))
        try:
            return self._pool.submit(function, item)
        except BrokenProcessPool:
            broken: Future[B] = Future()
            broken.set_exception(BrokenProcessPool("lost before it began"))
            return broken


class Ray:
    """Workers of a Ray cluster, which may join and leave while a search runs (extra ``ray``)."""

    def __init__(self, address: str | None = None, cpus: float = 1, threads: int = 1, gpus: float = 0) -> None:
        """Join a cluster, or begin one on this machine.

        Args:
            address: as Ray takes it, such as ``auto`` (the cluster of this machine) or ``ray://head:10001``; None: that
                of the environment variable ``RAY_ADDRESS``, or else one that is begun on this machine.
            cpus: processors that an evaluation needs.
            threads: of each worker.
            gpus: that an evaluation needs; Ray hides the GPUs of a node from tasks that ask for none.

        Raises:
            PluginError: Ray is not installed, or there is no such cluster.
        """
        try:
            import ray
        except ImportError:
            raise PluginError("executor ray needs the package ray; install hwnas[ray]") from None
        self.threads = threads
        self._ray = ray
        if not ray.is_initialized():
            _check_reachable(address)
            try:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
            except (ConnectionError, ValueError, RuntimeError, OSError) as error:
                raise PluginError(
                    f"there is no Ray cluster at {address!r} that lets this process in: {_one_line(error)}; a "
                    "cluster that was begun with a token needs RAY_AUTH_MODE=token here, too"
                ) from None
        # Retries are Ray's: what a node that left had is done again on another.
        self._remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=-1, scheduling_strategy="SPREAD")

    def map(self, function: Callable[[A], B], items: Sequence[A]) -> Iterator[B]:
        """See `hwnas.runs.executor.Executor.map`.

        Raises:
            WorkerError: the head of the cluster is gone.
        """
        ray = self._ray
        shared = ray.put(function)
        task = self._remote(_apply)
        waiting = [task.remote(shared, item, self.threads) for item in items]
        # Nothing is cancelled where an item fails: a task that is cancelled while it ends brings Ray 2.60 down.
        for reference, item in zip(waiting, items, strict=True):
            try:
                result = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from None
            except ray.exceptions.WorkerCrashedError:
                raise WorkerError(_given_up(item)) from None
            except (ray.exceptions.RayError, ConnectionError) as error:
                raise WorkerError(
                    f"the Ray cluster is gone: {_one_line(error)}; what was evaluated is kept, start again to continue"
                ) from None
            yield result


def _check_reachable(address: str | None) -> None:
    """Raise where nobody listens at ``host:port`` or ``ray://host:port``; Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_S).close()
    except (OSError, OverflowError) as error:
        raise PluginError(f"there is no Ray cluster at {address!r}: {_one_line(error)}") from None


def _begin_one(threads: int, gpus: Sequence[str], begun: Any) -> None:
    """Prepare one of several processes; it gets the next GPU, before PyTorch looks for any."""
    if gpus:
        with begun.get_lock():
            number, begun.value = begun.value, begun.value + 1
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    _begin(threads)


def _begin(threads: int) -> None:
    """Prepare a worker."""
    import torch

    torch.set_num_threads(threads)


def _apply(function: Callable[[A], B], item: A, threads: int) -> B:
    _begin(threads)
    return function(item)


def _given_up(item: Any) -> str:
    return f"the worker of {item!r:.200} was lost {TRIES} times; is there enough memory for it?"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
