"""Handles of every local and remote kind, and caches with missing parts."""

import io
import os
import random
import shutil
import subprocess
import sys
import tarfile

import pytest

from beamlabel.transforms.hub.files import FileEntry, fingerprint, scan
from beamlabel.transforms.hub.resolve import ModuleError, resolve_module
from support.paths import DATA
from support.servers import Reply

TINY = DATA / "tiny_classification_1.tar.gz"
HUB_PATH = "/google/imagenet/tiny/classification/1"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("module")
    with tarfile.open(TINY) as tar:
        tar.extractall(path, filter="data")
    return path


def pack(path, source, prefix="", mode="w:gz", reverse=False):
    with tarfile.open(path, mode) as tar:
        for file in sorted(source.rglob("*"), reverse=reverse):
            tar.add(file, prefix + file.relative_to(source).as_posix(), recursive=False)
    return path


# --- fingerprint


def test_the_fingerprint_is_that_of_the_documented_form(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"abc")
    (tmp_path / "a").write_bytes(b"")
    assert [entry.path for entry in scan(tmp_path)] == ["a", "b/x"]
    # sha256sum of the two records, computed by hand
    assert fingerprint(scan(tmp_path)) == "95054f236444dc35928f5246bea5e1f2cc0873d6d84368366394ed61455edd9b"
    assert fingerprint(reversed(scan(tmp_path))) == fingerprint(scan(tmp_path))


def test_directory_and_tarballs_have_one_fingerprint(tmp_path, directory):
    copy = shutil.copytree(directory, tmp_path / "copy")
    (copy / "empty").mkdir()
    tarballs = [
        TINY,
        pack(tmp_path / "plain.tgz", directory, reverse=True),
        pack(tmp_path / "wrapped.tar", directory, prefix="tiny/1/", mode="w"),
    ]
    resolved = [resolve_module(str(path), tmp_path / "cache") for path in (directory, copy, *tarballs)]
    assert len({module.fingerprint for module in resolved}) == 1
    assert all((module.path / "saved_model.pb").is_file() for module in resolved)
    assert resolved[0].path == directory
    assert resolved[2].handle == str(TINY)


@pytest.mark.parametrize("change", ["content", "name", "extra"])
def test_any_change_to_the_files_changes_the_fingerprint(tmp_path, directory, change):
    copy = shutil.copytree(directory, tmp_path / "copy")
    if change == "content":
        data = bytearray((copy / "variables" / "variables.index").read_bytes())
        data[100] ^= 1
        (copy / "variables" / "variables.index").write_bytes(data)
    elif change == "name":
        (copy / "tfhub_module.pb").rename(copy / "tfhub_module2.pb")
    else:
        (copy / "assets" / "labels.txt").write_text("cat\n")
    assert (
        resolve_module(str(copy), tmp_path).fingerprint
        != resolve_module(str(directory), tmp_path).fingerprint
    )


def test_a_keras_file_is_fingerprinted_by_its_content(tmp_path):
    for name in ("a.keras", "b.keras"):
        (tmp_path / name).write_bytes(b"weights")
    one, other = (resolve_module(str(tmp_path / name), tmp_path) for name in ("a.keras", "b.keras"))
    assert one.path == tmp_path / "a.keras"
    sha256 = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
    assert one.fingerprint == other.fingerprint == fingerprint([FileEntry("model.keras", 7, sha256)])


# --- local


def test_local_modules_are_resolved_without_tensorflow(tmp_path):
    code = (
        "import sys; from beamlabel.transforms.hub.resolve import resolve_module\n"
        f"resolve_module({str(TINY)!r}, {str(tmp_path)!r})\n"
        "assert not [m for m in sys.modules if m.startswith(('tensorflow', 'keras', 'apache_beam'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_relative_paths_home_and_file_uris(tmp_path, directory, monkeypatch):
    monkeypatch.chdir(directory.parent)
    monkeypatch.setenv("HOME", str(directory.parent))
    for handle in (directory.name, f"~/{directory.name}", f"file://{directory}"):
        assert resolve_module(handle, tmp_path).path == directory


@pytest.mark.parametrize("damage", ["delete", "shorten", "alter", "empty"])
def test_an_extracted_tarball_that_was_damaged_is_extracted_again(tmp_path, damage):
    first = resolve_module(str(TINY), tmp_path)
    victim = first.path / "variables" / "variables.data-00000-of-00001"
    if damage == "delete":
        victim.unlink()
    elif damage == "shorten":
        os.truncate(victim, 1000)
    elif damage == "alter":
        victim.write_bytes(bytes(victim.stat().st_size))
    else:
        shutil.rmtree(first.path)
        first.path.mkdir()
    assert resolve_module(str(TINY), tmp_path) == first
    assert victim.stat().st_size == 66284


def test_a_whole_extracted_tarball_is_used_again(tmp_path):
    first = resolve_module(str(TINY), tmp_path)
    before = (first.path / "saved_model.pb").stat().st_ino
    assert resolve_module(str(TINY), tmp_path) == first
    assert (first.path / "saved_model.pb").stat().st_ino == before


def test_extraction_leaves_nothing_half_done(tmp_path):
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(TINY.read_bytes()[:60_000])
    with pytest.raises(ModuleError, match=r"broken\.tar\.gz: not a whole tarball"):
        resolve_module(str(broken), tmp_path / "cache")
    assert list((tmp_path / "cache" / "modules").iterdir()) == []


def test_a_tarball_cannot_write_outside_its_directory(tmp_path):
    evil = tmp_path / "evil.tar"
    with tarfile.open(evil, "w") as tar:
        member = tarfile.TarInfo("../../escaped")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(ModuleError, match="unsafe"):
        resolve_module(str(evil), tmp_path / "cache")
    assert not list(tmp_path.rglob("escaped"))


def test_errors_of_bad_local_handles_name_the_files_found(tmp_path, directory):
    (tmp_path / "notes.txt").write_text("no module")
    (tmp_path / "h5").mkdir()
    (tmp_path / "h5" / "model.h5").write_bytes(b"")
    half = shutil.copytree(directory, tmp_path / "half")
    (half / "variables" / "variables.data-00000-of-00001").unlink()
    expected = {
        "absent": "absent: no such file or directory",
        "notes.txt": r"notes\.txt: expected a directory",
        "h5": r"has no saved_model\.pb; it holds model\.h5; HDF5 .* model\.export\(DIR\)",
        "half": r"variables/variables\.data-\* is missing",
    }
    for name, message in expected.items():
        with pytest.raises(ModuleError, match=message):
            resolve_module(str(tmp_path / name), tmp_path / "cache")


# --- hub handles


def test_a_hub_handle_is_downloaded_once(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_MODEL_LOAD_FORMAT", "UNCOMPRESSED")
    handle = hub.url_of(HUB_PATH)
    first = resolve_module(handle, tmp_path)
    assert first.fingerprint == resolve_module(str(TINY), tmp_path).fingerprint
    assert first.path.is_relative_to(tmp_path / "hub")
    assert resolve_module(handle, tmp_path) == first
    assert hub.count(HUB_PATH) == 1
    assert "TFHUB_CACHE_DIR" not in os.environ
    assert os.environ["TFHUB_MODEL_LOAD_FORMAT"] == "UNCOMPRESSED"


def test_the_hubs_own_cache_is_used_if_it_is_set(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "theirs"))
    first = resolve_module(hub.url_of(HUB_PATH), tmp_path / "ours")
    assert first.path.parent == tmp_path / "theirs"
    assert os.environ["TFHUB_CACHE_DIR"] == str(tmp_path / "theirs")


DAMAGE = {
    "no graph": lambda module: (module / "saved_model.pb").unlink(),
    "no variables": lambda module: shutil.rmtree(module / "variables"),
    "no shard": lambda module: (module / "variables" / "variables.data-00000-of-00001").unlink(),
    "short shard": lambda module: os.truncate(module / "variables" / "variables.data-00000-of-00001", 9),
    "empty directory": lambda module: [shutil.rmtree(module), module.mkdir()],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_half_empty_cache_is_repaired_by_one_download(hub, tmp_path, damage):
    handle = hub.url_of(HUB_PATH)
    first = resolve_module(handle, tmp_path)
    DAMAGE[damage](first.path)
    assert resolve_module(handle, tmp_path) == first
    assert resolve_module(handle, tmp_path) == first
    assert hub.count(HUB_PATH) == 2


@pytest.mark.parametrize("damage", ["no graph", "no variables", "no shard"])
def test_a_half_empty_directory_of_others_is_repaired_by_one_download(hub, tmp_path, monkeypatch, damage):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    handle = hub.url_of(HUB_PATH)
    first = resolve_module(handle, tmp_path)
    for receipt in tmp_path.glob("beamlabel-*.json"):
        receipt.unlink()
    DAMAGE[damage](first.path)
    assert resolve_module(handle, tmp_path) == first
    assert hub.count(HUB_PATH) == 2


def test_a_whole_directory_of_others_is_used_as_it_is(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    handle = hub.url_of(HUB_PATH)
    first = resolve_module(handle, tmp_path)
    for receipt in tmp_path.glob("beamlabel-*.json"):
        receipt.unlink()
    assert resolve_module(handle, tmp_path) == first
    assert hub.count(HUB_PATH) == 1


def test_a_module_that_is_broken_on_the_hub_itself_is_an_error(hub, tmp_path, directory):
    half = shutil.copytree(directory, tmp_path / "half")
    (half / "variables" / "variables.data-00000-of-00001").unlink()
    hub.files["/half/1"] = pack(tmp_path / "half.tar.gz", half).read_bytes()
    with pytest.raises(ModuleError, match="is missing"):
        resolve_module(hub.url_of("/half/1"), tmp_path / "cache")


def test_a_module_that_the_hub_lacks_is_an_error_with_the_handle(hub, tmp_path):
    hub.files["/page/1"] = b"<html>Not a module</html>"
    for path, message in (("/absent/1", "404"), ("/page/1", "the answer is not a module")):
        with pytest.raises(ModuleError, match=message) as caught:
            resolve_module(hub.url_of(path), tmp_path)
        assert hub.url_of(path) in str(caught.value)
        assert "check the handle" in str(caught.value)


SECRETS = ("hunter2", "s3cr3t", "0ddba11")
HANDLES = {
    "query": "http://HOST/m/1?token=s3cr3t",
    "user": "http://somebody:hunter2@HOST/m/1",
    "signed": "http://HOST/m.tar.gz?X-Amz-Credential=0ddba11&X-Amz-Signature=s3cr3t&versionId=7",
    "shared": "http://HOST/m.tar.gz?sv=2020&sig=s3cr3t",
    "fragment": "http://HOST/m/1#token=s3cr3t",
}


@pytest.mark.parametrize("kind", HANDLES)
def test_a_secret_of_a_handle_is_in_no_file_of_the_cache(hub, tmp_path, kind):
    handle = HANDLES[kind].replace("HOST", hub.url.removeprefix("http://"))
    for path in ("/m/1", "/m.tar.gz"):
        hub.files[path] = TINY.read_bytes()
    module = resolve_module(handle, tmp_path)
    assert not any(secret in repr(module) for secret in SECRETS)
    files = list(tmp_path.rglob("*"))
    assert len(files) > 4
    for file in files:
        content = file.read_bytes() if file.is_file() else b""
        assert not any(secret in file.name or secret.encode() in content for secret in SECRETS), file
    # With a new signature it is the same module.
    for secret in SECRETS:
        handle = handle.replace(secret, "another")
    assert resolve_module(handle, tmp_path) == module
    (request,) = hub.requests
    if kind == "user":
        assert request.headers["Authorization"] == "Basic c29tZWJvZHk6aHVudGVyMg=="
    # A signature covers the unchanged query.
    assert ("tf-hub-format" in request.query) == (kind not in ("signed", "shared"))


def test_a_hubs_credentials_go_to_no_other_host(hub, http_server, tmp_path):
    other = hub.url.replace("127.0.0.1", "localhost")
    hub.files["/moved/1"] = Reply(redirect=f"{other}/m/1")
    hub.files["/m/1"] = TINY.read_bytes()
    handle = hub.url_of("/moved/1").replace("http://", "http://me:hunter2@")
    assert resolve_module(handle, tmp_path).path.is_dir()
    assert ["Authorization" in request.headers for request in hub.requests] == [True, False]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/m", "gopher://127.0.0.1/m"])
def test_a_hub_that_redirects_elsewhere_than_the_web(hub, tmp_path, target):
    hub.files["/moved/1"] = Reply(redirect=target)
    with pytest.raises(ModuleError, match=r"(?i)redirect"):
        resolve_module(hub.url_of("/moved/1"), tmp_path)


@pytest.mark.parametrize("seed", range(12))
def test_a_hub_whose_tarball_has_a_flipped_bit(hub, tmp_path, directory, seed):
    data = bytearray(TINY.read_bytes())
    place = random.Random(seed).randrange(len(data) * 8)
    data[place // 8] ^= 1 << place % 8
    hub.files["/m/1"] = bytes(data)
    try:
        found = resolve_module(hub.url_of("/m/1"), tmp_path).fingerprint
    except ModuleError:
        assert list((tmp_path / "hub").iterdir()) == []
    else:
        assert found == resolve_module(str(directory), tmp_path).fingerprint


def test_a_pinned_module_is_no_other(hub, tmp_path, directory):
    right = resolve_module(str(directory), tmp_path).fingerprint
    assert resolve_module(str(TINY), tmp_path, expected_fingerprint=right.upper()).fingerprint == right
    for handle in (str(directory), str(TINY), hub.url_of(HUB_PATH)):
        with pytest.raises(ModuleError, match=right):
            resolve_module(handle, tmp_path, expected_fingerprint="0" * 64)


def test_leftovers_of_a_killed_process_in_the_cache_are_deleted(tmp_path, directory):
    resolve_module(str(TINY), tmp_path)
    left = [
        tmp_path / ".a.beamlabel-1",
        tmp_path / "modules" / ".b.beamlabel-2",
        tmp_path / "hub" / ".c.beamlabel-3",
    ]
    for path in left:
        (path / "variables").mkdir(parents=True)
    resolve_module(str(directory), tmp_path)
    assert not any(path.exists() for path in left)


# --- gs://


@pytest.mark.parametrize("form", ["directory", "directory/", "tarball"])
def test_modules_on_gs(gcs, tmp_path, directory, form):
    if form == "tarball":
        handle = gcs.put("m/tiny.tar.gz", TINY.read_bytes())
    else:
        for file in directory.rglob("*"):
            if file.is_file():
                gcs.put(f"m/tiny/{file.relative_to(directory).as_posix()}", file.read_bytes())
        gcs.put("m/tiny/assets/", b"")  # storage browsers leave this for an empty directory
        gcs.put("m/tiny2/saved_model.pb", b"another module")
        handle = gcs.uri("m/tiny") + ("/" if form.endswith("/") else "")
    first = resolve_module(handle, tmp_path)
    assert first.fingerprint == resolve_module(str(TINY), tmp_path / "local").fingerprint
    reads = _downloads(gcs)
    assert reads > 0
    assert resolve_module(handle, tmp_path) == first
    assert _downloads(gcs) == reads


def test_a_module_that_changed_on_gs_is_fetched_again(gcs, tmp_path):
    handle = gcs.put("tiny.tar.gz", TINY.read_bytes())
    first = resolve_module(handle, tmp_path)
    gcs.put("tiny.tar.gz", (DATA / "tiny_feature_vector_1.tar.gz").read_bytes())
    assert resolve_module(handle, tmp_path).fingerprint != first.fingerprint


def test_a_keras_file_on_gs(gcs, tmp_path):
    resolved = resolve_module(gcs.put("m/model.v1.keras", b"weights"), tmp_path)
    assert resolved.path.name == "model.v1.keras"
    assert resolved.path.read_bytes() == b"weights"


def test_nothing_on_gs(gcs, tmp_path):
    for name in ("absent", "absent.tar.gz"):
        with pytest.raises(ModuleError, match=f"gs://.*/{name}: nothing is there"):
            resolve_module(gcs.uri(name), tmp_path)


def _downloads(gcs):
    return sum(
        request.method == "GET" and ("alt" in request.query or "/download/" in request.path)
        for request in gcs.server.requests
    )
