"""Dagster jobs that are loaded once a process: stock Dagster keeps one job and loads the whole location for the next.

Stock memory is `lru_cache(maxsize=1)` on `ReconstructableJob`, so two jobs that take turns are loaded at every turn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Any

import dagster as dg
from dagster._core.code_pointer import CodePointer, ModuleCodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.origin import JobPythonOrigin

from pipeline_platform.errors import PermanentError

LOCATIONS = 8  # code locations kept a process
JOBS = 256  # jobs kept a process, a selection of assets or ops being a job of its own

INTERNALS = (
    ("dagster._core.code_pointer.ModuleCodePointer", ()),
    ("dagster._core.definitions.reconstruct.ReconstructableJob.get_subset", ("op_selection", "asset_selection")),
    ("dagster._core.definitions.reconstruct.ReconstructableJob.get_definition", ()),
    ("dagster._core.definitions.reconstruct.ReconstructableRepository.get_definition", ()),
    ("dagster._core.definitions.reconstruct.ReconstructableRepository.with_repository_load_data", ("metadata",)),
)


class ForeignCodeError(PermanentError):
    """A run asks for code that this worker does not execute."""


def require_allowed(pointer: CodePointer, allowed: Collection[str]) -> None:
    """ForeignCodeError unless the pointer is to one of our modules, and to nothing of a folder of its own."""
    ours = type(pointer) is ModuleCodePointer and f"{pointer.module}:{pointer.fn_name}" in allowed
    if not ours:
        raise ForeignCodeError(
            f"The run asks for code at {pointer.describe()!r}. This worker executes {', '.join(sorted(allowed))} only."
        )


class WarmJob(ReconstructableJob):
    """A job whose definition, and that of its code location, stay in this process."""

    @classmethod
    def from_origin(cls, origin: JobPythonOrigin, allowed: Collection[str]) -> WarmJob:
        """The job that a run was requested for. `allowed`: the places of code that may be loaded, "module:attribute".

        The row of a run names the code to load, a file if it likes: whoever could write such a row would have his own
        program run. ForeignCodeError when the row names another place than those.
        """
        place = origin.repository_origin
        require_allowed(place.code_pointer, allowed)
        repository = ReconstructableRepository(
            place.code_pointer,
            place.container_image,
            place.executable_path,
            place.entry_point,
            place.container_context,
        )
        return cls(repository, origin.job_name)

    def get_repository_definition(self) -> dg.RepositoryDefinition:  # type: ignore[override]
        return _location(_key(self.repository))

    def get_definition(self) -> dg.JobDefinition:  # type: ignore[override]
        return _job(self)

    def get_subset(
        self,
        *,
        op_selection: Iterable[str] | None = None,
        asset_selection: AbstractSet[dg.AssetKey] | None = None,
        asset_check_selection: AbstractSet[dg.AssetCheckKey] | None = None,
    ) -> WarmJob:
        return WarmJob(self.repository, self.job_name, op_selection, asset_selection, asset_check_selection)

    def _stock(self) -> ReconstructableJob:
        return ReconstructableJob(
            self.repository, self.job_name, self.op_selection, self.asset_selection, self.asset_check_selection
        )

    def to_dict(self) -> Any:
        """For executors that send the job to another process: there it is a stock one."""
        return self._stock().to_dict()

    def __reduce__(self) -> Any:
        return ReconstructableJob, tuple(self._stock())


def load_location(module: str, attribute: str) -> None:
    """Loads the definitions before the first run asks for them."""
    repository = _location(_key(ReconstructableRepository(ModuleCodePointer(module, attribute))))
    repository.get_all_jobs()


def _key(repository: ReconstructableRepository) -> ReconstructableRepository:
    """What decides which definitions are loaded, and nothing else.

    Python imports a module once a process, from wherever it was found first: the working directory changes nothing.
    """
    pointer: CodePointer = repository.pointer
    if isinstance(pointer, ModuleCodePointer):
        pointer = ModuleCodePointer(pointer.module, pointer.fn_name)
    return ReconstructableRepository(pointer, repository_load_data=repository.repository_load_data)


@lru_cache(maxsize=LOCATIONS)
def _location(repository: ReconstructableRepository) -> dg.RepositoryDefinition:
    return repository.get_definition()


@lru_cache(maxsize=JOBS)
def _job(job: WarmJob) -> dg.JobDefinition:
    repository = _location(_key(job.repository))
    definition: dg.JobDefinition = repository.get_maybe_subset_job_def(
        job.job_name, job.op_selection, job.asset_selection, job.asset_check_selection
    )
    return definition
