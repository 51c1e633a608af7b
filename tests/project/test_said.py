"""All text that leaves the process, by streams and logs, passes the one filter for secrets.

The test reads the sources. Modules that write to a stream or a logger directly are listed here with the reason.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from support.layers import files, tree
from support.paths import ROOT

# All others call ``say``. These write no foreign text, or text that was made public before.
WRITERS = {
    "pipeline/process/streams.py": "writes what messages.answer has made public",
    "pipeline/process/watchdog.py": "the name of a signal, when nothing else works any more",
    "pipeline/options/flex_template.py": "the template's parameters, for a file of the repository",
    "transforms/beam_yaml/__main__.py": "the path of an installed file",
    "transforms/deadline/guard.py": "a number, to the worker that it watches",
    "transforms/worker/native_stderr.py": "lines of native libraries, which wrote them to stderr themselves",
    "pipeline/process/terminal.py": "hands a formatted record on to the terminal",
}
_STREAMS = {"stdout", "stderr", "__stdout__", "__stderr__"}
_MODULES = {
    "traceback": ("print_",),
    "warnings": ("warn", "showwarning"),
    "faulthandler": ("dump",),
    "pprint": ("pp",),
}


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call))


def writes(call: ast.Call) -> bool:
    """Whether a call writes to a standard stream."""
    function = call.func
    if isinstance(function, ast.Name):
        return function.id in ("print", "pprint", "pp")
    if not isinstance(function, ast.Attribute):
        return False
    owner, name = ast.unparse(function.value), function.attr
    if owner == "os" and name in ("write", "writev", "pwrite", "fdopen"):
        where = call.args[0]
        return (isinstance(where, ast.Constant) and where.value in (1, 2)) or ast.unparse(where) in _STREAMS
    if owner == "tqdm" and name == "write":
        return True
    if any(name.startswith(start) for start in _MODULES.get(owner, ())):
        return True
    return name in ("write", "writelines", "dump") and any(
        isinstance(node, ast.Attribute) and node.attr in _STREAMS
        for one in (function, *call.args)
        for node in ast.walk(one)
    )


def test_one_function_writes_on_streams() -> None:
    found = {str(path.relative_to(ROOT)) for path in files().values() if any(map(writes, calls(path)))}
    assert found == WRITERS.keys()


def test_the_writers_are_found() -> None:
    for text in (
        "print('a')", "sys.stderr.write(a)", "sys.stdout.writelines(a)", "json.dump(a, sys.stdout)", "os.write(2, a)",
        "os.write(stderr, a)",
        "tqdm.write(a)", "traceback.print_exc()", "warnings.warn(a)", "sys.__stderr__.write(a)", "pprint(a)",
    ):  # fmt: skip
        assert any(writes(call) for call in ast.walk(ast.parse(text)) if isinstance(call, ast.Call)), text
    for text in (
        "file.write(a)",
        "os.write(handle, a)",
        "json.dump(a, file)",
        "say(a)",
        "sys.stderr.flush()",
    ):
        assert not any(writes(call) for call in ast.walk(ast.parse(text)) if isinstance(call, ast.Call)), text


def is_own_logger(call: ast.Call) -> bool:
    """Whether a call gets a beamlabel logger without ``get_logger``: any name that is not another package's."""
    if ast.unparse(call.func).rpartition(".")[2] not in ("getLogger", "getChild", "Logger") or not call.args:
        return False  # without a name it is the root logger, whose handlers are public
    name = call.args[0]
    if isinstance(name, ast.Constant):
        return str(name.value).partition(".")[0] == "beamlabel"
    # `module.__name__` is the name of an imported module.
    return not isinstance(name, ast.Attribute)


def test_loggers_are_taken_from_the_one_place() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{call.lineno}: take get_logger of transforms.secrets.logs"
        for path in files().values()
        for call in calls(path)
        if is_own_logger(call)
    ]
    allowed = "transforms/secrets/logs.py"
    assert [line for line in wrong if not line.startswith(allowed)] == []
    assert wrong, "get_logger itself is one such call"


def test_the_root_logger_is_not_written_to() -> None:
    """``logging.warning`` and similar functions use all existing handlers and add one."""
    names = {"debug", "info", "warning", "error", "critical", "exception", "log"}
    wrong = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in files().values()
        for call in calls(path)
        if isinstance(call.func, ast.Attribute)
        and ast.unparse(call.func.value) == "logging"
        and call.func.attr in names
    ]
    assert not wrong
