"""Logging result bundles that could not be logged when they were measured: which ones, and to which runs."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisperbench.config.compare import UploadConfig
from whisperbench.errors import BundleError, TrackingError
from whisperbench.processes.signals import signals_raise
from whisperbench.processes.watch import RUN_ID
from whisperbench.progress import Listener
from whisperbench.results.bundle import CONTENTS, PARTIAL, Bundle, read_bundle
from whisperbench.results.names import FAILURE, KIND
from whisperbench.results.recording import complete
from whisperbench.text import without_password
from whisperbench.tracking.client import connect, search_experiments, tracking_errors
from whisperbench.tracking.experiment_page import update_experiment_page
from whisperbench.tracking.runs import BUNDLE_TAG, close_run, create_run, fill_within_limits, not_arrived
from whisperbench.tracking.tracked_run import tracked_run

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclasses.dataclass(frozen=True, slots=True)
class Uploaded:
    """A bundle that a run holds; `was_missing` is false where that run had it before."""

    directory: Path
    run_id: str
    was_missing: bool

    def __str__(self) -> str:
        return f"{self.directory}: {'logged to' if self.was_missing else 'is already in'} run {self.run_id}"


def upload_bundles(config: UploadConfig, listener: Listener, on_uploaded: Callable[[Uploaded], None]) -> None:
    """Log each bundle that was asked for; `on_uploaded` is called as each is on the server.

    Raises:
        BundleError: nothing is named, or one is damaged: then nothing is sent.
        TrackingError: the server went away; the same call goes on from there.
    """
    found = find_bundles(config.bundles)
    bundles = [read_bundle(path) for path in found.bundles]
    for path in found.partial:
        try:
            bundles.append(complete(path, listener))
            listener.said(f"completed {path.name}: measured to its end, but not written; its samples are left out")
        except BundleError as error:
            listener.said(f"not a result, cut off while it was measured: {path} ({error})")
    if not bundles:
        cut_off = f"{len(found.partial)} measurement(s) there were cut off and hold no result"
        raise BundleError(f"bundles={config.bundles!r} names no result bundle: {cut_off}.")
    client = connect()
    experiments = set()
    with _run_of_the_project(client):
        for done, each in enumerate(bundles):
            try:
                run_id, was_missing = upload_bundle(client, each)
            except TrackingError as error:
                raise TrackingError(
                    f"{error} {done} of {len(bundles)} bundles are logged; {each.directory} is safe on disk. "
                    "Run the same command again."
                ) from error
            each.mark_logged(without_password(client.tracking_uri), run_id)
            experiments.add(str(client.get_run(run_id).info.experiment_id))
            on_uploaded(Uploaded(each.directory, run_id, was_missing))
        for experiment in experiments:
            update_experiment_page(client, experiment)


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """Bundles to log, and measurements among them that were cut off, perhaps only while they were written."""

    bundles: tuple[Path, ...]
    partial: tuple[Path, ...]


def find_bundles(wanted: str) -> Found:
    """The bundles that a path or a pattern names, oldest first.

    Raises:
        BundleError: it names none.
    """
    path = Path(wanted).expanduser()
    named = [path] if path.exists() else [Path(name) for name in glob.glob(str(path))]  # noqa: PTH207 - Path.glob takes no absolute pattern
    candidates = {inside for each in named for inside in (each, *each.glob("*"))}
    bundles = sorted(each for each in candidates if (each / CONTENTS).is_file() and not each.name.endswith(PARTIAL))
    partial = sorted(each for each in candidates if each.is_dir() and each.name.endswith(PARTIAL))
    if not bundles and not partial:
        raise BundleError(
            f"bundles={wanted!r} names no result bundle: none of {len(named)} path(s) holds a {CONTENTS}."
        )
    return Found(tuple(bundles), tuple(partial))


def upload_bundle(client: MlflowClient, bundle: Bundle) -> tuple[str, bool]:
    """Log a bundle to the run it was measured for, or to a new one; (run id, whether there was anything to do).

    Raises:
        TrackingError: the server went away or refused; the same upload may simply be tried again.
        BundleError: another process is logging it.
    """
    with bundle.locked(), tracking_errors(client, "did not take the result"):
        run = _run_of(client, bundle)
        logged = run is not None and run.info.status == "FINISHED" and run.data.tags.get(BUNDLE_TAG) == bundle.id
        if logged and not not_arrived(client, run.info.run_id, bundle):
            return str(run.info.run_id), False
        if run is not None:
            run_id, tags = str(run.info.run_id), run.data.tags
        else:
            tags = {**bundle.origin.tags, BUNDLE_TAG: bundle.id}
            name, started = bundle.contents.name, bundle.contents.started_ms
            run_id = create_run(client, bundle.origin.experiment, name, tags, started)
        fill_within_limits(client, run_id, bundle)
        if FAILURE in tags:
            client.delete_tag(run_id, FAILURE)
        close_run(client, run_id, "FINISHED", ended_ms=bundle.contents.ended_ms)
    return run_id, True


@contextlib.contextmanager
def _run_of_the_project(client: MlflowClient) -> Iterator[None]:
    """`mlflow run` opens a run for the command itself: name it for what it is; otherwise open none."""
    if RUN_ID in os.environ:
        with tracked_run(client, "upload", {KIND: "upload"}):
            yield
    else:
        with signals_raise():
            yield


def _run_of(client: MlflowClient, bundle: Bundle) -> Any:
    """The run that a bundle was measured for, or was uploaded to before; None where there is none on this server."""
    from mlflow.exceptions import MlflowException

    if bundle.origin.run_id is not None:
        try:
            run = client.get_run(bundle.origin.run_id)
            if run.info.lifecycle_stage == "active" and run.data.tags.get(BUNDLE_TAG, bundle.id) == bundle.id:
                return run
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    experiments = [e.experiment_id for e in search_experiments(client)]
    found = client.search_runs(experiments, f"tags.`{BUNDLE_TAG}` = '{bundle.id}'", max_results=1)
    return found[0] if found else None
