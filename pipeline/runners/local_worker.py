"""A worker process of a local run, started as a file by ``processes.process``: one of Beam's Python workers.

It reads two lines of JSON from its standard input: first the launcher's ``path`` for imports, the launcher's process id
and this worker's share of the cores; then, when the launcher's pipeline runs, Beam's ``control`` address, ``worker_id``
and ``options``. Between the two, it does the slow imports.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from typing import Any, NoReturn


def main() -> NoReturn:
    """Works until the launcher closes the connection or ends."""
    # A terminal or a service manager sends these to all processes of a group. Only the launcher handles them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    told = _told()
    sys.path[:] = told["path"]  # replaces this file's directory

    from beamlabel.pipeline.runners.worker_boot import die_with_parent
    from beamlabel.transforms.secrets.logs import make_all_records_public
    from beamlabel.transforms.secrets.say import say

    die_with_parent()
    if os.getppid() != told["launcher"]:
        os._exit(1)  # the launcher ended before this process could watch it
    make_all_records_public()
    code = 1
    try:
        _work(told["cores"])
        code = 0
    except Exception as error:
        say(f"a worker process: {type(error).__name__}: {error}")
    # `sys.exit` would wait for threads.
    os._exit(code)


def _told() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        os._exit(1)  # the launcher has ended
    value: dict[str, Any] = json.loads(line)
    return value


def _work(cores: int) -> None:
    from beamlabel.pipeline.process.exit import set_up_logging
    from beamlabel.pipeline.runners.import_beam import leave_out_connectors
    from beamlabel.transforms.worker.cpu import use_share
    from beamlabel.transforms.worker.native_stderr import leave_native_lines

    use_share(cores)
    leave_native_lines()
    set_up_logging()
    leave_out_connectors([])
    import apache_beam  # noqa: F401 (while the launcher does other things)

    # The modules of the job's functions are imported now, not with the first unit.
    import beamlabel.transforms.label_images
    import beamlabel.transforms.writing.write_unit  # noqa: F401

    worker = _told()
    os.environ["WORKER_ID"] = worker["worker_id"]  # read by modules of Beam as they are imported
    from apache_beam.portability.api import endpoints_pb2
    from apache_beam.runners.worker import sdk_worker, sdk_worker_main
    from google.protobuf import text_format

    from beamlabel.transforms.deadline.watchdog import watch_worker

    watch_worker()
    # The launcher gets the traceback of a failed bundle and shows it, so this worker need not print and log it.
    sdk_worker.print = lambda *_, **__: None  # type: ignore[attr-defined]
    logging.getLogger(sdk_worker.__name__).setLevel(logging.CRITICAL)
    control = endpoints_pb2.ApiServiceDescriptor(url=worker["control"])
    environment = {
        "PIPELINE_OPTIONS": json.dumps({"options": worker["options"]}),
        "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
        "WORKER_ID": worker["worker_id"],
        "RUNNER_CAPABILITIES": worker["capabilities"],
    }
    _, harness, _ = sdk_worker_main.create_harness(environment)
    harness.run()


if __name__ == "__main__":
    main()
