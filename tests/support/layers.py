"""The order of the directories and the imports between modules, including imports inside functions."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from support.paths import ROOT

# From the bottom up. A directory may import only from lower levels, including its own subdirectories. A name that ends
# in .py is a file at a package's root.
LEVELS = (
    ("beamlabel/__init__.py",),
    (
        "transforms/archive_member.py",
        "transforms/extras",
        "transforms/reasons.py",
        "transforms/row_batches.py",
        "transforms/secrets",
        "transforms/shapes.py",
    ),
    ("transforms/storage/disk", "transforms/storage/listing"),
    ("transforms/storage/buckets",),
    ("transforms/arguments.py", "transforms/records.py", "transforms/storage", "transforms/worker"),
    ("transforms/allowed_ops", "transforms/deadline", "transforms/prediction_blocks.py"),
    ("transforms/decoding/picture", "transforms/inference", "transforms/loading/web", "transforms/rows"),
    ("transforms/own_module",),
    ("transforms/decoding/readers",),
    ("transforms/decoding",),
    ("transforms/inputs/archives", "transforms/inputs/parquet"),
    ("transforms/inputs",),
    ("transforms/inputs/tables",),
    ("transforms/inputs/sources",),
    ("transforms/hub", "transforms/loading", "transforms/units"),
    ("transforms/elements", "transforms/module", "transforms/writing"),
    ("transforms/derive.py", "transforms/module_process", "transforms/quantize"),
    ("transforms/module_artifact.py", "transforms/output_spec.py"),
    ("transforms/load_images.py", "transforms/model_handler.py", "transforms/predict.py"),
    ("transforms/label_images.py",),
    ("transforms/beam_yaml", "transforms/cross_language.py", "transforms/write_labels.py"),
    ("pipeline/errors.py", "pipeline/layout.py"),
    ("pipeline/published.py",),
    ("pipeline/process",),
    ("pipeline/demo", "pipeline/options"),
    ("pipeline/report",),
    ("pipeline/output", "pipeline/quantize"),
    ("pipeline/earlier", "pipeline/places"),
    ("pipeline/truth",),
    ("pipeline/evaluate", "pipeline/job"),
    ("pipeline/current",),
    ("pipeline/train/rows",),
    ("pipeline/train/findings", "pipeline/train/module"),
    ("pipeline/train/head", "pipeline/train/report"),
    ("pipeline/train",),
    ("pipeline/fine_tune",),
    ("pipeline/compact", "pipeline/diff", "pipeline/relabel", "pipeline/runners/processes"),
    ("pipeline/commands", "pipeline/runners"),
    ("pipeline/run.py",),
    ("pipeline/__main__.py",),
    ("beamlabel/__main__.py",),
)


@cache
def files() -> dict[str, Path]:
    """The file of every module by module name."""
    found = {}
    for package in ("beamlabel", "pipeline", "transforms"):
        # Links below beamlabel are skipped; their targets are read at their own place.
        paths = (ROOT / package).glob("*.py") if package == "beamlabel" else (ROOT / package).rglob("*.py")
        for path in paths:
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name if package == "beamlabel" else f"beamlabel.{name}"] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path) -> Iterator[str]:
    """The full names that a file imports: modules, or names in modules."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports() -> dict[str, set[str]]:
    """The beamlabel modules that each module imports."""
    edges = {}
    for module, path in files().items():
        names = {name for name in imported(path) if name.partition(".")[0] == "beamlabel"}
        edges[module] = {name if name in files() else name.rpartition(".")[0] for name in names}
        assert edges[module] <= files().keys(), f"{path}: {edges[module] - files().keys()}"
    return edges


def short(module: str) -> str:
    return str(files()[module].relative_to(ROOT))


def directory(module: str) -> str:
    """The directory of a module, or the file if it is at a package's root."""
    parts = files()[module].relative_to(ROOT).parts
    return "/".join(parts if len(parts) == 2 else parts[:-1])
