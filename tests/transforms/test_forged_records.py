"""The JSON files that belong to a module, written by its author or forged: wrong types are damage, never a crash."""

from __future__ import annotations

import json
from pathlib import Path

from beamlabel.pipeline.commands.own_facts import own_lines
from beamlabel.transforms.hub.provenance import Provenance, provenance_path, read_provenance
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.own_module.description import (
    ASSETS,
    DESCRIPTION,
    LABELS,
    Description,
    read_description,
)
from support.damage import damaged

DESCRIBED = Description(
    ("cat", "dog"), "softmax", True, 8, 8, (0.0, 1.0), "f" * 64, "base", "f" * 64, {"crop": None}, True
)


def test_a_description_of_other_types_is_damaged(tmp_path: Path) -> None:
    assets = tmp_path / ASSETS
    assets.mkdir()
    (assets / LABELS).write_text("cat\ndog\n")
    path = assets / DESCRIPTION
    path.write_text(DESCRIBED.to_json())
    assert read_description(tmp_path) == DESCRIBED
    refused = 0
    for _, value in damaged(json.loads(DESCRIBED.to_json())):
        path.write_text(json.dumps(value))
        try:
            found = read_description(tmp_path)
        except ModuleError:
            refused += 1
        else:
            assert found is not None
            own_lines({**vars(found), "training": None})
    assert refused > 100


def test_a_record_of_the_source_of_other_types_does_not_count(tmp_path: Path) -> None:
    module = str(tmp_path / "module")
    Provenance("https://h.org/m", "f" * 64, "2026-01-01T00:00:00Z", "1").write(module)
    path = Path(provenance_path(module))
    assert read_provenance(module, "f" * 64) is not None
    for _, value in damaged(json.loads(path.read_bytes())):
        path.write_text(json.dumps(value))
        found = read_provenance(module, "f" * 64)
        assert found is None or all(isinstance(one, str) for one in vars(found).values())
