"""JSON lines that are made to take long or to break readers of the whole line."""

import json

import pytest

from beamlabel.transforms.inputs.tables.json_records import json_record


def test_many_names_of_which_one_comes_twice():
    """The search must not take quadratic time, here a minute and a half."""
    names = [f'"{n}":0' for n in range(130_000)]
    found = json_record(("{" + ",".join([*names, '"129999":1']) + "}").encode())
    assert found.value is None and "129999" in found.problem


@pytest.mark.parametrize("levels", [51, 400, 960, 100_000])
def test_a_value_nested_too_deep_for_a_column_is_no_record(levels):
    for opened, closed in (("[", "]"), ('{"a":', "}")):
        found = json_record(('{"uri":"a.jpg","x":' + opened * levels + "1" + closed * levels + "}").encode())
        assert found.value is None and found.problem == "nested too deeply"


def test_many_lists_beside_each_other_are_not_deep():
    value = {"uri": "a[[[[.jpg", "x": [[{"y": [n]}] for n in range(500)], "z": "[" * 90}
    assert json_record(json.dumps(value).encode()).value == value


def test_a_number_of_a_million_digits_is_none():
    assert json_record(b'{"n":' + b"1" * 1_000_000 + b"}").problem


def test_a_value_is_not_shown():
    for text in (
        b'{"card": 4111e999}',
        b'{"card": 4111 }}',
        b'{"card": "4111\xff"}',
        b'{"card": "4111\\ud800"}',
    ):
        found = json_record(text)
        assert found.problem and "4111" not in found.problem
