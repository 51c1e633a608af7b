"""``deploy/nightly/`` is valid for Kubernetes, Prometheus, systemd and cron, and the job's arguments are correct.

``test_deploy_airflow.py`` tests the DAG, ``test_label_script.py`` the script. No file is applied or installed.
"""

import os
import re
import shutil
import subprocess
from datetime import datetime, timezone

import kubernetes_validate
import pytest
import yaml

import support.nightly_deployment as deployment
from beamlabel import __version__
from beamlabel.pipeline.options.parser import parse
from beamlabel.pipeline.output import lease
from beamlabel.pipeline.process import exit as exit_codes
from support import needs
from support.flink_deployment import KUBERNETES
from support.nightly_deployment import LABEL, ROOT

FILES = ["cronjob.yaml", "beamlabel-nightly.service", "beamlabel.cron"]

# --- the command lines ---


def test_every_file_asks_for_the_same():
    """Apart from times, which label.sh or the controller sets, all files run the same job."""
    parsed = []
    for name in FILES:
        options, runner_args = parse(
            ["--run_date", "2026-11-23", "--if_exists", "resume", *deployment.arguments(name)]
        )
        assert not runner_args
        parsed.append(options)
    assert parsed[0] == parsed[1] == parsed[2]
    assert parsed[0].output.output == "gs://BUCKET/labels/dt=2026-11-23"
    assert parsed[0].earlier.skip_labeled == ("gs://BUCKET/labels/dt=*/", "gs://BUCKET/retried/dt=*/")


# --- Kubernetes ---


@pytest.fixture
def standin(tmp_path):
    return deployment.Standin(tmp_path)


def test_the_objects_are_valid():
    for item in yaml.safe_load_all(deployment.text("cronjob.yaml")):
        for version in KUBERNETES:
            kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("key", ["timezone", "startingDeadline", "backoffLimit"])
def test_files_that_kubernetes_refuses_fail_the_check(key):
    job = deployment.cronjob()
    job["spec"][key] = 6
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, KUBERNETES[1], strict=True)


def test_a_night_is_retried_if_a_retry_can_help():
    spec = deployment.cronjob()["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("0 2 * * *", "Etc/UTC")
    assert spec["concurrencyPolicy"] == "Forbid"
    job = spec["jobTemplate"]["spec"]
    codes, disruption = job["podFailurePolicy"]["rules"]
    assert codes["onExitCodes"]["values"] == [exit_codes.TOO_MANY_FAILURES, exit_codes.USAGE]
    assert codes["onExitCodes"]["containerName"] == deployment.launcher(deployment.cronjob())["name"]
    assert codes["action"] == "FailJob" and disruption["action"] == "Ignore"
    # Pods start 10 s, 20 s, 40 s … after each other; the last one starts when an unrenewed lock is stale.
    assert sum(10 * 2**n for n in range(job["backoffLimit"])) > lease.STALE_SECONDS
    options, _ = parse([*deployment.arguments("cronjob.yaml"), "--run_date", "2026-11-23"])
    assert options.run.if_exists == "resume"
    assert 3 * options.run.time_limit < job["activeDeadlineSeconds"] < 86400
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    account = list(yaml.safe_load_all(deployment.text("cronjob.yaml")))[1]
    assert account["metadata"]["name"] == pod["serviceAccountName"]
    assert deployment.launcher(deployment.cronjob())["image"].endswith(f"/beamlabel-launcher:{__version__}")


def test_the_date_is_the_minute_that_the_night_was_due(standin):
    """The controller names a Job after this minute, so a pod after midnight also has the night's date."""
    container = deployment.launcher(deployment.cronjob())
    (name,) = [entry for entry in container["env"] if entry["name"] == "JOB_NAME"]
    assert name["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['batch.kubernetes.io/job-name']"
    due = datetime(2026, 11, 23, 2, tzinfo=timezone.utc)
    job_name = f"beamlabel-nightly-{int(due.timestamp()) // 60}"
    environment = {"JOB_NAME": job_name, "PATH": f"{standin.path.parent}:{os.environ['PATH']}"}
    # The kubelet expands `$(NAME)`; other text stays unchanged.
    assert not re.search(r"\$\([A-Za-z_][\w.-]*\)", "".join(container["command"] + container["args"]))
    done = subprocess.run([*container["command"], *container["args"], "4"], env=environment)
    assert done.returncode == 4
    assert standin.runs == [["--run_date", "2026-11-23", *container["args"], "4"]]


def rules():
    item = yaml.safe_load(deployment.text("alerts.yaml"))
    assert (item["apiVersion"], item["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    return item["spec"]


def find_promtool():
    """Finds promtool, downloaded on first use."""
    path = f"{os.environ['PATH']}:{ROOT}/.runners/promtool"
    if (found := shutil.which("promtool", path=path)) is not None:
        return found
    if shutil.which("apt-get") is None:
        needs.lacking("no promtool, and no apt to fetch it")
    done = subprocess.run([ROOT / "tools" / "get_promtool.sh"], capture_output=True, text=True, timeout=300)
    if done.returncode:
        needs.lacking(f"tools/get_promtool.sh: {done.stdout[-500:]}{done.stderr[-500:]}")
    return shutil.which("promtool", path=path)


def test_prometheus_takes_the_alerts_and_tells(tmp_path):
    """Series as in kube-state-metrics: only a night that fails after half an hour gives an alert."""
    promtool = find_promtool()
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules()))
    job = 'namespace="photos",job_name="beamlabel-nightly-29917560"'
    other = 'namespace="photos",job_name="other-29917560"'
    cronjob = 'namespace="photos",cronjob="beamlabel-nightly"'
    name = deployment.cronjob()["metadata"]["name"]
    assert f'cronjob="{name}"' in cronjob and f'"{name}-' in job
    series = {
        f'kube_job_failed{{{job},condition="true"}}': "0x30 1x3000",
        f'kube_job_failed{{{job},condition="false"}}': "1x30 0x3000",
        f'kube_job_failed{{{other},condition="true"}}': "1x3030",
        f"kube_job_status_start_time{{{job}}}": "0x3030",
        f"kube_cronjob_status_last_successful_time{{{cronjob}}}": "0x3030",
    }

    def expected(name, minute, **told):
        labels = {"severity": "page", "namespace": "photos"} | told.pop("labels", {})
        alerts = [{"exp_labels": labels, "exp_annotations": told}] if told else []
        return {"eval_time": minute, "alertname": name, "exp_alerts": alerts}

    failed, missing = (rule["alert"] for rule in rules()["groups"][0]["rules"])
    seen = {
        "labels": {"job_name": "beamlabel-nightly-29917560", "condition": "true"},
        "summary": "beamlabel: beamlabel-nightly-29917560 failed",
        "description": "Why: kubectl logs --namespace photos job/beamlabel-nightly-29917560",
    }
    late = {
        "labels": {"cronjob": "beamlabel-nightly"},
        "summary": "beamlabel: no night has succeeded for 1d 9h 0m 0s",
    }
    tests = [
        expected(failed, "29m"), expected(failed, "31m", **seen), expected(failed, "25h"),
        expected(missing, "32h"), expected(missing, "33h", **late),
    ]  # fmt: skip
    case = {
        "rule_files": ["rules.yml"],
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": key, "values": value} for key, value in series.items()],
                "alert_rule_test": tests,
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(case))
    for command in (["check", "rules", "rules.yml"], ["test", "rules", "test.yml"]):
        done = subprocess.run([promtool, *command], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


# --- systemd ---

UNITS = ["beamlabel-nightly.service", "beamlabel-nightly.timer", "beamlabel-alert@.service"]


def systemd_analyze(*arguments):
    if (program := shutil.which("systemd-analyze")) is None:
        needs.lacking("no systemd-analyze, from Debian's package systemd")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)


def installed(directory):
    """The units in a directory, and their programs at the paths they name."""
    for name in UNITS:
        (directory / name).write_text(deployment.text(name, HOME=ROOT))
    return [directory / name for name in UNITS]


def test_systemd_takes_the_units(tmp_path):
    done = systemd_analyze("verify", *installed(tmp_path))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("beamlabel-nightly.timer", ("OnCalendar=*-*-* 02:00:00 UTC", "OnCalendar=at two"), "at two"),
        ("beamlabel-nightly.service", ("Type=oneshot", "Type=oneshoot"), "oneshoot"),
        ("beamlabel-nightly.service", ("label.sh", "labels.sh"), "labels.sh is not executable"),
        ("beamlabel-nightly.service", ("KillMode", "KilMode"), "KilMode"),
    ],
)
def test_files_that_systemd_refuses_fail_the_check(tmp_path, name, change, told):
    units = installed(tmp_path)
    content = (tmp_path / name).read_text()
    assert change[0] in content
    (tmp_path / name).write_text(content.replace(*change))
    done = systemd_analyze("verify", *units)
    assert told in done.stdout + done.stderr


def test_the_timer_is_at_two():
    (when,) = [value for key, value in deployment.service_settings(UNITS[1]) if key == "OnCalendar"]
    done = systemd_analyze("calendar", "--base-time", "2026-11-22 23:00:00 UTC", when)
    assert re.search(r"Mon 2026-11-23 02:00:00 UTC", done.stdout), done.stdout


def test_a_failed_service_starts_the_alert():
    settings = dict(deployment.service_settings())
    assert settings["OnFailure"] == f"{UNITS[2].removesuffix('.service')}%n.service"
    named = [value for key, value in deployment.service_settings() if key == "Environment"]
    names = {word.partition("=")[0] for value in named for word in value.split()}
    assert {"TRIES", "WAIT", "PATIENCE"} < names
    assert all(f'"${{{name}:=' in LABEL.read_text() for name in names - {"BEAMLABEL_CACHE"})
    limit = parse(["--run_date=2026-11-23", *deployment.arguments(UNITS[0])])[0].run.time_limit
    (tries,) = [int(n) for value in named for n in re.findall(r"TRIES=(\d+)", value)]
    assert settings["TimeoutStartSec"] == "20h" and tries * limit < 20 * 3600


def test_the_alert_mails_the_log(tmp_path):
    for name, script in {
        "journalctl": 'echo "log of $2"',
        "mail": f'{{ printf "%s\\n" "$@"; cat; }} >{tmp_path}/mail',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    command = dict(deployment.service_settings(UNITS[2]))["ExecStart"]
    quoted = re.fullmatch(r"/bin/sh -c '(.*)'", command)[1]
    filled = quoted.replace("%i", "beamlabel-nightly.service").replace("%H", "host")
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["/bin/sh", "-c", filled], env={"PATH": path, "MONITOR_EXIT_STATUS": "3"}, check=True)
    assert (tmp_path / "mail").read_text().splitlines() == [
        "-s", "beamlabel-nightly.service failed on host, exit code 3", "root", "log of beamlabel-nightly.service",
    ]  # fmt: skip


# --- cron ---


@pytest.mark.parametrize("code", [0, 1])
def test_cron_mails_the_log_of_a_night_that_failed(tmp_path, code):
    home = tmp_path / "home"
    (home / "deploy" / "nightly").mkdir(parents=True)
    label = home / "deploy" / "nightly" / "label.sh"
    label.write_text(f'#!/bin/sh\necho "$BEAMLABEL"; for a in "$@"; do echo "$a"; done; exit {code}\n')
    label.chmod(0o755)
    content = deployment.text("beamlabel.cron", HOME=home)
    settings = dict(re.findall(r"^([A-Z_]+)=(.*)$", content, re.MULTILINE))
    assert "@" in settings["MAILTO"]
    *when, user, command = deployment.cron_line(HOME=home).split(maxsplit=6)
    assert when == ["0", "2", "*", "*", "*"] and user == "beamlabel"
    assert "%" not in command, "cron would turn it into a line break"
    log = tmp_path / "log"
    environment = {"PATH": "/usr/bin:/bin", **settings, "LOG": str(log)}
    done = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True)
    assert log.read_text().splitlines() == [
        f"{home}/.venv/bin/beamlabel",
        *deployment.arguments("beamlabel.cron"),
    ]
    assert done.stdout == (log.read_text() if code else "")
    assert done.stderr == ""
