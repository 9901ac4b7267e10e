"""MLflow: the server, database or folder that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import os
import time
from pathlib import Path

from .tracker import FILES, Start, Values

# Unless the user says otherwise, a server that does not answer is given up within a minute (MLflow
# itself tries for an hour), and nothing is reported to MLflow's makers.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # it may store a bundle elsewhere before it answers
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
LONGEST = 6000  # characters of a parameter


class MLflow:
    """A run in MLflow, of the experiment that MLFLOW_EXPERIMENT_NAME or the data names."""

    def __init__(self, start: Start) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        import mlflow
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self.client, self.metric = MlflowClient(), Metric
        if start.known_as is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", start.project)
            known = self.client.get_experiment_by_name(name)
            experiment = known.experiment_id if known else self.client.create_experiment(name)
            run = self.client.create_run(experiment, run_name=start.folder.name)
            self.known_as = run.info.run_id
            parameters = [
                Param(name, str(value)[:LONGEST]) for name, value in start.parameters.items()
            ]
            self.client.log_batch(self.known_as, params=parameters)
        else:
            self.known_as = start.known_as
            self.client.update_run(self.known_as, status="RUNNING")
        self.place = mlflow.get_tracking_uri()

    def point(self, step: int, values: Values) -> None:
        """See Tracker."""
        now = int(1000 * time.time())
        metrics = [self.metric(name, value, now, step) for name, value in values.items()]
        self.client.log_batch(self.known_as, metrics=metrics)

    def note(self, step: int, title: str, text: str) -> None:
        """See Tracker."""
        self.client.set_tag(self.known_as, title, text)

    def end(self, values: Values, folder: Path) -> None:
        """See Tracker."""
        for name, value in values.items():
            self.client.log_metric(self.known_as, name, value)
        for name in FILES:
            if (folder / name).exists():
                self.client.log_artifact(self.known_as, str(folder / name))
        self.client.log_artifacts(self.known_as, str(folder / "bundle"), "bundle")
        self.client.set_terminated(self.known_as)

    def stop(self) -> None:
        """See Tracker."""
        self.client.set_terminated(self.known_as, "KILLED")
