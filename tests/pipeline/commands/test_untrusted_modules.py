"""``--module_fingerprint`` and ``--allow_unsafe_ops`` in all commands."""

import shutil
import socket
import tarfile
from pathlib import Path

import pytest

from beamlabel.pipeline.commands.fetch import main as fetch
from beamlabel.pipeline.commands.inspect import main as inspect
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.prepare_module import resolve
from support.jobs import TINY, command, label, photos, relabel, uri_list

OTHER = "0123456789abcdef" * 4


@pytest.fixture
def pictures(tmp_path):
    return uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 3))


@pytest.fixture
def hostile(tmp_path):
    """A working module whose initializer writes the file ``victim`` beside it."""
    tf = pytest.importorskip("tensorflow")
    from support.hostile_modules import save_hidden

    victim = str(tmp_path / "victim")
    return save_hidden(tmp_path / "m", "initializer", lambda: tf.io.write_file(victim, "written"))


def test_another_module_than_the_pinned_one_ends_with_2_and_nothing_begins(tmp_path, pictures):
    done = label(tmp_path / "out", "--input", pictures, "--module_fingerprint", OTHER)
    assert done.code == 2
    assert not done.output.exists()
    done = command("inspect", TINY, "--module_fingerprint", OTHER)
    assert (done.returncode, done.stdout) == (2, "")
    assert resolve(TINY).fingerprint in done.stderr
    done = command("fetch", TINY, tmp_path / "mirror", "--module_fingerprint", OTHER)
    assert done.returncode == 2
    assert not (tmp_path / "mirror").exists()
    done = relabel(tmp_path / "new", tmp_path, "--module_fingerprint", OTHER, module=TINY)
    assert done.code == 2


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, OTHER + "0"])
def test_an_invalid_fingerprint_is_refused(tmp_path, text):
    with pytest.raises(UsageError, match="fingerprint"):
        fetch([TINY, str(tmp_path / "mirror"), "--module_fingerprint", text])


def test_inspect_prints_the_option_that_pins(tmp_path, pictures, capsys, monkeypatch):
    monkeypatch.setattr("beamlabel.pipeline.commands.inspection._SECONDS", 0.1)
    assert inspect([TINY]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "--module_fingerprint" in line)
    option = line.split()[-2:]
    assert label(tmp_path / "out", "--input", pictures, *option).code == 0
    assert fetch([TINY, str(tmp_path / "mirror"), *option]) == 0
    option[1] = option[1].upper()
    directory = str(tmp_path / "mirror")
    assert inspect([directory, *option]) == 0


def test_a_byte_that_changed_is_another_module(tmp_path, pictures):
    with tarfile.open(TINY) as tar:
        tar.extractall(tmp_path / "m", filter="data")
    pin = resolve(str(tmp_path / "m")).fingerprint
    with (tmp_path / "m" / "tfhub_module.pb").open("ab") as file:
        file.write(b"\0")
    module = tmp_path / "m"
    assert label(tmp_path / "out", "--input", pictures, "--module_fingerprint", pin, module=module).code == 2


def test_a_hostile_module_is_run_by_no_command(tmp_path, pictures, hostile, capsys):
    assert label(tmp_path / "out", "--input", pictures, module=hostile).code == 2
    assert "WriteFile" in capsys.readouterr().err
    with pytest.raises(UsageError, match="WriteFile"):
        inspect([hostile])
    # A copied module is not run by the copy; it is refused at its new place.
    assert fetch([hostile, str(tmp_path / "mirror")]) == 0
    assert label(tmp_path / "out", "--input", pictures, module=tmp_path / "mirror").code == 2
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "victim").exists()


def test_a_trusted_module_may_run(tmp_path, pictures, hostile):
    shutil.rmtree(tmp_path / "victim", ignore_errors=True)
    done = label(tmp_path / "out", "--input", pictures, "--allow_unsafe_ops", module=hostile)
    assert done.code == 0
    assert done.table.num_rows == 3
    assert Path(tmp_path / "victim").read_text() == "written"


def test_a_module_that_was_trusted_once_trains_nothing_without_the_word(tmp_path, hostile):
    from beamlabel.pipeline.commands.train import main as train

    pictures = uri_list(tmp_path / "more.txt", photos(tmp_path / "more", 12))
    outputs = tmp_path / "out"
    assert label(outputs, "--input", pictures).code == 0
    assert label(tmp_path / "trusted", "--input", pictures, "--allow_unsafe_ops", module=hostile).code == 0
    (tmp_path / "victim").unlink()
    truth = tmp_path / "truth.csv"
    truth.write_text("file,class\n" + "".join(f"photo {n:03d}.png,{'ab'[n % 2]}\n" for n in range(12)))
    common = [str(outputs), "--truth", str(truth), "--output", str(tmp_path / "mine"), "--min_images", "1"]
    for more in ([], ["--fine_tune"]):
        with pytest.raises(UsageError, match="WriteFile"):
            train([*common, "--module", hostile, *more])
    assert not (tmp_path / "victim").exists()


def test_every_command_that_loads_a_module_has_its_deadline(tmp_path):
    from beamlabel.pipeline.commands.train import main as train

    pictures = uri_list(tmp_path / "more.txt", photos(tmp_path / "more", 12))
    outputs = tmp_path / "out"
    assert label(outputs, "--input", pictures).code == 0
    truth = tmp_path / "truth.csv"
    truth.write_text("file,class\n" + "".join(f"photo {n:03d}.png,{'ab'[n % 2]}\n" for n in range(12)))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        module = f"http://127.0.0.1:{silent.getsockname()[1]}/m/1"
        limit = ["--module_deadline", "1s"]
        given = [str(outputs), "--truth", str(truth), "--output", str(tmp_path / "mine"), "--min_images", "1"]
        for run in (
            lambda: inspect([module, *limit]),
            lambda: fetch([module, str(tmp_path / "mirror"), *limit]),
            lambda: train([*given, "--module", module, *limit]),
            lambda: train([*given, "--module", module, *limit, "--fine_tune"]),
        ):
            with pytest.raises(UsageError, match="--module_deadline"):
                run()
        assert label(tmp_path / "new", "--input", pictures, *limit, module=module).code == 2
        assert relabel(tmp_path / "new", outputs, *limit, module=module).code == 2
    assert not any((tmp_path / name).exists() for name in ("mirror", "mine", "new"))
