"""``Job``: the synchronous face of ``TrainingJob``."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from parties.client.progress import Progress
from parties.client.remote_model import RemoteModel
from parties.client.training_job import Standing, TrainingJob

Result = TypeVar("Result")


class Job:
    """A training that the parties go on with by themselves; see ``TrainingJob`` for what methods do and raise."""

    def __init__(self, job: TrainingJob, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._job, self._run = job, run

    def __repr__(self) -> str:
        return repr(self._job).replace("TrainingJob", "Job", 1)

    @property
    def id(self) -> str:
        """Its name among all jobs."""
        return self._job.id

    @property
    def name(self) -> str:
        """Of the network."""
        return self._job.name

    def standing(self) -> Standing:
        """Where it stands now."""
        found: Standing = self._run(self._job.standing())
        return found

    def progress(self, known: int = 0) -> list[Progress]:
        """Of each checkpoint so far, but for the first ``known``."""
        found: list[Progress] = self._run(self._job.progress(known))
        return found

    def before(self) -> list[Progress]:
        """Of each checkpoint of the jobs that this one goes on from."""
        found: list[Progress] = self._run(self._job.before())
        return found

    def follow(self, known: int = 0) -> Iterator[Progress]:
        """Each checkpoint, after the first ``known``, as soon as it is there, until all is over."""
        made = self._job.follow(known)

        async def following() -> Progress | None:
            return await anext(made, None)

        while (each := self._run(following())) is not None:
            yield each

    def wait(self) -> RemoteModel:
        """What lies there once all is over, or it was stopped."""
        found: RemoteModel = self._run(self._job.wait())
        return found

    def stop(self) -> None:
        """It does not go on, and what it has come to stays."""
        self._run(self._job.stop())

    def resume(self) -> Job:
        """What is left of it goes on, as a job of its own, once it was stopped or has failed."""
        return Job(self._run(self._job.resume()), self._run)
