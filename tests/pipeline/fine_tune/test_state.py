"""An interrupted training loads and deletes only its own files, even if its state names others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.fine_tune.options import RESUME
from beamlabel.pipeline.fine_tune.state import directory_of, open_workplace


@pytest.mark.parametrize(
    "name", ["../precious.weights.h5", "/etc/passwd", "precious.txt", "a/../../x", "a\\b", 7]
)
@pytest.mark.parametrize("field", ["weights", "best"])
def test_a_forged_state_is_not_gone_on_with(tmp_path: Path, field: str, name: object) -> None:
    output = str(tmp_path / "out")
    place = open_workplace(output, {"a": 1}, "error")
    place.save(**{field: "epoch-00001.weights.h5"})
    assert open_workplace(output, {"a": 1}, RESUME).state == place.state
    state = place.directory / "training.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), field: name}))
    with pytest.raises(UsageError, match="not made by beamlabel"):
        open_workplace(output, {"a": 1}, RESUME)


def test_a_link_in_the_place_of_a_training_is_refused(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    directory = open_workplace(output, {}, "error").directory.rename(tmp_path / "theirs")
    directory_of(output).symlink_to(directory)
    with pytest.raises(UsageError, match="not made by beamlabel"):
        open_workplace(output, {}, RESUME)
