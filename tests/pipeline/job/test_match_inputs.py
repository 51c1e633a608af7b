"""Values of ``--input``: lists, directories and patterns of images, and single images."""

import bz2
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.match_inputs import match_inputs
from beamlabel.pipeline.options.job_options import InputOptions
from support.jobs import command, label, photos, uri_list


@pytest.fixture
def album(tmp_path):
    """A directory with four photographs and the extra files of cameras, systems and photo programs."""
    directory = tmp_path / "photos"
    photos(directory, 3)
    (directory / "photo 001.png").rename(directory / "IMG_0001.PNG")
    photos(directory / "été #1", 1)
    (directory / "été #1" / "photo 000.png").rename(directory / "été #1" / "0f3a9c")
    for name, content in {
        ".DS_Store": b"\0\0\0\1Bud1", "Thumbs.db": b"\xd0\xcf\x11\xe0", "IMG_0001.PNG.xmp": b"<x/>",
        "README.md": b"# photos", "meta.json": b"{}", "metadata.csv": b"file_name\nIMG_0001.PNG\n",
        "IMG_0001.mov": b"\0\0\0\x14ftypqt", "notes": b"words",
    }.items():  # fmt: skip
        (directory / name).write_bytes(content)
    (directory / "@eaDir").mkdir()
    (directory / "@eaDir" / "thumb.jpg").write_bytes((directory / "IMG_0001.PNG").read_bytes())
    return directory


LEFT_OUT = {"hidden": 3, "not_an_image": 6}


def matched(*patterns, output="/nowhere/out", **options):
    found = match_inputs(InputOptions(input=tuple(map(str, patterns)), **options), output)
    return [(file.path, file.format) for file in found.files], found.left_out


@pytest.mark.parametrize("written", ["{}", "{}/", "{}/**", "file://{}", "gs"])
def test_a_directory_of_photographs_just_works(tmp_path, album, written, gcs):
    if written == "gs":
        for path in album.rglob("*"):
            if path.is_file():
                gcs.put(f"photos/{path.relative_to(album)}", path.read_bytes())
        written = f"{gcs.url}/photos"
    job = label(tmp_path / "out", "--input", written.format(album))
    assert job.code == 0 and job.succeeded
    assert job.manifest["rows"] == {"input": 4, "predicted": 4, "failed": 0, "skipped": 0}
    assert job.manifest["left_out"] == LEFT_OUT
    names = {row["uri"].rpartition("/")[2] for row in job.rows}
    assert names == {"IMG_0001.PNG", "photo 000.png", "photo 002.png", "0f3a9c"}


def test_the_rows_are_those_of_the_same_images_by_list(tmp_path, album):
    by_directory = label(tmp_path / "a", "--input", album).table.drop_columns(["ref_id", "labeled_at"])
    uris = by_directory.column("uri").to_pylist()
    by_list = label(tmp_path / "b", "--input", uri_list(tmp_path / "l.txt", uris)).table
    assert by_list.drop_columns(["ref_id", "labeled_at"]).equals(by_directory)


def test_paths_of_a_shell_are_one_listing(tmp_path, album):
    shell = sorted(path for path in album.iterdir() if path.is_file() and not path.name.startswith("."))
    job = label(tmp_path / "out", "--input", *shell)
    assert job.code == 0
    assert job.manifest["rows"]["predicted"] == 3
    assert job.manifest["left_out"] == {"hidden": 1, "not_an_image": 6}
    assert [file["kind"] for file in job.manifest["files"]] == ["data"]


def test_a_thousand_files_of_one_image_are_one_shard(tmp_path):
    paths = photos(tmp_path / "photos", 2)
    lists = [uri_list(tmp_path / f"{n:04}.txt", [paths[n % 2]]) for n in range(1000)]
    job = label(tmp_path / "out", "--input", tmp_path / "*.txt")
    assert job.code == 0
    assert [(file["kind"], file["rows"]) for file in job.manifest["files"]] == [("data", 1000)]
    assert [row["ref_id"] for row in job.rows] == [f"{path}#0" for path in lists]


def test_one_photograph_and_a_broken_one(tmp_path, album):
    assert label(tmp_path / "a", "--input", album / "IMG_0001.PNG").manifest["rows"]["predicted"] == 1
    (tmp_path / "broken.jpg").write_bytes(b"")
    job = label(
        tmp_path / "b", "--input", tmp_path / "broken.jpg", album / "IMG_0001.PNG", "--max_error_rate", "1"
    )
    assert job.manifest["failed_by_reason"] == {"empty_file": 1}
    assert [failure["uri"] for failure in job.failures] == [str(tmp_path / "broken.jpg")]


def test_include_and_exclude(tmp_path, album):
    job = label(
        tmp_path / "out", "--input", album, "--include", "*.{png,jpg}", "--exclude", "photo 002*", "@eaDir/"
    )
    assert sorted(row["uri"].rpartition("/")[2] for row in job.rows) == ["IMG_0001.PNG", "photo 000.png"]
    assert job.manifest["left_out"] == {"excluded": 11}


def test_include_and_exclude_choose_among_lists(tmp_path, album):
    lists = tmp_path / "lists"
    lists.mkdir()
    for name in ("a.txt", "b.txt", "c.old"):
        uri_list(lists / name, [album / "IMG_0001.PNG"])
    found, _ = matched(lists, include=("*.TXT",), exclude=("b*",))
    assert found == [(str(lists / "a.txt"), "text")]
    with pytest.raises(UsageError, match="--include"):
        matched(lists, include=("*.parquet",))


def test_a_list_beside_a_photograph_of_another_directory_is_a_list(tmp_path, album):
    other = uri_list(tmp_path / "list.txt", [album / "photo 000.png"])
    found, left_out = matched(album / "IMG_0001.PNG", other, album / "README.md")
    assert found == [(str(album / "IMG_0001.PNG"), "images"), (str(other), "text")]
    assert left_out == {"not_an_image": 1}


def test_a_list_beside_a_photograph_of_its_directory_is_not_dropped(album):
    listed = uri_list(album / "list.txt", [album / "photo 000.png"])
    with pytest.raises(UsageError, match="may be a list"):
        matched(listed, album / "photo 000.png")
    # A shell expands a pattern to all files that are not hidden, including those beside the images.
    found, left_out = matched(
        *(path for path in sorted(album.iterdir()) if path.is_file() and path.name[0] != ".")
    )
    assert {kind for _, kind in found} == {"images"} and left_out == {"hidden": 1, "not_an_image": 7}


def test_a_directory_that_could_mean_two_things_is_refused(tmp_path, album):
    pq.write_table(pa.table({"uri": ["a.jpg"]}), album / "data.parquet")
    with pytest.raises(UsageError, match=r"data\.parquet.*--input_format"):
        matched(album)
    with pytest.raises(UsageError, match="not parquet as in --input_format"):
        matched(album, input_format="parquet")
    assert matched(album, exclude=("*.parquet",))[0] == [(f"{album}", "images")]
    assert matched(album, include=("*.parquet",))[0] == [(f"{album}/data.parquet", "parquet")]
    assert matched(album, input_format="images")[0] == [(f"{album}", "images")]


def test_a_directory_without_an_image_reports_its_other_files(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.json").write_text("{}")
    with pytest.raises(UsageError, match="1 not_an_image"):
        matched(tmp_path / "photos", input_format="images")
    with pytest.raises(UsageError, match="matches no file"):
        matched(tmp_path / "none")


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_bad_glob_names_its_option(album, option):
    with pytest.raises(UsageError, match=f"--{option}: "):
        matched(album, **{option: ("[b-a]",)})


def test_the_output_is_not_among_the_images(album):
    with pytest.raises(UsageError, match="is among the files"):
        matched(album, output=str(album / "labels"))


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "movie.mp4", "unknown"])
def test_a_file_of_no_format_is_refused(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"\0\1\2\3")
    with pytest.raises(UsageError, match=name):
        matched(tmp_path / "in" / name)
    with pytest.raises(UsageError, match="in"):
        matched(tmp_path / "in")


def test_a_bucket_is_a_directory(album, gcs):
    for path in album.glob("*.png"):
        gcs.put(path.name, path.read_bytes())
    for bucket in (gcs.url, f"{gcs.url}/"):
        assert matched(bucket)[0] == [(bucket, "images")]
    with pytest.raises(UsageError, match="--input"):
        matched("gs://no-such-bucket-here")


def test_a_dataset_with_its_card_is_the_dataset(tmp_path):
    directory = tmp_path / "hf"
    (directory / "data").mkdir(parents=True)
    pq.write_table(pa.table({"uri": ["a.jpg"]}), directory / "data" / "train.parquet")
    for name, content in {
        "README.md": "---\nlicense: mit\n---\n| train | 10 |\n", "LICENSE": "MIT\n", "LICENSE.txt": "MIT\n",
        "dataset_infos.json": '{"default": null}\n', "load.py": "import datasets\n", "notes": "words\n",
    }.items():  # fmt: skip
        (directory / name).write_text(content)
    files, left_out = matched(directory)
    assert files == [(str(directory / "data" / "train.parquet"), "parquet")]
    assert left_out == {"document": 6}
    uri_list(directory / "more.txt", ["b.jpg"])
    assert [kind for _, kind in matched(directory)[0]] == ["parquet", "text"]


def test_a_directory_of_lists_is_its_lists(tmp_path):
    directory = tmp_path / "lists"
    directory.mkdir()
    for name in ("part-00000", "part-00001", "old.lst", "README.md", "SHA256SUMS.sha256"):
        uri_list(directory / name, ["a.jpg", "b.jpg"])
    files, left_out = matched(directory)
    assert [path.rpartition("/")[2] for path, _ in files] == ["old.lst", "part-00000", "part-00001"]
    assert left_out == {"document": 2}
    # A file that is named explicitly is always included.
    assert matched(directory / "README.md")[0] == [(str(directory / "README.md"), "text")]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.zip", "zip"), ("a.tar", "tar"), ("a.tar.gz", "tar"), ("a.TGZ", "tar"), ("a.txt", "text")],
)
def test_a_page_of_an_error_in_place_of_an_archive_is_no_list(tmp_path, name, kind):
    (tmp_path / name).write_text("<html>\nnot found\n</html>\n")
    assert matched(tmp_path / name) == ([(str(tmp_path / name), kind)], {})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", b"<html>\n</html>\n"),
        ("a.pdf", b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"),
        ("a.csv.bz2", bz2.compress(b"a.jpg,1\n" * 9)),
    ],
)
def test_a_binary_file_is_no_list(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=name):
        matched(tmp_path / name)


def test_a_name_that_is_not_utf8_can_be_named(tmp_path):
    (photo,) = photos(tmp_path / "photos", 1)
    photo.rename(named := tmp_path / os.fsdecode(b"\xff.png"))
    job = label(tmp_path / "out", "--input", named)
    assert job.manifest["options"]["input"] == [str(named)]
    assert job.manifest["rows"]["predicted"] == 1
    assert command("verify", tmp_path / "out").returncode == 0


def test_an_input_from_the_web_is_refused_without_its_password():
    with pytest.raises(UsageError, match="--allow_http") as error:
        matched("HTTPS://user:secret@example.org/a.jpg")
    assert "secret" not in str(error.value)
