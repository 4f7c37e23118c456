"""MLflow: a local database unless a server is named."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedagg.disk import write_whole
from fedagg.report.grouping import flatten
from fedagg.trackers.base import About, Tracker, library

AT_ONCE = 100  # parameters that MLflow takes in one call
STATUS = {"completed": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class MLflow(Tracker):
    """An MLflow run: metrics by round, the config as parameters with dotted names, files of the run directory as artifacts.

    A run that goes on does so in the same MLflow run, which gets the rounds that it lacks. Another store, which does not know
    that MLflow run, gets a new one with all rounds.

    Args:
        tracking_uri: the store, such as ``sqlite:///mlflow.db`` (a file in the folder where the command runs) or ``http://HOST:5000``.
        experiment: what runs are put under; made if it does not exist.

    Raises:
        ConfigError: mlflow is not installed.
    """

    def __init__(self, tracking_uri: str = "sqlite:///mlflow.db", experiment: str = "fedagg") -> None:
        self.tracking_uri, self.experiment = tracking_uri, experiment
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._library = library("mlflow")

    def start(self, about: About, id: str | None) -> str:
        """Begin an MLflow run, or go on with it; return its id."""
        self._make_database()
        self._client: Any = self._library.MlflowClient(self.tracking_uri)
        self._had: set[tuple[str, int]] = set()
        self._run = self._again(id) or self._begin(about)
        return self._run

    def log(self, round: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a round, but none that the MLflow run has."""
        now, entities = int(1000 * time.time()), self._library.entities
        new = [entities.Metric(key, v, now, round) for key, v in metrics.items() if (key, round) not in self._had]
        if new:
            self._client.log_batch(self._run, metrics=new)

    def finish(self, status: str, files: Sequence[Path], error: str | None) -> None:
        """Add the files, and close the MLflow run."""
        for file in files:
            self._client.log_artifact(self._run, str(file))
        if error:
            self._client.set_tag(self._run, "error", error)
        self._client.set_terminated(self._run, STATUS[status])

    def _begin(self, about: About) -> str:
        tags = {**about.label, "seed": str(about.seed), "directory": str(about.directory)}
        run: str = self._client.create_run(self._experiment(), tags=tags, run_name=about.name).info.run_id
        params = [self._library.entities.Param(*pair) for pair in flatten(about.config).items()]
        for first in range(0, len(params), AT_ONCE):
            self._client.log_batch(run, params=params[first : first + AT_ONCE])
        return run

    def _again(self, id: str | None) -> str | None:
        """Open an MLflow run again and look up which metrics it has; None where the store does not know it."""
        if id is None:
            return None
        try:
            metrics = self._client.get_run(id).data.metrics
        except self._library.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        self._had = {(key, metric.step) for key in metrics for metric in self._client.get_metric_history(id, key)}
        self._client.update_run(id, status="RUNNING")
        self._client.set_tag(id, "error", "")
        return id

    def _make_database(self) -> None:
        """Make the database of a local store whole, then give it its name: two processes that let MLflow make one spoil it."""
        file = self.tracking_uri.removeprefix("sqlite:///")
        if file == self.tracking_uri or Path(file).exists():
            return
        with TemporaryDirectory() as folder:
            made = Path(folder) / "mlflow.db"
            self._library.MlflowClient(f"sqlite:///{made}").search_experiments(max_results=1)
            with suppress(FileExistsError):
                write_whole(Path(file), made.read_bytes(), replace=False)

    def _experiment(self) -> str:
        """Return the id of the experiment; several processes may find that it does not exist, and one of them makes it."""
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            with suppress(self._library.MlflowException):
                self._client.create_experiment(self.experiment)
            found = self._client.get_experiment_by_name(self.experiment)
        return str(found.experiment_id)
