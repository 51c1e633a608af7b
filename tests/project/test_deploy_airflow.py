"""``deploy/nightly/airflow_dag.py`` in a real Airflow, which ``tools/setup_airflow.sh`` installs separately."""

import json
import os
import socketserver
import subprocess
import sys
import threading
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

import support.nightly_deployment as deployment
from beamlabel.pipeline.options.parser import parse
from support import needs
from support.jobs import TINY, FinishedJob, photos
from support.nightly_deployment import ROOT

PYTHON = ROOT / ".runners" / "airflow" / "bin" / "python"
DAY = "2026-11-23"

# Prints the DAG that Airflow reads from the file, and the end of its task for each exit code.
PROBE = """
import json, os, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
assert not bag.import_errors, bag.import_errors
(dag,) = bag.dags.values()
dag.validate()
read = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
(task,) = dag.tasks

def end(code):
    os.environ["CODE"] = str(code)
    try:
        task.execute({})
    except Exception as error:
        return type(error).__name__
    return None

task.render_template_fields({"ds": sys.argv[1]})
ends = {code: end(code) for code in map(int, sys.argv[2:])}
print("PROBE", json.dumps({
    "timetable": read.timetable.summary, "ends": ends,
    "dag": {name: getattr(dag, name) for name in ("dag_id", "catchup", "max_active_runs")},
    "retries": task.retries, "retry_minutes": task.retry_delay.total_seconds() / 60,
    "alerts": [type(callback).__name__ for callback in task.on_failure_callback],
}))
"""
# A stand-in for beamlabel's Python.
STANDIN = f"""#!{sys.executable} -S
import json, os, sys
if sys.argv[1] == "-c":
    print("2.77.0")
    sys.exit()
with open(__file__ + ".log", "a") as log:
    print(json.dumps(sys.argv[1:]), file=log)
sys.exit(int(os.environ["CODE"]))
"""


class Airflow:
    """An Airflow with its own database and the DAG in its directory."""

    def __init__(self, home: Path) -> None:
        if not PYTHON.exists():
            needs.lacking("no Airflow; tools/setup_airflow.sh installs it")
        self.dags = home / "dags"
        self.dags.mkdir()
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "BEAMLABEL_CACHE": os.environ["BEAMLABEL_CACHE"],
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        self.run("-m", "airflow", "db", "migrate")

    def write(self, python: str | Path, **instead: object) -> None:
        content = deployment.text("airflow_dag.py", **instead)
        here = f"{deployment.HOME}/.venv/bin/python"
        assert here in content
        (self.dags / "airflow_dag.py").write_text(content.replace(here, str(python)))

    def run(self, *arguments: str, code: int = 0, **environment: str) -> str:
        done = subprocess.run(
            [PYTHON, *arguments], capture_output=True, text=True, timeout=300, env=self._environment | environment
        )  # fmt: skip
        assert done.returncode == code, done.stdout[-5000:] + done.stderr[-5000:]
        return done.stdout + done.stderr

    def test_dag(self, **options: Any) -> str:
        return self.run("-m", "airflow", "dags", "test", "beamlabel_nightly", DAY, **options)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    return Airflow(tmp_path_factory.mktemp("airflow"))


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    path = tmp_path_factory.mktemp("standin") / "python"
    path.write_text(STANDIN)
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def facts(airflow, standin):
    airflow.write(standin)
    printed = airflow.run("-c", PROBE, DAY, *map(str, (0, 1, 2, 3, 4, 75, 143)))
    (line,) = [line for line in printed.splitlines() if line.startswith("PROBE ")]
    return json.loads(line.removeprefix("PROBE "))


def told(standin):
    """The arguments of each run of the stand-in."""
    return [json.loads(line) for line in Path(f"{standin}.log").read_text().splitlines()]


def test_airflow_takes_the_dag(facts):
    assert facts["timetable"] == "0 2 * * *"
    assert facts["dag"] == {"dag_id": "beamlabel_nightly", "catchup": False, "max_active_runs": 1}
    assert facts["retries"] == 3
    # The lock of an ended run is stale by then.
    assert facts["retry_minutes"] > 5
    assert facts["alerts"] == ["SmtpNotifier"]


def test_the_command_is_the_jobs(facts, standin):
    module, name, *arguments = told(standin)[0]
    assert [module, name] == ["-m", "beamlabel"]
    options, runner_args = parse(arguments)
    assert options.run.run_date == DAY and options.output.output == f"gs://BUCKET/labels/dt={DAY}"
    runner, label = runner_args
    assert runner == "--runner=DirectRunner" and label.startswith("--label=airflow-version=")
    same, _ = parse([*deployment.arguments("cronjob.yaml"), "--run_date", DAY])
    assert options == same


def test_only_promising_errors_are_tried_again(facts):
    ends = {int(code): end for code, end in facts["ends"].items()}
    assert ends == {
        0: None, 1: "AirflowFailException", 2: "AirflowFailException",
        3: "AirflowException", 4: "AirflowException", 75: "AirflowException", 143: "AirflowException",
    }  # fmt: skip


def test_a_night(airflow, tmp_path):
    photos(tmp_path / "photos", 4)
    airflow.write(sys.executable, BUCKET=tmp_path, MODULE=TINY)
    assert "4 input = 4 predicted + 0 failed + 0 skipped" in airflow.test_dag()
    job = FinishedJob(0, tmp_path / "labels" / f"dt={DAY}")
    assert job.succeeded
    assert job.manifest["rows"]["predicted"] == 4


class _Smtp(socketserver.StreamRequestHandler):
    """An SMTP server that accepts all mail."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                mail = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.mails.append(message_from_bytes(mail, policy=default))
            self.wfile.write(b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 fine\r\n")


@pytest.mark.long
def test_a_bad_night_is_not_tried_again_and_a_mail_tells(airflow, standin):
    airflow.write(standin)
    Path(f"{standin}.log").unlink(missing_ok=True)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Smtp) as server:
        server.mails = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host, port = server.server_address
        connection = {"conn_type": "smtp", "host": host, "port": port}
        connection["extra"] = {"disable_ssl": True, "disable_tls": True}
        log = airflow.test_dag(code=1, CODE="1", AIRFLOW_CONN_SMTP_DEFAULT=json.dumps(connection))
        server.shutdown()
    assert len(told(standin)) == 1
    assert "new_state=failed" in log
    (mail,) = server.mails
    assert mail["Subject"] == f"beamlabel: {DAY} failed"
    assert "beamlabel ended with 1" in mail.get_body(["html"]).get_content()
