"""A signal ends every phase, even with a silent server or native code that never returns.

A phase is a line in ``HANGS``: the function that hangs, and the command that reaches it.
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from beamlabel.pipeline.process import watchdog
from beamlabel.pipeline.process.cancellation import Cancelled, cancellation
from support import needs
from support.hangs import Launcher, is_running
from support.jobs import TINY, label, photos, uri_list
from support.servers import Reply

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="needs a call that hangs in Linux's C library"
    ),
]

JOB = ["--input", "{list}", "--module", TINY, "--output", "{new}"]
HANGS = {
    "locking": ("beamlabel.pipeline.output.lock:_take", JOB),
    "listing": ("beamlabel.pipeline.job.preflight:match_inputs", JOB),
    "resolving": ("beamlabel.pipeline.job.plan:resolve_chosen", JOB),
    "compiling": ("beamlabel.pipeline.job.plan:prepare_artifact", JOB),
    "planning": ("beamlabel.pipeline.job.plan:_plan_id", JOB),
    "staging": ("beamlabel.pipeline.job.stage:stage", JOB),
    "submitting": ("beamlabel.pipeline.runners.execute:build", JOB),
    "running": ("beamlabel.transforms.writing.write_unit:stage_record", JOB),
    "committing": ("beamlabel.pipeline.job.commit:commit", JOB),
    "publishing": ("beamlabel.pipeline.output.publish:_fill", JOB),
    "reporting": ("beamlabel.pipeline.output.publish:_report", [*JOB, "--report"]),
    "inspect": ("beamlabel.pipeline.commands.inspection:inspect", ["inspect", TINY]),
    "fetch": ("beamlabel.transforms.hub.mirror:mirror_module", ["fetch", TINY, "{new}"]),
    "verify": ("beamlabel.pipeline.output.verify:verify", ["verify", "{old}"]),
    "evaluate": ("beamlabel.pipeline.evaluate.evaluate:evaluate", ["evaluate", "{old}", "--truth", "parent"]),
    "train": (
        "beamlabel.pipeline.train.train:gather_rows",
        ["train", "{old}", "--truth", "parent", "--output", "{new}"],
    ),
    "report": ("beamlabel.pipeline.report.data:report_data", ["report", "{old}"]),
    "relabel": (
        "beamlabel.pipeline.relabel.inputs:relabel_inputs",
        ["relabel", "{old}", "--module", TINY, "--output", "{new}"],
    ),
    "compact": ("beamlabel.pipeline.compact.compact:_plan", ["compact", "{old}", "--output", "{new}"]),
    "diff": ("beamlabel.pipeline.diff.compare:compare", ["diff", "{old}", "{old}"]),
    "publish": ("beamlabel.pipeline.commands.publish:finish_pending", ["publish", "{old}"]),
}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A published output."""
    directory = tmp_path_factory.mktemp("old")
    job = label(
        directory / "out", "--input", uri_list(directory / "list.txt", photos(directory / "photos", 2))
    )
    assert job.code == 0
    return directory


def words(argv, old, new):
    return [word.format(list=old / "list.txt", old=old / "out", new=new) for word in argv]


@pytest.mark.parametrize("phase", HANGS)
def test_a_phase_that_hangs_in_native_code_is_ended(phase, old, tmp_path):
    function, argv = HANGS[phase]
    new = tmp_path / "new"
    launcher = Launcher(words(argv, old, new), tmp_path / "marker", function)
    child = launcher.wait_for_hang()
    said = launcher.ended_by(signal.SIGINT if phase == "locking" else signal.SIGTERM)
    assert "Traceback" not in said
    assert not is_running(child)
    # Unfinished files never pass for a result; one rename publishes a new directory, before its report exists.
    assert not (new / "_SUCCESS").exists() and not (new / "saved_model.pb").exists()


STALLS = {
    "the hub": ["--input", "{list}", "--module", "{http}/module/1", "--output", "{new}"],
    "the lock": ["--input", "{list}", "--module", TINY, "--output", "{gcs}/out"],
    "the listing of a bucket": ["--input", "{gcs}/photos/*.png", "--module", TINY, "--output", "{new}"],
    "an image": [
        "--input",
        "{web}",
        "--module",
        TINY,
        "--output",
        "{new}",
        "--allow_http",
        "--allow_private_hosts",
        "--worker_processes",
        "1",
    ],
    "the module's bucket": ["--input", "{list}", "--module", "{gcs}/module", "--output", "{new}"],
}


@pytest.mark.parametrize("server", STALLS)
def test_a_server_that_stalls_holds_nothing_up(server, old, gcs, http_server, tmp_path):
    http_server.files["/module/1"] = Reply(delay=600)
    gcs.server.delay(600)
    web = uri_list(tmp_path / "web.txt", [http_server.url_of("/module/1")])
    argv = [
        word.format(list=old / "list.txt", web=web, new=tmp_path / "new", http=http_server.url, gcs=gcs.url)
        for word in STALLS[server]
    ]
    launcher = Launcher(argv, tmp_path / "marker")
    launcher.wait_until(lambda: gcs.server.count() or http_server.count("/module/1"))
    assert "Traceback" not in launcher.ended_by(signal.SIGTERM)
    gcs.server.delay(0)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("request_of", ["commit.json", "/rewriteTo/"])
def test_a_bucket_that_stalls_while_a_run_is_committed_or_published(request_of, old, gcs, tmp_path):
    reached, done = threading.Event(), threading.Event()

    def stall():
        reached.set()
        done.wait(120)

    gcs.server.before(request_of, stall)
    launcher = Launcher(
        ["--input", old / "list.txt", "--module", TINY, "--output", gcs.uri("out")], tmp_path / "m"
    )
    try:
        launcher.wait_until(reached.is_set)
        launcher.ended_by(signal.SIGTERM)
    finally:
        done.set()
    assert not gcs.list("out/_SUCCESS")


def test_the_time_that_is_given_is_below_five_seconds():
    assert watchdog.GRACE_SECONDS <= 4.5


def test_a_child_of_a_fork_tells_nothing_of_its_own_signals(monkeypatch):
    """Otherwise ending a child would end its parent."""
    monkeypatch.setattr(watchdog, "GRACE_SECONDS", 0.0)
    with cancellation():
        child = os.fork()
        if not child:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except Cancelled:
                os._exit(7)
            os._exit(8)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        # The watchdog reads earlier messages first; it must not act on this one.
        os.kill(os.getpid(), signal.SIGCHLD)


def test_a_spared_process_ends_by_the_next_signal(tmp_path):
    if not Path("/proc/self/stat").exists():
        needs.lacking("no /proc")
    program = (
        "import os, signal, threading\n"
        "from beamlabel.pipeline.process import watchdog\n"
        "from beamlabel.pipeline.process.cancellation import Cancelled, cancellation\n"
        "watchdog.GRACE_SECONDS = 0.2\n"
        "with cancellation():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except Cancelled as sent:\n"
        "        assert not sent.ends_work()\n"
        "        threading.Event().wait(1)\n"
        "        print('worked on', flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        threading.Event().wait(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 143, done.stderr
    assert done.stdout == "worked on\n"
