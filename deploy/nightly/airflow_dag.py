"""A night's run by Airflow's operator for Beam. To copy into the DAGs' folder, with the names below changed.

Needs apache-airflow-providers-apache-beam and, whatever the runner, apache-airflow-providers-google, without which the
operator cannot be made. Tried with Airflow 3.3. beamlabel has an environment of its own, since its versions differ.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.apache.beam.operators.beam import BeamRunPythonPipelineOperator
from airflow.providers.smtp.notifications.smtp import send_smtp_notification
from airflow.sdk import DAG, CronTriggerTimetable
from airflow.sdk.exceptions import AirflowException, AirflowFailException

PYTHON = "/opt/beamlabel/.venv/bin/python"
BUCKET = "gs://BUCKET"
ALERTS_FROM, ALERTS_TO = "airflow@example.com", ["ops@example.com"]

# Too many failures, wrong usage: the same again would end the same.
FINAL_EXIT_CODES = (1, 2)


class LabelImages(BeamRunPythonPipelineOperator):
    """Runs ``python -m beamlabel``; fails for good where beamlabel's exit code says that a retry is of no use.

    All others are retried: 3 (it broke) and 4 (its time was over) go on with what is done, and after 75 (another run is
    at work) that one has ended, or its lock is stale.
    """

    def execute(self, context: Any) -> Any:
        try:
            return super().execute(context)
        except AirflowException as error:
            # The operator tells the exit code in its message only.
            code = re.search(r"return code (-?\d+)", str(error))
            if code and int(code[1]) in FINAL_EXIT_CODES:
                raise AirflowFailException(f"beamlabel ended with {code[1]}; the log says why") from error
            raise


with DAG(
    dag_id="beamlabel_nightly",
    description="Labels the photographs that are new",
    # Each tick is a run, and `ds` is its day.
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1),
    catchup=False,
    # Two nights at a time would both label what is new.
    max_active_runs=1,
):
    LabelImages(
        task_id="label",
        # Comes to `PYTHON -m beamlabel --runner=… --input=… …`.
        py_interpreter=PYTHON,
        py_options=["-m"],
        py_file="beamlabel",
        # On the Airflow worker's own cores; for "FlinkRunner", add what docs/flink.md says to the options. With
        # "DataflowRunner" the operator leaves the launcher as soon as it has seen the job's id, and waits for the job
        # itself: have a task after this one run `beamlabel publish`.
        runner="DirectRunner",
        deferrable=False,
        pipeline_options={
            "input": f"{BUCKET}/photos/",
            "input_format": "images",
            "module": "https://tfhub.dev/google/imagenet/mobilenet_v2_075_160/classification/1",
            "output": f"{BUCKET}/labels/dt={{date}}",
            "run_date": "{{ ds }}",
            "skip_labeled": [f"{BUCKET}/labels/dt=*/", f"{BUCKET}/retried/dt=*/"],
            "changed": True,
            "tombstones": True,
            "report": True,
            "if_exists": "resume",
            # Not `execution_timeout`, which would kill a run instead of publishing what it has done.
            "time_limit": "6h",
        },
        retries=3,
        retry_delay=timedelta(minutes=10),
        # After the last try; of Airflow's connection `smtp_default`.
        on_failure_callback=[
            send_smtp_notification(
                from_email=ALERTS_FROM,
                to=ALERTS_TO,
                subject="beamlabel: {{ ds }} failed",
                html_content="{{ exception }}<br><a href='{{ ti.log_url }}'>log</a>",
            )
        ],
    )
