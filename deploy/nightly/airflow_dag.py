"""Runs a night with Airflow's operator for Beam. Copy this file into the DAGs directory and change the names below.

It needs apache-airflow-providers-apache-beam and, for every runner, apache-airflow-providers-google: without it the
operator cannot be created. Tried with Airflow 3.3. beamlabel has its own environment because its versions differ.
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

# Too many failures, or wrong usage: a retry would end the same way.
FINAL_EXIT_CODES = (1, 2)


class LabelImages(BeamRunPythonPipelineOperator):
    """Runs ``python -m beamlabel``; fails without a retry if beamlabel's exit code shows that a retry is useless.

    All other codes are retried. After 3 (the job failed) and 4 (the time limit was reached), the next try resumes.
    After 75 (another run holds the lock), that run has ended by the next try, or its lock is stale.
    """

    def execute(self, context: Any) -> Any:
        try:
            return super().execute(context)
        except AirflowException as error:
            # The operator reports the exit code only in its message.
            code = re.search(r"return code (-?\d+)", str(error))
            if code and int(code[1]) in FINAL_EXIT_CODES:
                raise AirflowFailException(
                    f"beamlabel ended with {code[1]}; see the log for the cause"
                ) from error
            raise


with DAG(
    dag_id="beamlabel_nightly",
    description="Labels new photographs",
    # Each tick is a run; `ds` is its date.
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1),
    catchup=False,
    # Two nights at once would both label the new images.
    max_active_runs=1,
):
    LabelImages(
        task_id="label",
        # Runs `PYTHON -m beamlabel --runner=… --input=… …`.
        py_interpreter=PYTHON,
        py_options=["-m"],
        py_file="beamlabel",
        # Uses the Airflow worker's own cores. For "FlinkRunner", add the options of docs/flink.md. With
        # "DataflowRunner" the operator leaves the launcher as soon as it has seen the job's id, and waits for the job
        # itself: add a task after this one that runs `beamlabel publish`.
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
            # Not `execution_timeout`, which would kill a run instead of publishing its finished units.
            "time_limit": "6h",
        },
        retries=3,
        retry_delay=timedelta(minutes=10),
        # Sent after the last try, through Airflow's connection `smtp_default`.
        on_failure_callback=[
            send_smtp_notification(
                from_email=ALERTS_FROM,
                to=ALERTS_TO,
                subject="beamlabel: {{ ds }} failed",
                html_content="{{ exception }}<br><a href='{{ ti.log_url }}'>log</a>",
            )
        ],
    )
