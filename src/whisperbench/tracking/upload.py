"""Upload of result bundles that were not logged after their measurement."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from pathlib import Path

from whisperbench.config.compare import UploadConfig
from whisperbench.errors import BundleError, TrackingError, WhisperbenchError
from whisperbench.processes.signals import signals_raise
from whisperbench.progress import Listener
from whisperbench.results.bundle import BUNDLE_FILE, PARTIAL, Bundle, locked, read_bundle
from whisperbench.results.names import FAILURE
from whisperbench.results.recording import complete
from whisperbench.text import without_password
from whisperbench.tracking.client import Client, connect, search_runs
from whisperbench.tracking.experiment_page import update_experiment_page
from whisperbench.tracking.runs import BUNDLE_TAG, close_run, create_run, experiment_id_of, log_bundle, missing_parts


def upload_bundles(config: UploadConfig, listener: Listener, on_uploaded: Callable[[str], None]) -> None:
    """Log the bundles at a path or pattern; `on_uploaded` is called with a sentence after each.

    An error of one bundle does not affect the others, unless the server does not answer any more.

    Raises:
        BundleError: no bundle was found, or some are damaged.
        TrackingError: the server cannot be reached or refuses; the same command logs the remaining bundles.
    """
    paths = find_bundles(config.bundles)
    client, experiments, errors, done = connect(), set(), list[WhisperbenchError](), 0
    with signals_raise():
        for path in paths:
            try:
                if (bundle := bundle_at(path, listener)) is None:
                    continue
                run_id, was_missing = upload_bundle(client, bundle)
                bundle.mark_logged(without_password(client.tracking_uri), run_id)
                experiments.add(str(client.get_run(run_id).info.experiment_id))
                done += 1
                on_uploaded(f"{bundle.directory}: {'logged to' if was_missing else 'is already in'} run {run_id}")
            except WhisperbenchError as error:
                errors.append(error)
                if isinstance(error, TrackingError) and not answers(client):
                    break
        for experiment in experiments:
            update_experiment_page(client, experiment)
    if errors:
        kind = TrackingError if any(isinstance(error, TrackingError) for error in errors) else BundleError
        reasons = "\n".join(map(str, errors))
        raise kind(f"{reasons}\n{done} of {len(paths)} results are logged. Run the same command again for the others.")
    if not done:
        raise BundleError(f"{config.bundles} holds only {len(paths)} unfinished measurement(s), which were skipped.")


def answers(client: Client) -> bool:
    """Whether the server answers a request."""
    try:
        client.search_experiments(max_results=1)
    except TrackingError:
        return False
    return True


def find_bundles(named: str) -> list[Path]:
    """The result directories at a path or pattern and one level below it, oldest first, unfinished ones last.

    Raises:
        BundleError: no result directory was found.
    """
    # Unlike those of Path, these functions do not raise an error for directories of other users and overlong paths.
    paths = [Path(name) for name in ([named] if os.path.exists(named) else glob.glob(named))]  # noqa: PTH110, PTH207
    candidates = {inside for each in paths for inside in (each, *each.glob("*"))}
    found = [
        each
        for each in candidates
        if os.path.isfile(each / BUNDLE_FILE) or (each.suffix == PARTIAL and os.path.isdir(each))  # noqa: PTH112, PTH113
    ]
    if not found:
        raise BundleError(
            f"bundles={named!r} does not match a result bundle, which is a directory with a {BUNDLE_FILE}."
        )
    return sorted(found, key=lambda each: (each.suffix == PARTIAL, each))


def bundle_at(path: Path, listener: Listener) -> Bundle | None:
    """The bundle in a directory; a measurement that was interrupted after the timed region is completed.

    None if it was interrupted before.

    Raises:
        BundleError: the bundle is damaged.
    """
    if path.suffix != PARTIAL:
        return read_bundle(path)
    try:
        bundle = complete(path, listener)
    except BundleError as error:
        listener.info(f"Skipped {path}, which cannot be completed: {error}")
        return None
    listener.info(f"Completed the bundle of {path.name}; it has no audio samples.")
    return bundle


def upload_bundle(client: Client, bundle: Bundle) -> tuple[str, bool]:
    """Log a bundle to the run that it was measured for or uploaded to, which has its tag, or else to a new one.

    Returns:
        The run's id, and False if the run already had the whole bundle, else True.

    Raises:
        BundleError: another process is logging the bundle.
    """
    with locked(bundle.directory):
        found = search_runs(client, f"tags.`{BUNDLE_TAG}` = '{bundle.id}'")
        if found:
            run_id, tags = str(found[0].info.run_id), found[0].data.tags
            if found[0].info.status == "FINISHED" and not missing_parts(client, run_id, bundle):
                return run_id, False
        else:
            experiment, tags = experiment_id_of(client, bundle.origin.experiment), bundle.origin.tags
            # The run that it was measured for may have had a name of its own, which MLflow requires here too.
            name, started = tags.get("mlflow.runName", bundle.contents.name), bundle.contents.started_ms
            run_id = create_run(client, experiment, name, {**tags, BUNDLE_TAG: bundle.id}, started)
        log_bundle(client, run_id, bundle)
        if FAILURE in tags:
            client.delete_tag(run_id, FAILURE)
        close_run(client, run_id, "FINISHED", ended_ms=bundle.contents.ended_ms)
    return run_id, True
