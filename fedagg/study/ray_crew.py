"""Who carries out the runs of a study: actors of Ray's, here or on a cluster that shares the store's file system."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import asdict
from typing import Any

import ray

from fedagg.grid.ray import connect
from fedagg.study.crew import Crew, Event
from fedagg.study.work import Outcome, Task, carry_out


class _Actor:
    """A warm process of Ray's. It runs and listens at once: ``pause`` arrives while ``run`` is under way."""

    def __init__(self) -> None:
        import fedagg.experiment  # noqa: F401  now, so that the first run does not wait for it

        logging.getLogger("flwr").setLevel(logging.ERROR)
        self._paused = threading.Event()

    def run(self, task: dict[str, Any]) -> dict[str, Any]:
        return asdict(carry_out(Task(**task), stop=self._paused.is_set))

    def pause(self) -> None:
        self._paused.set()


class RayCrew(Crew):
    """Workers on Ray.

    Args:
        size: how many.
        threads: CPUs of each.
        address: of a cluster to join; None starts Ray here, for as long as the crew works.
    """

    def __init__(self, size: int, threads: int, address: str | None) -> None:
        self.size, self.threads = size, threads
        self._ours = connect("study", address, size, {"CPU": threads}, threads)
        environment = {"env_vars": {"OMP_NUM_THREADS": str(threads)}}
        self._make: Any = ray.remote(_Actor).options(num_cpus=threads, max_concurrency=2, runtime_env=environment)
        self._actors: list[Any] = [self._make.remote() for _ in range(size)]
        self._at: dict[Any, int] = {}

    def give(self, worker: int, task: Task) -> None:
        self._at[self._actors[worker].run.remote(task.plain())] = worker

    def events(self, timeout: float) -> list[Event]:
        if not self._at:
            time.sleep(timeout)
            return []
        ready, _ = ray.wait(list(self._at), num_returns=1, timeout=timeout)
        found = []
        for reference in ready:
            worker = self._at.pop(reference)
            try:
                found.append(Event(worker, outcome=Outcome(**ray.get(reference))))
            except ray.exceptions.RayError as error:
                ray.kill(self._actors[worker])  # if it lives, something it cannot say went wrong in it
                self._actors[worker] = self._make.remote()
                found.append(Event(worker, died=f"its worker on Ray died: {str(error).splitlines()[0]}"))
        return found

    def pause(self) -> None:
        for actor in self._actors:
            actor.pause.remote()

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
        if self._ours:
            ray.shutdown()
