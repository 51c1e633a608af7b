"""``docs/nightly.md`` is correct: bash runs its week on a GCS server and gets the page's results.

beamlabel is real, with a small module and its names in place of the page's. gcloud copies and reads objects of that
server. bq and kubectl record their arguments, and DuckDB then runs bq's commands.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile

import duckdb
import pyarrow.parquet as pq
import pytest

import support.nightly_deployment as deployment
from beamlabel.pipeline.options.parser import parse
from support.bq_load import check_lists, flags, load_failures
from support.gcs_server import Bucket, GcsServer
from support.jobs import TINY, photos
from support.nightly_deployment import ROOT

PAGE = (ROOT / "docs" / "nightly.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```(?:\n\n```text\n(.*?)```)?", PAGE, re.DOTALL)

# An hour or two per unit on Friday, and another active run on Thursday, each only the first time.
BEAMLABEL = """#!{python}
import os, subprocess, sys, time
sys.path.insert(0, {root!r})
words = [word.replace("gs://my-bucket", {bucket!r}) for word in sys.argv[1:]]
for there, here in {modules!r}.items():
    words = [word.replace(there, here) for word in words]
if "--module" in words:
    words += ["--labels", {directory!r} + "/names"]
date = words[words.index("--run_date") + 1] if "--run_date" in words else ""
seen = {directory!r} + "/seen " + date
is_first = not os.path.exists(seen)
open(seen, "w").close()
if date == "2026-11-26" and is_first:
    from beamlabel.pipeline.output.lock import locked
    with locked({bucket!r} + "/labels/dt=" + date):
        sys.exit(subprocess.run([sys.executable, "-m", "beamlabel", *words]).returncode)
if date == "2026-11-27" and is_first:
    import beamlabel.transforms.units.open_unit
    class Clock:
        now = time.time()
        @classmethod
        def time(cls):
            cls.now += 2 * 3600
            return cls.now
    beamlabel.transforms.units.open_unit.time = Clock
sys.argv[1:] = words
from beamlabel.pipeline.__main__ import console
console()
"""
GCLOUD = """#!{python}
import sys
sys.path.insert(0, {root!r})
from beamlabel.transforms import storage
words = [word.replace("gs://my-bucket", {bucket!r}) for word in sys.argv[1:]]
assert words[0] == "storage"
if words[1] == "cp":
    *files, directory = words[2:]
    assert directory.endswith("/")
    for file in files:
        storage.write_bytes(directory + file.rpartition("/")[2], open(file, "rb").read())
elif words[1] == "rm":
    storage.delete(words[2])
elif words[1] == "cat":
    for file in storage.match(words[2]):
        print(storage.read_bytes(file.path).decode(), end="")
else:
    sys.exit(f"gcloud storage {{words[1]}}: not one of those that the page has")
"""
RECORD = """#!{python} -S
import json, sys
with open({directory!r} + "/{name}.log", "a") as log:
    print(json.dumps(sys.argv[1:]), file=log)
"""


def write_programs(directory, bucket, modules):
    names = {"python": sys.executable, "root": str(ROOT), "bucket": bucket.url, "directory": str(directory)}
    for name, program in (("beamlabel", BEAMLABEL), ("gcloud", GCLOUD), ("bq", RECORD), ("kubectl", RECORD)):
        path = directory / "path" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(program.format(**names, name=name, modules=modules))
        path.chmod(0o755)


def write_photos(directory):
    """Writes the uploads of each day."""
    everything = photos(directory / "all", 261)
    first, second, third = everything[:200], everything[200:240], everything[240:260]
    for day, paths in {"monday": first, "tuesday": second, "wednesday": third, "again": third[:8]}.items():
        (directory / day).mkdir()
        for path in paths:
            shutil.copy(path, directory / day)
    shutil.copy(everything[260], directory / "tuesday" / first[7].name)
    for number in range(3):
        (directory / "tuesday" / f"scan {number}.png").write_text(f"no photograph {number}")
    for path in third[:8]:
        cut = directory / "wednesday" / path.name
        cut.write_bytes(cut.read_bytes()[:-400])


def other_module(directory):
    """The same module with one more file and so another fingerprint."""
    path = directory / "other.tar.gz"
    (directory / "note").write_text("another version")
    with tarfile.open(TINY) as there, tarfile.open(path, "w:gz") as made:
        for member in there:
            made.addfile(member, there.extractfile(member) if member.isfile() else None)
        made.add(directory / "note", "assets/note.txt")
    return path


class Week:
    """The results of the week.

    Attributes:
      said: For each block of commands with a shown outcome: that outcome and the actual one.
      directory: The working directory.
      bucket: The bucket after the week; ``mirror`` is a local copy.
    """

    def __init__(self, directory, bucket):
        self.directory, self.bucket = directory, bucket
        write_photos(directory)
        (directory / "names").write_text("".join(f"class {n}\n" for n in range(11)))
        old, new = re.findall(r"^MODULE=(\S+)$", PAGE, re.MULTILINE)
        write_programs(directory, bucket, {old: TINY, new: str(other_module(directory))})
        script = "\n".join(
            f"echo '# {n}'\n{{\n{block}}} 2>&1\necho exit code $?" for n, (block, _) in enumerate(BLOCKS)
        )
        path = os.pathsep.join([str(directory / "path"), "/usr/bin", "/bin"])
        environment = {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(directory)}
        environment |= {name: os.environ[name] for name in ("BEAMLABEL_CACHE", "STORAGE_EMULATOR_HOST")}
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        outcomes = re.split(
            r"^# \d+\n", done.stdout.replace(bucket.url, "gs://my-bucket"), flags=re.MULTILINE
        )[1:]
        self.outcomes = outcomes
        self.said = [(text, out) for (_, text), out in zip(BLOCKS, outcomes, strict=True) if text]
        self.mirror = directory / "mirror"
        for name in bucket.list():
            (self.mirror / name).parent.mkdir(parents=True, exist_ok=True)
            (self.mirror / name).write_bytes(bucket.get(name))

    def told(self, program):
        return [json.loads(line) for line in (self.directory / f"{program}.log").read_text().splitlines()]

    def here(self, text):
        return text.replace("gs://my-bucket", str(self.mirror))

    def mirrored(self, uri):
        return self.here(uri.replace(self.bucket.url, "gs://my-bucket"))


@pytest.fixture(scope="module")
def week(tmp_path_factory, cache):
    server = GcsServer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield Week(tmp_path_factory.mktemp("week"), Bucket(server, "week"))
    server.close()


def test_the_week_is_as_the_page_tells(week):
    assert len(week.said) == 10
    for said, out in week.said:
        lines = out.splitlines()
        for line in said.splitlines():
            pattern = re.escape(line).replace("…", ".+")
            matched = [number for number, text in enumerate(lines) if re.fullmatch(pattern, text)]
            assert matched, f"{line!r} is not in\n{out}"
            lines = lines[matched[0] + 1 :]
        assert not lines, "the exit code comes last"
    codes = [out.splitlines()[-1] for out in week.outcomes]
    assert set(codes) == {f"exit code {code}" for code in (0, 1, 4, 75)}


def test_the_nights_command_is_that_of_the_schedules():
    (function,) = re.findall(r"^night\(\) \{\n(.*?)^\}", PAGE, re.DOTALL | re.MULTILINE)
    program = f"beamlabel() {{ printf '%s\\n' \"$@\"; }}\nMODULE={deployment.MODULE}\n{function}"
    command = ["bash", "-c", program, "night", "2026-11-23"]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    scheduled = [word.replace("BUCKET", "my-bucket") for word in deployment.arguments("cronjob.yaml")]
    there, here = parse([*scheduled, "--run_date", "2026-11-23"])[0], parse(words)[0]
    assert there == here


def manifest(week, directory):
    return json.loads((week.mirror / directory / "_MANIFEST.json").read_text())


def data_files(week, directory):
    files = manifest(week, directory)["files"]
    return [week.mirror / directory / file["name"] for file in files if file["kind"] == "data"]


@pytest.mark.parametrize(
    ("night", "failed", "skipped"),
    [
        ("2026-11-24", {"not_an_image": 3}, {"labeled": 199}),
        ("2026-11-25", {"truncated": 8}, {"labeled": 240, "known_failure": 3}),
        ("2026-11-26", {}, {"labeled": 259, "known_failure": 3}),
        ("2026-11-27", {}, {"known_failure": 3}),
    ],
)
def test_images_fail_and_are_skipped_for_the_reasons_that_the_page_gives(week, night, failed, skipped):
    told = manifest(week, f"labels/dt={night}")
    assert {name: count for name, count in told["failed_by_reason"].items() if count} == failed
    assert {name: count for name, count in told["skipped_by_reason"].items() if count} == skipped


def test_what_is_published_is_what_is_there(week):
    nights = sorted(path.parent.relative_to(week.mirror) for path in week.mirror.rglob("_MANIFEST.json"))
    assert len(nights) == 6 + 2  # two of them compacted
    for night in nights:
        there = {
            path.relative_to(week.mirror / night)
            for path in (week.mirror / night).rglob("*")
            if path.is_file()
        }
        named = {file["name"] for file in manifest(week, night)["files"]}
        success = set() if str(night) == "labels/dt=2026-11-25" else {"_SUCCESS"}
        report = {"_report.html"} if night.parent.name == "labels" else set()
        units = {"_beamlabel/units.json"} if night.parent.name != "current" else set()
        assert set(map(str, there)) == {"_MANIFEST.json", *units, *success, *report, *named}


def test_the_compacted_table_is_that_of_the_newest_rows(week):
    newest = {
        row["uri"]: row
        for path in data_files(week, "labels/dt=2026-11-27")
        for row in pq.read_table(path).to_pylist()
    }
    for directory in ("current/2026-11-29", "current/2026-12-31"):
        rows = [row for path in data_files(week, directory) for row in pq.read_table(path).to_pylist()]
        assert len(rows) == 259 and {row["uri"]: row for row in rows} == newest


def test_a_night_with_nothing_new_has_all_columns(week):
    (empty,) = data_files(week, "labels/dt=2026-11-26")
    full = data_files(week, "labels/dt=2026-11-24")[0]
    assert pq.read_metadata(empty).num_rows == 0
    assert pq.read_schema(empty) == pq.read_schema(full)


def test_each_image_has_one_row_of_each_module_but_the_one_that_changed(week):
    rows = [
        row
        for night in [*sorted((week.mirror / "labels").iterdir()), week.mirror / "retried" / "dt=2026-11-25"]
        for file in data_files(week, night.relative_to(week.mirror))
        for row in pq.read_table(file, columns=["uri", "module_fingerprint", "source_version"]).to_pylist()
    ]
    assert len({tuple(row.values()) for row in rows}) == len(rows) == 260 + 1 + 259
    pairs = [(row["uri"], row["module_fingerprint"]) for row in rows]
    (changed,) = {pair for pair in pairs if pairs.count(pair) > 1}
    assert changed[0].endswith("photos/photo 007.png")


def queries(shown):
    """The page's SQL with a shown outcome, and the SQL without one."""
    return [
        block for block in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL) if (";\n-- " in block) == shown
    ]


def test_the_queries_give_the_rows_on_the_page(week):
    assert len(queries(shown=True)) == 2
    for block in queries(shown=True):
        query, _, shown = block.partition(";\n-- ")
        found = duckdb.connect().execute(week.here(query)).fetchall()
        rows = ["  ".join(map(str, row)) for row in found]
        assert rows == [line.removeprefix("-- ") for line in shown.strip().splitlines()][1:]


def test_the_current_table_equals_the_images_in_the_bucket(week):
    """Runs the page's SQL in DuckDB, and Spark's query over the same tables."""
    database = duckdb.connect()
    _, duck = queries(shown=True)
    database.execute(week.here(duck.partition("\nSELECT count")[0]))
    found = database.execute("SELECT parse_filename(uri) FROM current_labels").fetchall()
    photographs = [name.rpartition("/")[2] for name in week.bucket.list("photos/photo ")]
    assert len(photographs) == 259 and sorted(name for (name,) in found) == sorted(photographs)
    spark, _ = queries(shown=False)
    *_, view = spark.split("CREATE TEMPORARY VIEW ")
    assert "failures" in view
    database.execute(f"CREATE VIEW spark_{view}")
    by_spark = database.execute("SELECT parse_filename(uri) FROM spark_current_labels").fetchall()
    assert sorted(by_spark) == sorted(found)


def test_the_tombstone_is_of_the_deleted_photograph(week):
    (file,) = [file for file in manifest(week, "labels/dt=2026-11-26")["files"] if file["kind"] == "deleted"]
    (row,) = pq.read_table(week.mirror / "labels/dt=2026-11-26" / file["name"]).to_pylist()
    assert row["uri"].endswith("/photos/photo 012.png")
    tombstones = [path for path in week.bucket.list("labels/") if "/_deleted/" in path]
    assert len(tombstones) == 1


def test_the_schema_for_bigquery_fits_the_files(week):
    """A load appends the rows of its files with the column in their path; DuckDB runs it."""
    database = duckdb.connect()
    database.execute("CREATE SCHEMA photos")
    is_made = False
    loads = []
    for command, *arguments in week.told("bq"):
        if command == "query":
            assert flags(arguments) == {"use_legacy_sql": "false"}
            database.execute(arguments[-1])
            continue
        assert command == "load"
        if "photos.failures" in arguments:
            load_failures(database, week.mirrored, arguments)
            continue
        table, uris = arguments[-2:]
        told = flags(arguments)
        if table == "photos.deleted":
            assert told == {"source_format": "PARQUET"}
            files = [week.mirrored(uri) for uri in uris.split(",")]
            database.execute(
                f"CREATE TABLE {table} AS SELECT * FROM read_parquet({files}, hive_partitioning = false)"
            )
            continue
        layout = told["hive_partitioning_source_uri_prefix"]
        prefix, key, kind = re.fullmatch(r"(gs://.*/)\{(\w+):(\w+)\}", layout).groups()
        assert (told["source_format"], told["hive_partitioning_mode"]) == ("PARQUET", "CUSTOM")
        assert told["time_partitioning_field"] == key
        uris = [uri.replace(week.bucket.url, "gs://my-bucket") for uri in uris.split(",")]
        assert all(re.fullmatch(rf"{re.escape(prefix)}{key}=\d{{4}}-\d\d-\d\d/[^/]+", uri) for uri in uris)
        loads += uris
        files = [week.here(uri) for uri in uris]
        rows = (
            f"SELECT * FROM read_parquet({files}, hive_partitioning = true, hive_types = {{'{key}': {kind}}})"
        )
        database.execute(
            f"{'INSERT INTO' if is_made else 'CREATE TABLE'} {table} {'' if is_made else 'AS'} {rows}"
        )
        is_made = True
        assert told["clustering_fields"] in pq.read_schema(files[0]).names
        check_lists(files[0])
    nights = [f"labels/dt=2026-11-{day}" for day in (23, 24, 25, 26, 27, 27)]
    assert [week.here(uri) for uri in loads] == [
        str(file) for night in nights for file in data_files(week, night)
    ]
    counts = database.execute(
        "SELECT dt::VARCHAR, count(*) FROM photos.labels GROUP BY dt ORDER BY dt"
    ).fetchall()
    assert counts == [("2026-11-23", 200), ("2026-11-24", 41), ("2026-11-25", 12), ("2026-11-27", 259)]
    _, view = queries(shown=False)
    assert database.execute("SELECT count(*) FROM photos.failures").fetchall() == [(3 + 8,)]
    database.execute(view.replace("EXCEPT (age)", "EXCLUDE (age)"))
    (current,) = database.execute("SELECT count(*), min(dt)::VARCHAR FROM photos.current_labels").fetchall()
    assert current == (259, "2026-11-27")


def test_a_job_by_hand_has_the_nights_name(week):
    ((create, job, name, source),) = week.told("kubectl")
    assert (create, job) == ("create", "job")
    cronjob = deployment.cronjob()["metadata"]["name"]
    assert source == f"--from=cronjob/{cronjob}"
    date = subprocess.run(
        ["bash", "-c", 'date -u -d "@$((${1##*-} * 60))" +%F', "x", name],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert name.startswith(f"{cronjob}-") and date == "2026-11-27\n"
