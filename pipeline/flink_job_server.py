"""How Flink's job server is started, where Beam starts it for us."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipeline.flink_rest import ask, cluster_url

_LOGGER = logging.getLogger("beamlabel")
# As Flink is delivered it restarts no batch job: a lost TaskManager would be the end of it. Until Flink knows that one
# is lost, which may take 50 seconds, every try fails at once.
_ATTEMPTS, _DELAY = 6, "10 s"
_CONFIGURATION = f"""restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: {_ATTEMPTS}
restart-strategy.fixed-delay.delay: {_DELAY}
"""
# In a process group of its own: a terminal sends Ctrl-C to all processes of a group, and the server would be gone
# before it could be told to cancel the job.
_START = (
    "import os, sys; os.setpgid(0, 0); "
    "os.environ.update([sys.argv[1].split('=', 1)] if sys.argv[1] else []); os.execvp(sys.argv[2], sys.argv[2:])"
)


def start_our_way(options: Any, master: str) -> None:
    """Sets how the server is started: out of reach of Ctrl-C, and with retries for jobs if its cluster has none.

    Args:
      options: Beam's ``JobServerOptions``, which are changed.
      master: as ``--flink_master`` names the cluster.
    """
    if not hasattr(os, "setpgid"):
        return
    java = [options.job_server_java_launcher, *options.job_server_jvm_properties]
    configuration = _configuration(cluster_url(master))
    options.job_server_java_launcher = sys.executable
    options.job_server_jvm_properties = [
        "-c",
        _START,
        f"FLINK_CONF_DIR={configuration}" if configuration else "",
        *java,
    ]


def _configuration(url: str) -> str:
    """A folder with Flink's configuration of a job, which Beam's batch jobs take from nowhere else; empty: none."""
    if not url or os.environ.get("FLINK_CONF_DIR") or _restarts(url):
        return ""
    folder = tempfile.mkdtemp(prefix="beamlabel-flink-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Path(folder, "config.yaml").write_text(_CONFIGURATION)
    _LOGGER.info(
        "%s has no restart strategy: this job is restarted up to %d times, after %s", url, _ATTEMPTS, _DELAY
    )
    return folder


def _restarts(url: str) -> bool:
    """Whether the cluster's configuration says something of restarts; where it does not tell, it does."""
    config = ask(url, "jobmanager/config")
    return config is None or any(entry["key"].startswith("restart-strategy") for entry in config)
