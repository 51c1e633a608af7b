"""No file uses private names of another package or file, since they may disappear with its next version."""

import ast
from collections.abc import Iterator
from pathlib import Path

from support.paths import ROOT

# Public names with underscores: those of named tuples, and the end of a process.
PUBLIC = {"_asdict", "_exit", "_fields", "_make", "_replace"}
# Exceptions by file; a comment there explains why there is no public way.
WITHOUT_A_PUBLIC_WAY = {
    "pipeline/train/head/repeatable.py": {"_pywrap_determinism"},
    "pipeline/runners/processes/pool.py": {
        "_connections_by_worker_id",
        "_data_buffer_time_limit_ms",
        "_lock",
        "_read",
    },
    "pipeline/runners/processes/runner.py": {"_get_bundle_manager"},
    "transforms/module_artifact.py": {"_underlying_runner"},
    "transforms/module/freeze.py": {"_run_inline_graph_optimization"},
    "transforms/storage/beam_setup.py": {"_pipeline_options"},
    "transforms/storage/gcs_client.py": {"_http"},
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC


def private_names(path: Path) -> Iterator[str]:
    """The names with a leading underscore that a file reads from others or their objects."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name) if is_private(name):
                yield name
            case ast.ImportFrom(module=module, names=names):
                yield from filter(is_private, [*(module or "").split("."), *(alias.name for alias in names)])
            case ast.Import(names=names):
                yield from filter(is_private, [part for alias in names for part in alias.name.split(".")])
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr"), args=[_, ast.Constant(value=str(name)), *_]
            ):
                yield from filter(is_private, [name])
            case ast.Call(keywords=keywords):
                yield from filter(is_private, [keyword.arg or "" for keyword in keywords])


def test_only_rows_with_a_reason():
    used = {
        str(path.relative_to(ROOT)): set(private_names(path))
        for package in ("beamlabel", "pipeline", "transforms")
        for path in sorted((ROOT / package).rglob("*.py"))
    }
    assert len(used) > 100
    assert {path: names for path, names in used.items() if names} == WITHOUT_A_PUBLIC_WAY
