"""An output has one place under all its names; a run's files there are not input."""

from __future__ import annotations

from pathlib import Path

import pytest

from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.file_lock import FileLock
from beamlabel.pipeline.output.lock import OutputLockedError, locked
from beamlabel.pipeline.output.place import OwnDirectories, output_place
from support.jobs import label, photos, uri_list


@pytest.fixture
def uris(tmp_path: Path) -> Path:
    return uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 2))


@pytest.mark.parametrize(
    ("output", "place"),
    [
        ("gs://bucket/out//", "gs://bucket/out"),
        ("GS://bucket/out", "gs://bucket/out"),
        ("gs://bucket", "gs://bucket"),
        ("s3://bucket/a/b=1", "s3://bucket/a/b=1"),
    ],
)
def test_buckets(output: str, place: str) -> None:
    assert output_place(output) == place


@pytest.mark.parametrize(
    "output",
    [
        "gs://bucket//out", "gs://bucket/a//b", "gs://bucket/./out", "gs://bucket/a/../out", "s3://bucket//out",
        "s3://key:secret@bucket/out", "gs://bucket/out?X-Goog-Signature=1", "hdfs://user:secret@host/out",
    ],
)  # fmt: skip
def test_places_that_could_be_two_or_hold_credentials_are_refused(output: str) -> None:
    with pytest.raises(ValueError, match=r"^the URI (has|holds) ") as error:
        output_place(output)
    assert "secret" not in str(error.value) and "/../" not in str(error.value)


def test_one_place_for_all_names_of_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    out = str(tmp_path / "real" / "out")
    for name in (
        "link/out",
        "real/../link/out/",
        "/proc/self/cwd/link/out",
        f"file://{tmp_path}/link/out//",
        f"//{out}",
    ):
        assert output_place(name) == out, name
    assert output_place("dangling") == str(tmp_path / "new")


@pytest.mark.parametrize("name", ["link", "above/out", "above/../real/out/"])
def test_a_run_through_a_link_waits_for_the_other(tmp_path: Path, uris: Path, name: str) -> None:
    out = tmp_path / "real" / "out"
    out.parent.mkdir()
    (tmp_path / "link").symlink_to(out)
    (tmp_path / "above").symlink_to(out.parent)
    with locked(str(out)):
        assert label(tmp_path / name, "--input", uris).code == 75
    assert not out.exists()


def test_a_directory_is_locked_itself(tmp_path: Path) -> None:
    """A bind mount of the directory has another parent directory."""
    out = tmp_path / "out"
    out.mkdir()
    lock = FileLock(str(out))
    try:
        moved = out.rename(tmp_path / "other")
        with pytest.raises(OutputLockedError), locked(str(moved)):
            pass
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith("_beamlabel")] == [
            Path(staging.beside(str(out))).name
        ]
    finally:
        lock.release()
    with locked(str(moved)):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


def test_a_run_publishes_into_the_directory_that_a_link_names(tmp_path: Path, uris: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert label(tmp_path / "link", "--input", uris).code == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "out" / "_MANIFEST.json").is_file()
    assert label(tmp_path / "out", "--input", uris).code == 2  # it exists


def test_files_of_an_unfinished_run_are_no_input(tmp_path: Path) -> None:
    out = tmp_path / "data" / "out"
    staged = Path(staging.beside(str(out)), "staging", "0123456789abcdef")
    (out / "_beamlabel" / "staging").mkdir(parents=True)
    staged.mkdir(parents=True)
    (tmp_path / "link").symlink_to(out)
    (tmp_path / "above").symlink_to(out.parent)
    (tmp_path / "side").symlink_to(staged)
    own = OwnDirectories(output_place(str(out)))
    inside = [out / "part-0.parquet", tmp_path / "link" / "x", tmp_path / "above" / "out" / "_beamlabel" / "lock",
              staged / "module.beamlabel", tmp_path / "side" / "module.beamlabel"]  # fmt: skip
    assert all(own.hold(str(path)) for path in inside)
    for pattern in (
        "data/**",
        "data/",
        "above/**",
        "above/*/*.parquet",
        "link/*",
        "side/*",
        "above/",
        "**",
        "data/o*/*.parquet",
    ):
        assert own.could_match(f"{tmp_path}/{pattern}"), pattern
    for pattern in ("other/**", "data/outer/**", "data/*.parquet", "above/*.jpg", "data/out2/"):
        assert not own.could_match(f"{tmp_path}/{pattern}"), pattern


@pytest.mark.parametrize("name", ["link/*.txt", "above/out/*.txt", "above/out/list.txt", "link"])
def test_an_input_in_the_output_by_a_link_is_refused(tmp_path: Path, uris: Path, name: str, capsys) -> None:
    out = tmp_path / "real" / "out"
    assert label(out, "--input", uris).code == 0
    (out / "list.txt").write_text(uris.read_text())
    (tmp_path / "link").symlink_to(out)
    (tmp_path / "above").symlink_to(out.parent)
    assert label(out, "--input", tmp_path / name, "--if_exists", "overwrite").code == 2
    assert "use another directory" in capsys.readouterr().err


def test_images_are_not_looked_for_where_runs_are_at_work(tmp_path: Path) -> None:
    from beamlabel.transforms.inputs.sources.listing import listed
    from beamlabel.transforms.inputs.sources.packed import Found
    from beamlabel.transforms.inputs.sources.path_filter import PathFilter

    (image,) = photos(tmp_path / "all", 1)
    for directory in ("_beamlabel/staging/x", "_beamlabel-0123456789ab/staging"):
        photos(tmp_path / "other" / directory, 1)
    (tmp_path / "all" / "a-link").symlink_to(tmp_path / "other" / "_beamlabel")
    (tmp_path / "all" / "_beamlabel").symlink_to(tmp_path / "other" / "_beamlabel-0123456789ab")
    found = list(listed(f"{tmp_path}/all/**", PathFilter()))
    assert [place.uri for place in found if isinstance(place, Found)] == [str(image)]
    assert len(found) == 3
