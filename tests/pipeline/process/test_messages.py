"""Text from options, files and servers can neither forge a line nor move the cursor."""

import ast
import io
import json
import logging
import sys

import pytest

from beamlabel.pipeline.process.messages import OneLine, answer, answer_json, tell
from beamlabel.transforms.secrets.printable import escaped
from support.layers import files, tree

NASTY = "a\x1b[31m\r\nb\x00\x7f\x9b\u2028\u202e\udcff\U000e0041é"
SHOWN = "a\\x1b[31m\\r\\nb\\x00\\x7f\\x9b\\u2028\\u202e\\udcff\\U000e0041é"


def test_unprintable_characters_are_escaped():
    assert escaped(NASTY) == SHOWN
    assert escaped("naïve 東京 ☃ \\x1b") == "naïve 東京 ☃ \\x1b"
    assert escaped("a\nb\tc\x1b", kept="\n") == "a\nb\\tc\\x1b"


def test_a_line_on_stderr_stays_one(capsys):
    tell(NASTY, "beamlabel verify")
    assert capsys.readouterr().err == f"beamlabel verify: {SHOWN}\n"


def test_answers_keep_their_lines(capsys):
    answer("a\x1b\nb\n")
    assert capsys.readouterr().out == "a\\x1b\nb\n"


def test_json_is_printable_and_says_the_same(capsys):
    answer_json({"name": NASTY, "list": ["東京"]})
    text = capsys.readouterr().out
    assert text.replace("\n", "").isprintable() and "東京" in text
    assert json.loads(text) == {"name": NASTY, "list": ["東京"]}


@pytest.mark.parametrize(("name", "lines"), [("beamlabel", 1), ("apache_beam.x", 2)])
def test_records_of_logs(name, lines):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine())
    record = logging.LogRecord(
        name, logging.ERROR, "", 0, "%s", (f"x\x1b\nERROR beamlabel: forged{NASTY[0]}",), None
    )
    handler.emit(record)
    said = stream.getvalue()
    assert "\x1b" not in said and said.count("\n") == lines
    assert "\nERROR" not in said


def test_a_traceback_forges_no_record():
    try:
        raise ValueError("bad\nERROR beamlabel: forged\x1b")
    except ValueError:
        record = logging.LogRecord("beamlabel", logging.ERROR, "", 0, "it broke", (), sys.exc_info())
    said = OneLine().format(record)
    assert "Traceback" in said and "\nERROR" not in said and "\x1b" not in said


def test_messages_hold_no_credentials(capsys):
    url = "https://user:s3cr3t@host.example.org/a.jpg?token=s3cr3t"
    tell(f"cannot fetch {url}")
    answer(f"{url}\n{url}\n")
    answer_json({url: [f'in "{url}", as a text', {"query": 'GET /a.jpg?token=s3cr3t"'}]})
    said = capsys.readouterr()
    assert "s3cr3t" not in said.err + said.out
    assert said.err == "beamlabel: cannot fetch https://host.example.org/a.jpg\n"
    assert list(json.loads(said.out.split("\n", 2)[2])) == ["https://host.example.org/a.jpg"]
    record = logging.LogRecord("beamlabel", logging.ERROR, "", 0, "%s", (url,), None)
    assert OneLine().format(record) == "ERROR beamlabel: https://host.example.org/a.jpg"


def test_every_message_goes_that_way():
    """Only the progress display writes to the streams directly."""
    own = {"pipeline/process/", "pipeline/job/progress.py", "pipeline/runners/", "pipeline/fine_tune/training.py",
           "pipeline/options/flex_template.py", "pipeline/demo/", "transforms/beam_yaml/__main__.py",
           "pipeline/options/parser.py", "transforms/deadline/guard.py", "transforms/secrets/logs.py"}  # fmt: skip
    writers = set()
    for module, path in files().items():
        short = module.removeprefix("beamlabel.").replace(".", "/") + ".py"
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and node.attr in ("write", "writelines"):
                where = ast.unparse(node.value)
                if where in ("sys.stderr", "sys.stdout") and not any(short.startswith(one) for one in own):
                    writers.add(short)
    assert not writers
