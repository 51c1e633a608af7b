"""Foreign files in place of a lock: the error names them, and they are left alone."""

import os
from pathlib import Path

import pytest

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.lock import locked
from support.locks import age, holder

FOREIGN = [b"", b"[1]", b"held by rsync", b'{"host": "a", "pid": 1}', b"\x00\xff"]


@pytest.mark.parametrize("content", FOREIGN)
def test_a_foreign_lock_is_named_and_left_alone(tmp_path, gcs, content):
    gcs.put("out/_beamlabel/lock", content)
    age(gcs, 1e6)
    with pytest.raises(UsageError, match=r"out/_beamlabel/lock is not beamlabel's"), locked(gcs.uri("out")):
        pass
    assert gcs.get("out/_beamlabel/lock") == content
    path = Path(staging.beside(str(tmp_path / "out")), layout.LOCK)
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(UsageError, match="lock is not beamlabel's"), locked(str(tmp_path / "out")):
        pass
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "kind", ["link", "directory", "pipe", "link to our directory", "a file for our directory"]
)
def test_something_else_in_place_of_a_local_lock(tmp_path, kind):
    own = Path(staging.beside(str(tmp_path / "out")))
    (tmp_path / "theirs").mkdir()
    theirs = tmp_path / "theirs" / layout.LOCK
    theirs.write_bytes(holder())
    if kind == "link to our directory":
        own.symlink_to(tmp_path / "theirs")
    elif kind == "a file for our directory":
        own.write_bytes(b"theirs")
    else:
        own.mkdir()
    if kind == "link":
        (own / layout.LOCK).symlink_to(theirs)
    elif kind == "directory":
        (own / layout.LOCK).mkdir()
    elif kind == "pipe":
        os.mkfifo(own / layout.LOCK)
    before = sorted(tmp_path.rglob("*"))
    content = theirs.read_bytes()
    with pytest.raises(UsageError, match="not beamlabel's"), locked(str(tmp_path / "out")):
        pass
    assert sorted(tmp_path.rglob("*")) == before
    assert theirs.read_bytes() == content


@pytest.mark.parametrize("kind", ["a file", "a link to nowhere"])
def test_something_that_is_no_directory_above_the_output(tmp_path, kind):
    above = tmp_path / "above"
    if kind == "a file":
        above.write_bytes(b"theirs")
    else:
        above.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError), locked(str(above / "out")):
        pass
    assert list(tmp_path.iterdir()) == [above]
