"""Parquet files that unpack to enormous sizes, have false metadata, are damaged, or hold invalid text."""

import base64
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as encryption
import pytest

from beamlabel.transforms.inputs.parquet import footers
from beamlabel.transforms.inputs.parquet.page_guard import BATCH_BYTES
from beamlabel.transforms.inputs.parquet_rows import check_parquet
from beamlabel.transforms.inputs.parquet_source import choose_columns, open_parquet
from beamlabel.transforms.inputs.selection import Selection
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.records import Failure, InputFile, Reason
from beamlabel.transforms.units.open_unit import open_unit
from beamlabel.transforms.units.plan_units import plan_files

MOST = 10 * BATCH_BYTES
"""Bytes that a process may need more than without the attack: a batch, its page, what Python makes of them, and what
Arrow's pool keeps. Without limits they would be gigabytes."""


def outcomes(path, *, uri="uri", image=None, kept=(), **options):
    """The references of a file by id: the URI or the reason."""
    with open_parquet(path) as file:
        columns = choose_columns(file.schema_arrow, uri=uri, image=image, kept=kept, path=path)
    made = SourceOptions("/", columns, **options)
    units = list(plan_files([(0, InputFile(path, "parquet"))], made))
    selection, found = Selection(made.selection), {}
    for unit in units:
        *refs, end = open_unit(unit, made, selection)
        assert end.sent == len(refs)
        for ref in refs:
            assert ref.ref_id not in found
            found[ref.ref_id.removeprefix(path)] = ref.reason if isinstance(ref, Failure) else ref.uri
    return found


def written(tmp_path, columns, **options):
    path = str(tmp_path / "list.parquet")
    pq.write_table(pa.table(columns), path, **options)
    return path


MEGABYTE = "a" * 1_000_000  # writers drop a dictionary of more than 1 MiB
KINDS = {"large string": pa.large_string(), "binary": pa.binary(), "list": pa.list_(pa.string())}
BOMBS = {
    "dictionary": {"use_dictionary": True},
    "large string": {"use_dictionary": True},
    "binary": {"use_dictionary": True},
    "plain": {"use_dictionary": False, "compression": "zstd"},
    "version 2": {"use_dictionary": False, "compression": "gzip", "data_page_version": "2.0"},
    "delta": {"use_dictionary": False, "column_encoding": {"uri": "DELTA_BYTE_ARRAY"}, "compression": "none"},
    "list": {"use_dictionary": True},
    "delta list": {"use_dictionary": False, "column_encoding": {"uri.list.element": "DELTA_BYTE_ARRAY"}},
}


def bomb_values(bomb):
    """Creates the values on demand: some take a gigabyte, and one process collects all tests."""
    kind = KINDS.get(bomb.removeprefix("delta "), pa.string())
    one = [MEGABYTE] * 3 if pa.types.is_list(kind) else MEGABYTE
    part = pa.array([one] * (10 if pa.types.is_list(kind) else 30), kind)
    return pa.chunked_array([part] * 50)


_CHILD = """
import sys
sys.path[:0] = {path!r}
from test_attacks import outcomes, peak_of
for path, options in {calls!r}:
    found, peak = peak_of(lambda: outcomes(path, **options))
    print(len(found), sorted(set(map(str, found.values())))[:5], peak, sep="\\t", flush=True)
"""


def peak_of(call):
    """The result of a call, and the peak growth of the process in bytes.

    ``ru_maxrss`` is unsuitable, since it begins with that of the parent.
    """

    def status(name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

    Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    before = status("VmRSS:")
    found = call()
    return found, status("VmHWM:") - before


def in_child(*calls):
    """For each file with options: the number of references, their outcomes, and the memory in bytes."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux's /proc")
    program = _CHILD.format(path=[str(Path(__file__).parent), *sys.path], calls=calls)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    lines = [line.split("\t") for line in run.stdout.splitlines()]
    return [(int(count), found, int(peak)) for count, found, peak in lines]


@pytest.mark.parametrize(
    "bomb",
    [pytest.param(bomb, marks=() if bomb in ("dictionary", "delta") else pytest.mark.long) for bomb in BOMBS],
)
def test_long_values_take_little_memory(tmp_path, bomb):
    path = written(tmp_path, {"uri": bomb_values(bomb)}, **BOMBS[bomb])
    assert Path(path).stat().st_size < 3 << 20
    ((count, outcome, peak),) = in_child((path, {}))
    # The length of an unread list is unknown.
    assert (count, outcome) == (500 if "list" in bomb else 1500, "['Reason.URI_TOO_LONG']")
    assert peak < MOST


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_values_that_repeat_each_other_are_read_however_many_they_are(tmp_path, version):
    """A ``DELTA_BYTE_ARRAY`` page is small; the size of its values follows from their lengths."""
    uris = [f"https://images.example/{'a' * 200}/{n // 50:06}/{n % 50:03}.jpg" for n in range(30_000)]
    uris[777] = uris[29_000] = "b" * 70_000
    lists = [uris[n : n + 3] for n in range(0, len(uris), 3)]
    for values, name in ((uris, "uri"), (lists, "uri.list.element")):
        encoding = {"use_dictionary": False, "column_encoding": {name: "DELTA_BYTE_ARRAY"}}
        found = outcomes(
            written(tmp_path, {"uri": values}, data_page_version=version, **encoding), shard_rows=10_000
        )
        assert list(found.values()) == [Reason.URI_TOO_LONG if uri[0] == "b" else uri for uri in uris]


def test_a_kept_column_of_long_values_takes_little_memory(tmp_path):
    texts = pa.chunked_array([pa.array([MEGABYTE] * 30)] * 50)
    columns = {"uri": [f"{n}.jpg" for n in range(1500)], "text": texts, "more": texts}
    ((count, found, peak),) = in_child((written(tmp_path, columns), {"kept": ["text", "more"]}))
    assert (count, found) == (1500, "['Reason.TOO_MANY_BYTES']")
    assert peak < 2 * MOST, "each column may take as much"


def test_long_values_fail_alone_and_rows_stay_in_place(tmp_path):
    uris = [f"{n}.jpg" for n in range(20_000)]
    for place in (0, 4_095, 4_096, 12_345, 19_999):
        uris[place] = MEGABYTE + str(place)
    for options in ({}, {"use_dictionary": False}, {"row_group_size": 3_000, "write_page_index": True}):
        path = written(tmp_path, {"uri": uris}, **options)
        for units in ({}, {"shard_rows": 777}, {"min_unit_rows": 5_000}):
            found = outcomes(path, **units)
            assert list(found) == [f"#{n}" for n in range(20_000)]
            assert all(
                one is Reason.URI_TOO_LONG if len(uri) > 1_000 else one == uri
                for one, uri in zip(found.values(), uris, strict=True)
            )


def test_a_page_that_is_a_bomb_is_not_unpacked(tmp_path):
    """One value of 600 MB in 20 KB: later rows of its row group fail, rows of other row groups do not."""
    schema = pa.schema([("uri", pa.large_string())])
    path = str(tmp_path / "list.parquet")
    with pq.ParquetWriter(path, schema, use_dictionary=False, compression="zstd") as file:
        file.write_table(pa.table({"uri": ["a.jpg"]}, schema))
        huge = pa.array([b"a" * (300 << 20)], pa.large_binary()).cast(pa.large_string())
        file.write_table(pa.table({"uri": huge}, schema))
        file.write_table(pa.table({"uri": ["b.jpg"]}, schema))
    del huge
    ((count, found, peak),) = in_child((path, {}))
    assert (count, found) == (3, "['Reason.URI_TOO_LONG', 'a.jpg', 'b.jpg']")
    assert peak < MOST


BAD = b"caf\xe9.jpg"


def not_text(values, kind):
    """An array of strings whose bytes are not UTF-8."""
    return pa.array(values, pa.large_binary() if kind == pa.large_string() else pa.binary()).view(kind)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()], ids=str)
@pytest.mark.parametrize("dictionary", [True, False])
def test_a_string_that_is_no_utf8_fails_alone(tmp_path, kind, dictionary):
    values = not_text([b"a.jpg", BAD, None, b"b.jpg"], kind)
    path = written(tmp_path, {"uri": values.dictionary_encode() if dictionary else values})
    expected = {"#0": "a.jpg", "#1": Reason.INVALID_URI, "#2": Reason.NULL_URI, "#3": "b.jpg"}
    assert outcomes(path) == expected
    assert outcomes(path, shard_rows=1) == expected
    assert list(outcomes(path, sample=0.999999)) == list(expected)
    assert outcomes(path, limit=2) == {name: expected[name] for name in ("#0", "#1")}


def test_strings_of_lists_and_structs_that_are_no_utf8(tmp_path):
    lists = pa.ListArray.from_arrays([0, 2, 3], not_text([b"a.jpg", BAD, b"b.jpg"], pa.string()))
    assert outcomes(written(tmp_path, {"uri": lists})) == {
        "#0#0": "a.jpg", "#0#1": Reason.INVALID_URI, "#1#0": "b.jpg",
    }  # fmt: skip
    images = pa.StructArray.from_arrays(
        [pa.array([None, None, b"x"], pa.binary()), not_text([b"a.jpg", BAD, BAD], pa.string())],
        names=["bytes", "path"],
    )
    found = outcomes(written(tmp_path, {"image": images}), uri=None, image="image")
    assert found["#0"] == "a.jpg" and found["#1"] is Reason.INVALID_URI
    assert found["#2"].endswith("#2"), "its image is there"


@pytest.mark.parametrize("kind", [pa.string(), pa.list_(pa.string())], ids=str)
def test_a_kept_string_that_is_no_utf8_fails_its_row(tmp_path, kind):
    values = not_text([b"x", BAD, b"y"], pa.string())
    if kind != pa.string():
        values = pa.ListArray.from_arrays([0, 1, 2, 3], values)
    path = written(tmp_path, {"uri": ["a", "b", "c"], "label": values})
    assert outcomes(path, kept=["label"]) == {"#0": "a", "#1": Reason.INVALID_ROW, "#2": "c"}


class Kms(encryption.KmsClient):
    def __init__(self, _):
        super().__init__()

    def wrap_key(self, key, _):
        return base64.b64encode(key)

    def unwrap_key(self, key, _):
        return base64.b64decode(key)


@pytest.mark.parametrize("plain_footer", [True, False])
def test_encrypted_files_are_refused_by_name(tmp_path, plain_footer):
    """pyarrow aborts the process if it reads an encrypted chunk."""
    table = pa.table({"uri": ["a.jpg"], "label": ["cat"]})
    config = encryption.EncryptionConfiguration(
        footer_key="k", column_keys={"k": ["label"]}, plaintext_footer=plain_footer
    )
    factory = encryption.CryptoFactory(Kms)
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), config)
    path = tmp_path / "list.parquet"
    with pq.ParquetWriter(str(path), table.schema, encryption_properties=properties) as file:
        file.write_table(table)
    with pytest.raises(ValueError, match=r"list\.parquet.*encrypt"), open_parquet(str(path)):
        pass


def ways_to_damage(data):
    """Damaged files by name; pyarrow raises different errors for them."""
    length = int.from_bytes(data[-8:-4], "little")
    footer = len(data) - 8 - length
    yield "cut", data[: len(data) // 2]
    yield "cut footer", data[:-20]
    yield "footer of zeros", data[:footer] + bytes(length) + data[-8:]
    yield "footer length", data[:-8] + (len(data) * 2).to_bytes(4, "little") + data[-4:]
    yield "no footer", data[:4] + data[-8:]
    yield "a name that is no UTF-8", data[:footer] + data[footer:].replace(b"label", b"lab\xffl")


def test_damaged_footers_are_errors_that_name_the_file(tmp_path):
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"uri": ["a.jpg"] * 10, "label": [1] * 10}), path, store_schema=False)
    whole = path.read_bytes()
    for name, data in ways_to_damage(whole):
        path.write_bytes(data)
        footers.forget()
        with pytest.raises(ValueError, match=r"list\.parquet"), open_parquet(str(path)):
            raise AssertionError(name)


def test_each_byte_of_a_footer_may_be_wrong(tmp_path):
    """Every error names the file, and no wrong rows come out."""
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"uri": [f"{n}.jpg" for n in range(10)]}), path, compression="none")
    whole = bytearray(path.read_bytes())
    begin = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for at in range(begin, len(whole), 7):
        data = bytearray(whole)
        data[at] ^= 0x15
        path.write_bytes(data)
        try:
            with open_parquet(str(path)) as file:
                columns = choose_columns(file.schema_arrow, uri=None, image=None, kept=(), path=str(path))
            check_parquet(str(path), columns)
        except ValueError as error:
            assert "list.parquet" in str(error), at


def test_row_counts_that_lie_are_refused(tmp_path):
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"uri": [f"{n}.jpg" for n in range(50)]}), path)
    whole = path.read_bytes()
    # FileMetaData.num_rows, RowGroup.num_rows, ColumnChunk.num_values: 50 as a zigzag varint in i64 fields.
    places = [at for at in range(len(whole) - 2) if whole[at] == 0x16 and whole[at + 1] == 100]
    assert len(places) >= 3
    refused = 0
    for at in places[-5:]:
        path.write_bytes(whole[: at + 1] + bytes([120]) + whole[at + 2 :])
        try:
            with open_parquet(str(path)) as file:
                columns = choose_columns(file.schema_arrow, uri="uri", image=None, kept=(), path=str(path))
            check_parquet(str(path), columns)
        except ValueError as error:
            assert "list.parquet" in str(error)
            refused += 1
    assert refused >= 3


@pytest.mark.parametrize("planned", [{}, {"shard_rows": 10}, {"sample": 0.9999}, {"limit": 75}])
def test_pages_that_cannot_be_read_are_failures(tmp_path, planned):
    path = tmp_path / "list.parquet"
    uris = [f"https://images.example/{n:05}.jpg" for n in range(90)]
    pq.write_table(
        pa.table({"uri": uris}), path, row_group_size=30, use_dictionary=False, compression="snappy"
    )
    data = bytearray(path.read_bytes())
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    for at in range(chunk.data_page_offset + 40, chunk.data_page_offset + chunk.total_compressed_size):
        data[at] = 0xFF
    path.write_bytes(data)
    found = outcomes(str(path), **planned)
    assert found == {
        f"#{n}": Reason.CORRUPT if 30 <= n < 60 else uris[n] for n in range(planned.get("limit", 90))
    }


def test_a_wrong_checksum_of_a_page_is_a_failure(tmp_path):
    path = tmp_path / "list.parquet"
    uris = [f"{n}.jpg" for n in range(10)]
    pq.write_table(
        pa.table({"uri": uris}), path, use_dictionary=False, compression="none", write_page_checksum=True
    )
    data = path.read_bytes()
    path.write_bytes(data.replace(b"5.jpg", b"6.jpg", 1))
    assert set(outcomes(str(path)).values()) == {Reason.CORRUPT}


def test_ordinary_files_are_read_in_whole_batches(tmp_path):
    path = written(tmp_path, {"uri": [f"{n}.jpg" for n in range(50_000)]}, row_group_size=50_000)
    with open_parquet(path) as file:
        sizes = [batch.num_rows for batch in file.iter_batches(4096, columns=["uri"])]
    assert sizes == [4096] * 12 + [50_000 - 12 * 4096]


def test_small_batches_hold_the_same_rows(tmp_path):
    """Values of a megabyte between short ones in a dictionary: each row comes once, even after rereads."""
    values = pa.array(["y", "x" * 1_000_000]).take(pa.array([n % 97 == 0 for n in range(5_000)]).cast("int8"))
    path = written(tmp_path, {"n": list(range(5_000)), "text": pc.binary_join_element_wise(values, "", "")})
    with open_parquet(path) as file:
        batches = list(file.iter_batches(4096, columns=["n"]))
        assert [n for batch in batches for n in batch.column(0).to_pylist()] == list(range(5_000))
        rows = 0
        for batch in file.iter_batches(4096):
            assert batch.nbytes < 2 * BATCH_BYTES
            assert batch.column(0).to_pylist() == list(range(rows, rows + batch.num_rows))
            rows += batch.num_rows
    assert rows == 5_000
