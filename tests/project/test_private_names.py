"""Nothing here uses what another package, or another file, calls private: it may be gone with its next version."""

import ast
from collections.abc import Iterator
from pathlib import Path

from support.paths import ROOT

# Underscores that are public: those of named tuples, and the end of a process.
PUBLIC = {"_asdict", "_exit", "_fields", "_make", "_replace"}
# By file; why there is no public way stands there.
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
    """What a file reads of others, or of their objects, by a name with an underscore before it."""
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


def test_only_what_has_a_reason():
    used = {
        str(path.relative_to(ROOT)): set(private_names(path))
        for package in ("beamlabel", "pipeline", "transforms")
        for path in sorted((ROOT / package).rglob("*.py"))
    }
    assert len(used) > 100
    assert {path: names for path, names in used.items() if names} == WITHOUT_A_PUBLIC_WAY
