"""The view of readers during publication, by manifest and by listing, as ``docs/nightly.md`` describes."""

from dataclasses import dataclass

import pytest

import beamlabel.pipeline.output.publish
from beamlabel.pipeline import layout
from beamlabel.transforms import storage
from support.jobs import label, photos

CHANGES = ("move_all", "move_directory", "write_bytes", "delete", "delete_all", "delete_tree")


@dataclass(frozen=True)
class Seen:
    """A reader's view between two changes.

    Attributes:
      manifest: The files in the manifest by the run's id; None without a manifest.
      listed: The data shards in a listing of the directory.
      succeeded: Whether ``_SUCCESS`` exists.
    """

    manifest: tuple[str, frozenset[str]] | None
    listed: frozenset[str]
    succeeded: bool


def look(output: str) -> Seen:
    found = {file.path.removeprefix(f"{output}/") for file in storage.match(f"{output}/")}
    manifest = beamlabel.pipeline.output.publish.read_manifest(output)
    if manifest is not None:
        names = frozenset(file["name"] for file in manifest["files"])
        assert names <= found, "the manifest names missing files"
        manifest = (manifest["run_id"], names)
    shards = frozenset(name for name in found if not name.startswith("_"))
    return Seen(manifest, shards, layout.SUCCESS in found)


@pytest.fixture
def published(monkeypatch):
    """Runs the job and records its output after each change during publication."""
    real = beamlabel.pipeline.output.publish.publish
    views = []

    def publish(output, staging_dir):
        views[:] = [look(output)]
        with monkeypatch.context() as patch:
            for name in CHANGES:
                patch.setattr(storage, name, looking(getattr(storage, name), output))
            return real(output, staging_dir)

    def looking(change, output):
        def changed(*arguments):
            change(*arguments)
            views.append(look(output))

        return changed

    monkeypatch.setattr(beamlabel.pipeline.output.publish, "publish", publish)

    def run(*arguments):
        assert label(*arguments).code == 0
        assert len(views) > 3
        return list(dict.fromkeys(views))

    return run


@pytest.fixture
def images(tmp_path):
    photos(tmp_path / "photos", 6)
    return ("--input", f"{tmp_path / 'photos'}/", "--input_format", "images", "--shard_rows", 2)


def test_a_new_local_directory_appears_at_once(tmp_path, images, published):
    before, *after = published(tmp_path / "out", *images)
    assert before == Seen(None, frozenset(), False)
    (whole,) = after
    assert len(whole.listed) == 3 and whole.manifest[1] == whole.listed and whole.succeeded


def test_a_new_directory_in_a_bucket_is_filled_before_its_manifest_and_success_comes_last(
    gcs, images, published
):
    views = published(gcs.uri("out"), *images)
    assert [len(view.listed) for view in views] == [0, 3, 3, 3]
    assert [view.manifest is not None for view in views] == [False, False, True, True]
    assert [view.succeeded for view in views] == [False, False, False, True]


@pytest.mark.parametrize("where", ["local", "gs"])
def test_if_a_run_replaces_another_only_a_listing_sees_two(tmp_path, gcs, images, published, where):
    output = str(tmp_path / "out") if where == "local" else gcs.uri("out")
    old = published(output, *images)[-1]
    views = published(output, *images, "--if_exists", "overwrite")
    new = views[-1]
    assert views[0] == old
    assert not old.listed & new.listed, "no file of the previous run is overwritten"
    assert list(dict.fromkeys(view.manifest for view in views)) == [old.manifest, new.manifest]
    assert all(old.listed <= view.listed for view in views if view.manifest == old.manifest)
    assert all(new.listed <= view.listed for view in views if view.manifest == new.manifest)
    assert any(view.listed == old.listed | new.listed for view in views), "the window"
    assert new.listed == new.manifest[1] and new.succeeded
