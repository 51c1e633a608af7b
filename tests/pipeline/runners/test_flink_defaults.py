"""The launcher's defaults for other clusters: other versions, remote TaskManagers, no restarts.

``test_flink.py`` uses a real cluster; these answers are its answers with changes.
"""

import json
import logging
from typing import Any

import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.runners.choose import choose
from beamlabel.pipeline.runners.flink_defaults import flink_defaults
from support.servers import FileServer

RESTARTS = [{"key": "restart-strategy.type", "value": "fixed-delay"}]


def added(
    server: FileServer, *more: str, restarts: Any = RESTARTS, host: str = "10.0.0.7", **overview: Any
) -> list[str]:
    facts = {"taskmanagers": 1, "slots-total": 4, "slots-available": 3, "flink-version": "1.19.3", **overview}
    answers = {
        "/overview": facts,
        "/jobmanager/config": restarts,
        "/taskmanagers": {
            "taskmanagers": [{"path": f"pekko.tcp://flink@{host}:40001/user/rpc/taskmanager_0"}]
        },
    }
    server.files.update({path: json.dumps(answer).encode() for path, answer in answers.items()})
    typed = ["--runner=FlinkRunner", f"--flink_master={server.url}", *more]
    return flink_defaults(choose(typed), typed)


def test_free_slots_or_all(http_server: FileServer) -> None:
    assert added(http_server) == ["--parallelism", "3", "--flink_version", "1.19"]
    assert added(http_server, **{"slots-available": 0})[:2] == ["--parallelism", "4"]
    none_yet = {"slots-available": 0, "slots-total": 0}
    assert added(http_server, **none_yet) == ["--flink_version", "1.19"]


def test_a_version_that_beam_has_no_job_server_for(http_server: FileServer) -> None:
    version = {"flink-version": "1.15.4"}
    with pytest.raises(UsageError, match=r"is Flink 1\.15\.4, but this Beam has job servers for 1\.19"):
        added(http_server, **version)
    assert "--flink_version" not in added(http_server, "--flink_job_server_jar=mine.jar", **version)


def test_processes_are_started_where_all_task_managers_are_here(http_server: FileServer) -> None:
    assert "PROCESS" not in added(http_server, host="10.0.0.7")
    assert "PROCESS" in added(http_server, host="localhost")
    assert "PROCESS" not in added(http_server, "--environment_config=registry.example/i:1", host="localhost")


def test_no_restarts_are_warned_of(http_server: FileServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        added(http_server)
        assert not caplog.messages
        added(http_server, restarts=[])
    assert "has no restart-strategy" in caplog.text


def test_a_cluster_that_does_not_answer_is_left_to_the_check(http_server: FileServer) -> None:
    typed = ["--runner=FlinkRunner", f"--flink_master={http_server.url}"]
    assert flink_defaults(choose(typed), typed) == []
