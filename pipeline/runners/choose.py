"""Chooses one of Beam's runners for the job, with its properties before the submission."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import (
    DirectOptions,
    FlinkRunnerOptions,
    GoogleCloudOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    StandardOptions,
    TestOptions,
)
from apache_beam.transforms.resources import resource_hints_from_options

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.graph import LABELING_STEP
from beamlabel.pipeline.runners.own_group import in_own_group
from beamlabel.pipeline.runners.processes.count import Need, worker_processes
from beamlabel.transforms.storage import beam_setup
from beamlabel.transforms.worker.cpu import available_cores
from beamlabel.transforms.worker.memory import available_memory

LOCAL, DATAFLOW, FLINK, PORTABLE, PRISM, OTHER = "local", "dataflow", "flink", "portable", "prism", "other"
_KINDS = {
    "": LOCAL,
    "direct": LOCAL,
    "directrunner": LOCAL,
    "fnapirunner": LOCAL,
    "dataflowrunner": DATAFLOW,
    "flinkrunner": FLINK,
    "portablerunner": PORTABLE,
    "prismrunner": PRISM,
}
# These have only Beam's own options. The others have job servers, whose options Beam may not know.
_WITHOUT_OPTIONS_OF_THEIR_OWN = (LOCAL, PRISM, DATAFLOW)
# Beam's options that worker processes of a local run need, besides those of file systems.
_OF_PROCESSES = ("beam_plugins", "sdk_harness_log_level_overrides")
# How like a known option an unknown one has to be for a suggestion, 0 to 1.
_CLOSE = 0.8
_ATTACHED = ("--attached_mode", "--attachedMode")


@dataclass(frozen=True)
class Runner:
    """A runner with its options.

    Attributes:
      kind: one of the constants above.
      name: as the user gave it; empty if not given.
      options: Beam's.
      detached: the reason why the job is not finished after its submission; empty if it is.
      worker_processes: number of processes that a local run starts; 1: this process does the work.
    """

    kind: str
    name: str
    options: PipelineOptions
    detached: str
    worker_processes: int = 1

    @property
    def is_local(self) -> bool:
        """Whether the job runs in this process, and ``Pipeline.run`` returns at its end."""
        return self.kind == LOCAL

    @property
    def starts_later(self) -> bool:
        """Whether the submission only writes a file, from which the job is started later."""
        template = self.options.view_as(GoogleCloudOptions).template_location
        return bool(template or self.options.view_as(PortableOptions).output_executable_path)

    @property
    def works_in_this_process(self) -> bool:
        """Whether the workers are threads of this process."""
        mode = self.options.view_as(DirectOptions).direct_running_mode
        return self.is_local and self.worker_processes == 1 and mode != "multi_processing"

    @property
    def has_workers_of_beam(self) -> bool:
        """Whether Beam's own options set the number of threads or processes of the local runner."""
        direct = self.options.view_as(DirectOptions)
        return direct.direct_running_mode != "in_memory" or direct.direct_num_workers != 1

    def make(self) -> Any:
        """The runner for ``beam.Pipeline``; ``DirectRunner`` by name would first try to download Prism."""
        if self.kind == LOCAL and self.worker_processes > 1:
            return self._with_processes()
        if self.kind == LOCAL:
            from apache_beam.runners.portability.fn_api_runner import FnApiRunner

            return FnApiRunner(provision_info=_provision(self.options))
        if self.kind == PRISM:
            from beamlabel.pipeline.runners.prism import SteadyPrismRunner

            return SteadyPrismRunner()
        return self.name

    def _with_processes(self) -> Any:
        from beamlabel.pipeline.runners.processes.pool import Pool
        from beamlabel.pipeline.runners.processes.process import shares
        from beamlabel.pipeline.runners.processes.runner import ProcessesRunner

        found = self.options.get_all_options()
        options = {name: found[name] for name in (*beam_setup.OPTIONS, *_OF_PROCESSES) if found[name]}
        script = str(Path(__file__).with_name("local_worker.py"))
        pool = Pool(
            script,
            shares(available_cores(), self.worker_processes),
            {**options, "default_sdk_harness_log_level": "WARNING"},
        )
        return ProcessesRunner(pool, LABELING_STEP, _provision(self.options))


def _provision(options: PipelineOptions) -> Any:
    """The provision info of Beam's in-memory runner for worker processes, which by default has no options.

    The workers need the options of file systems.
    """
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo

    found = options.get_all_options()
    values = {f"beam:option:{name}:v1": found[name] for name in beam_setup.OPTIONS if found[name]}
    info = beam_provision_api_pb2.ProvisionInfo(retrieval_token="unused-retrieval-token")  # as Beam's own
    info.pipeline_options.update(values)
    return ExtendedProvisionInfo(info)


def choose(runner_args: Sequence[str]) -> Runner:
    """The runner that Beam's options name; by default Beam's in-memory runner in this process.

    Raises:
      UsageError: an option is unknown to the job and to Beam, and the runner has none of its own; Beam refuses a value;
        or a resource hint is unknown to Beam.
    """
    options = PipelineOptions(list(runner_args))
    _check_values(options)
    name = options.view_as(StandardOptions).runner or ""
    kind = _KINDS.get(name.rpartition(".")[2].lower(), OTHER)
    if kind in (FLINK, PORTABLE):
        runner_args = _spelt_for_job_server(runner_args, options)
        options = PipelineOptions(runner_args)
    if kind in _WITHOUT_OPTIONS_OF_THEIR_OWN:
        _check_all_known(runner_args, options)
    try:
        resource_hints_from_options(options)
    except ValueError as error:
        raise UsageError(f"--resource_hints: {error}") from error
    return Runner(kind, name, options, _detached(runner_args, options))


def worker_threads(runner: Runner) -> int | None:
    """A worker process's share of this machine's cores if several run here; None if it is alone.

    The number of workers that a remote runner starts on a host is unknown; set ``--worker_threads`` for it.
    """
    direct = runner.options.view_as(DirectOptions)
    if not runner.is_local or direct.direct_running_mode != "multi_processing":
        return None
    cores = available_cores()
    # For 0, Beam starts one per processor of the machine.
    workers = direct.direct_num_workers or os.cpu_count() or 1
    return max(1, cores // workers)


def check_processes(runner: Runner, wanted: int | None) -> None:
    """Refuses ``--worker_processes`` for a runner that starts its workers by other options, or elsewhere.

    Raises:
      UsageError: the option does not apply to the runner.
    """
    if wanted is not None and not runner.is_local:
        raise UsageError(
            f"--worker_processes {wanted} is only for runs on this machine, not for {runner.name}"
        )
    if wanted is not None and runner.has_workers_of_beam:
        raise UsageError(
            f"--worker_processes {wanted} conflicts with Beam's --direct_running_mode and --direct_num_workers"
        )


def with_processes(runner: Runner, wanted: int | None, threads: int | None, need: Need) -> Runner:
    """The runner with its number of worker processes, see ``count.worker_processes``."""
    if not runner.is_local or runner.has_workers_of_beam:
        return runner
    count = worker_processes(wanted, available_cores(), threads, available_memory(), need)
    return dataclasses.replace(runner, worker_processes=count)


def prepare_options(runner: Runner, run_id: str) -> None:
    """Completes Beam's options for one run.

    Args:
      runner: whose ``options`` are changed.
      run_id: of this run; names the job, unless the user does.
    """
    cloud = runner.options.view_as(GoogleCloudOptions)
    if not runner.is_local and not cloud.job_name:
        cloud.job_name = f"beamlabel-{run_id.lower()}"
    setup = runner.options.view_as(SetupOptions)
    if setup.setup_file:
        # Beam changes to the file's directory, which the bare name "setup.py" lacks.
        setup.setup_file = os.path.abspath(setup.setup_file)  # noqa: PTH100 (symbolic links stay)
    if setup.save_main_session is None:
        setup.save_main_session = False  # nothing that a worker unpickles is defined in __main__
    if runner.kind == FLINK:
        _keep_job_server_from_signals(runner.options.view_as(JobServerOptions))


def _keep_job_server_from_signals(options: JobServerOptions) -> None:
    java = [options.job_server_java_launcher, *options.job_server_jvm_properties]
    options.job_server_java_launcher, *options.job_server_jvm_properties = in_own_group(java)


def _check_values(options: PipelineOptions) -> None:
    """Raises a ``UsageError`` of one line if Beam refuses a value; Beam would print its whole usage and exit."""
    printed, log = io.StringIO(), logging.getLogger("apache_beam.options.pipeline_options")
    was_disabled, log.disabled = log.disabled, True  # later calls warn about unknown options
    try:
        with contextlib.redirect_stderr(printed):
            options.get_all_options()
    except SystemExit as error:
        raise UsageError(printed.getvalue().strip().rpartition("error: ")[2]) from error
    finally:
        log.disabled = was_disabled


def _check_all_known(runner_args: Sequence[str], options: PipelineOptions) -> None:
    # Options are listed by the names of their values. This one has a second name, which Airflow's operator passes.
    known = {*options.get_all_options(), "label"}
    for argument in runner_args:
        option = argument.split("=", 1)[0]
        if option.startswith("--") and option[2:] not in known and f"no_{option[2:]}" not in known:
            close = difflib.get_close_matches(option[2:], known, n=1, cutoff=_CLOSE)
            hint = f"; did you mean --{close[0]}?" if close else ""
            raise UsageError(f"{option} is not an option of beamlabel or Beam{hint}")


def _spelt_for_job_server(words: Sequence[str], options: PipelineOptions) -> list[str]:
    """Rewrites ``--attached_mode false`` for Beam's Python side.

    Beam turns a boolean option of a job server into a flag, which takes no value and inverts the default.
    """
    if options.view_as(FlinkRunnerOptions).flink_submit_uber_jar:
        return list(words)
    spelt: list[str] = []
    left = list(words)
    while left:
        name, _, value = left[0].partition("=")
        word = left.pop(0)
        if name in _ATTACHED:
            if not value and left and left[0].lower() in ("true", "false"):
                value = left.pop(0)
            word = "" if value.lower() == "true" else _ATTACHED[0]
        spelt += [word] if word else []
    return spelt


def _detached(runner_args: Sequence[str], options: PipelineOptions) -> str:
    if template := options.view_as(GoogleCloudOptions).template_location:
        return f"--template_location: {template} holds the job, to be started from there"
    if options.view_as(TestOptions).dry_run:
        return "--dry_run: nothing was submitted"
    if jar := options.view_as(PortableOptions).output_executable_path:
        return f"--output_executable_path: {jar} holds the job, to be started from there"
    # An option of Flink's job server; Beam's Python side passes it on.
    if any(argument.split("=", 1)[0] in _ATTACHED for argument in runner_args):
        return "--attached_mode: the job runs on its own"
    return ""
