"""Start workers, as processes of this machine or as tasks of a Ray cluster. They share a folder and hand back nothing: whoever
starts them finds what they wrote, and does what a killed one left.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from typing import Any

from tqdm import tqdm

from steerlab.errors import SteerlabError
from steerlab.sharding import Shard

Work = Callable[[Shard], None]  # a function of a module, or a partial of one: it is sent to other processes
Count = Callable[[], int]
LOOK = 0.2  # seconds between looks at the workers


def check_exclusive(shard: Shard, workers: int, ray: str) -> None:
    """Raise `SteerlabError` where a shard and workers are asked for at once: the workers share all of the work."""
    if not shard.whole and (workers or ray):
        raise SteerlabError("a shard and workers were asked for: give --shard, or --workers and --ray, not both.")


def start(
    work: Work, workers: int, ray: str = "", *, count: Count | None = None, total: int = 0, progress: bool = False
) -> int:
    """Run `work` as `workers` processes, or, where `ray` says "local" or an address, as tasks of that cluster, and wait for them.

    Each gets its `Shard`, which steals; `count` and `total` feed the progress bar. Returns how many ended early (killed, or an
    error they told on standard error); what those left is the caller's. Raises `SteerlabError` for fewer workers than one, and
    where ray is asked for and not there.
    """
    if workers < 1 and not ray:
        raise SteerlabError(f"{workers} workers were asked for: give at least 1.")
    with tqdm(total=total, unit="part", desc="workers", disable=not progress) as bar:

        def watch() -> None:
            if count is not None:
                bar.update(count() - bar.n)

        with redirect_stdout(sys.stderr) if ray else nullcontext():  # Ray prints what befell a worker among our results
            lost = _on_ray(work, workers, ray, watch) if ray else _processes(work, workers, watch)
        watch()
    if lost:
        print(f"steerlab: {lost} of the workers ended early: what they left is done here.", file=sys.stderr)
    return lost


def _processes(work: Work, workers: int, watch: Callable[[], None]) -> int:
    """Local processes, each with its share of the threads."""
    import torch

    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // workers)
    started = [
        context.Process(target=_run, args=(work, Shard(i, workers, steal=True), threads), daemon=True)
        for i in range(workers)
    ]
    try:
        for process in started:
            process.start()
        while any(process.is_alive() for process in started):
            watch()
            time.sleep(LOOK)
    finally:
        for process in started:
            if process.is_alive():
                process.terminate()
            process.join()
    return sum(process.exitcode != 0 for process in started)


def _run(work: Work, shard: Shard, threads: int) -> None:
    """The whole life of a local worker. An error in one sentence stays that."""
    try:
        _task(work, shard, threads)
    except SteerlabError as error:
        print(f"steerlab: worker {shard.index + 1} of {shard.count}: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _task(work: Work, shard: Shard, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    work(shard)


def _on_ray(work: Work, workers: int, address: str, watch: Callable[[], None]) -> int:
    """Ray tasks, one GPU each where the cluster has some; Ray starts a task again whose worker died."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise SteerlabError(
            "ray is not installed: run pip install -e '.[ray]' in the checkout, or give --workers alone."
        ) from error
    # The workers of a cluster of this machine find the modules this process finds; another's have what is installed there.
    found = {"env_vars": {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}}
    local: dict[str, Any] = (
        {"num_cpus": max(workers, 1), "include_dashboard": False, "runtime_env": found} if address == "local" else {}
    )
    mine = not ray.is_initialized()
    if mine:
        try:
            ray.init(address=address, log_to_driver=False, **local)
        except (ConnectionError, ValueError) as error:
            raise SteerlabError(
                f"no Ray cluster answers at {address!r} ({error}): give local or its address."
            ) from error
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        n = workers if workers > 0 else gpus or len(ray.nodes())
        remote = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=2)(_task)
        waiting, lost = [remote.remote(work, Shard(i, n, steal=True), 1) for i in range(n)], 0
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=LOOK)
            watch()
            for one in ready:
                try:
                    ray.get(one)
                except ray.exceptions.RayError as error:
                    lost += 1
                    print(f"steerlab: a worker on Ray ended: {_cause(error)}", file=sys.stderr)
        return lost
    finally:
        if mine:
            ray.shutdown()


def _cause(error: Exception) -> str:
    """What went wrong in a task, in its own words: Ray puts the whole traceback into the text."""
    cause = getattr(error, "cause", None) or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[-1]
