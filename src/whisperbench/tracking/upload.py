"""Upload of result bundles that were not logged after their measurement."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisperbench.config.compare import UploadConfig
from whisperbench.errors import BundleError, TrackingError
from whisperbench.processes.signals import signals_raise
from whisperbench.processes.watch import RUN_ID
from whisperbench.progress import Listener
from whisperbench.results.bundle import BUNDLE_FILE, PARTIAL, Bundle, locked, read_bundle
from whisperbench.results.names import FAILURE, KIND
from whisperbench.results.recording import complete
from whisperbench.text import without_password
from whisperbench.tracking.client import connect, ignore_error, search_experiments, tracking_errors
from whisperbench.tracking.experiment_page import update_experiment_page
from whisperbench.tracking.runs import BUNDLE_TAG, close_run, create_run, experiment_id_of, fill_run, missing_files
from whisperbench.tracking.tracked_run import tracked_run

if TYPE_CHECKING:
    from mlflow import MlflowClient


def upload_bundles(config: UploadConfig, listener: Listener, on_uploaded: Callable[[str], None]) -> None:
    """Log the bundles at a path or pattern; `on_uploaded` is called with a sentence after each.

    All bundles are read before the first one is logged.

    Raises:
        BundleError: no bundle was found, or one is damaged.
        TrackingError: the server cannot be reached or refuses; the same command logs the remaining bundles.
    """
    bundles = read_bundles(config.bundles, listener)
    client = connect()
    experiments = set()
    # `mlflow run` has started a run for the upload itself.
    with tracked_run(client, "upload", {KIND: "upload"}) if RUN_ID in os.environ else signals_raise():
        for done, bundle in enumerate(bundles):
            try:
                run_id, was_missing = upload_bundle(client, bundle)
            except TrackingError as error:
                raise TrackingError(
                    f"{error} {done} of {len(bundles)} bundles are logged, and {bundle.directory} is complete on disk. "
                    "When the server answers, run the same command again."
                ) from error
            bundle.mark_logged(without_password(client.tracking_uri), run_id)
            experiments.add(str(client.get_run(run_id).info.experiment_id))
            on_uploaded(f"{bundle.directory}: {'logged to' if was_missing else 'is already in'} run {run_id}")
        for experiment in experiments:
            update_experiment_page(client, experiment)


def find_bundles(named: str) -> list[Path]:
    """The result directories at a path or pattern and one level below it, oldest first, unfinished ones last.

    Raises:
        BundleError: no result directory was found.
    """
    path = Path(named).expanduser()
    paths = [path] if path.exists() else [Path(name) for name in glob.glob(str(path))]  # noqa: PTH207 - Path.glob takes no absolute pattern
    candidates = {inside for each in paths for inside in (each, *each.glob("*"))}
    found = [each for each in candidates if (each / BUNDLE_FILE).is_file() or (is_partial(each) and each.is_dir())]
    if not found:
        raise BundleError(
            f"bundles={named!r} does not match a result bundle, which is a directory with a {BUNDLE_FILE}."
        )
    return sorted(found, key=lambda each: (is_partial(each), each))


def is_partial(directory: Path) -> bool:
    """Whether a directory has the name of an interrupted or running measurement."""
    return directory.name.endswith(PARTIAL)


def read_bundles(named: str, listener: Listener) -> list[Bundle]:
    """Read the bundles at a path or pattern, and complete measurements that were interrupted after the timed region.

    Raises:
        BundleError: no bundle was found, or one is damaged.
    """
    bundles = []
    for path in (paths := find_bundles(named)):
        if not is_partial(path):
            bundles.append(read_bundle(path))
            continue
        try:
            bundles.append(complete(path, listener))
            listener.info(f"Completed the bundle of {path.name}; it has no audio samples.")
        except BundleError as error:
            listener.info(f"Skipped {path}, which cannot be completed: {error}")
    if not bundles:
        raise BundleError(f"bundles={named!r} matches only {len(paths)} unfinished measurement(s), which were skipped.")
    return bundles


def upload_bundle(client: MlflowClient, bundle: Bundle) -> tuple[str, bool]:
    """Log a bundle to the run that it was measured for, or to a new one.

    Returns:
        The run's id, and False if the run already had the whole bundle, else True.

    Raises:
        TrackingError: the server cannot be reached or refuses; the upload can be repeated.
        BundleError: another process is logging the bundle.
    """
    with locked(bundle.directory), tracking_errors(client, "log the result"):
        run = _run_of(client, bundle)
        logged = run is not None and run.info.status == "FINISHED" and run.data.tags.get(BUNDLE_TAG) == bundle.id
        if logged and not missing_files(client, run.info.run_id, bundle):
            return str(run.info.run_id), False
        if run is not None:
            run_id, tags = str(run.info.run_id), run.data.tags
        else:
            experiment, tags = experiment_id_of(client, bundle.origin.experiment), bundle.origin.tags
            name, started = bundle.contents.name, bundle.contents.started_ms
            run_id = create_run(client, experiment, name, {**tags, BUNDLE_TAG: bundle.id}, started)
        fill_run(client, run_id, bundle)
        if FAILURE in tags:
            client.delete_tag(run_id, FAILURE)
        close_run(client, run_id, "FINISHED", ended_ms=bundle.contents.ended_ms)
    return run_id, True


def _run_of(client: MlflowClient, bundle: Bundle) -> Any:
    """The run that a bundle was measured for or uploaded to; None if it is not on this server."""
    if bundle.origin.run_id is not None:
        with ignore_error("RESOURCE_DOES_NOT_EXIST"):
            run = client.get_run(bundle.origin.run_id)
            if run.info.lifecycle_stage == "active" and run.data.tags.get(BUNDLE_TAG, bundle.id) == bundle.id:
                return run
    experiments = [each.experiment_id for each in search_experiments(client)]
    found = client.search_runs(experiments, f"tags.`{BUNDLE_TAG}` = '{bundle.id}'", max_results=1)
    return found[0] if found else None
