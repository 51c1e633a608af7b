"""The command line that continues a run: the user's, with ``--if_exists resume`` and without secrets."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

from beamlabel.pipeline.options.parser import underscored
from beamlabel.transforms.secrets.names import is_credential
from beamlabel.transforms.secrets.text import public_text, public_uri

# Options with secret values. Each value of ``_PAIRS`` is NAME=VALUE, with a public name.
_SECRET = frozenset(
    ("s3_access_key_id", "s3_secret_access_key", "s3_session_token", "azure_connection_string", "http_header")
)
_PAIRS = "http_header"
# Options of Beam whose values may hold environment variables of worker processes, if they begin so.
_ENVIRONMENT = frozenset(("environment_config", "environment_option", "environment_options"))
_WITH_VARIABLES = ("{", "process_variables")
_HIDDEN = "..."
# Characters. The places of credentials are not looked for in longer words.
_MARKED_CHARACTERS = 4000


def resume_command(argv: Sequence[str], run_date: str | None = None) -> str:
    """The command that continues the run, quoted for a shell.

    Args:
      argv: the program and its arguments, as in ``sys.argv``. ``...`` replaces each secret; the user fills it in again.
      run_date: the run's day; added if the output's name depends on it.
    """
    words, names = _without_if_exists(underscored(argv[1:])), _names(argv)
    public: list[str] = []
    option = ""
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            option = name[2:]
            hidden = f"{name}={_hidden(option, value)}" if equals and _is_secret(option, value) else word
        else:
            hidden = _hidden(option, word) if _is_secret(option, word) else word
        public.append(_marked(hidden, public_text(public_uri(hidden))))
    if run_date and "run_date" not in names and any("{date}" in word for word in words):
        public += ["--run_date", run_date]
    return f"{_program(argv[0])} {shlex.join(public)} --if_exists resume"


def advice(command: str) -> str:
    """The line that tells a person to run the command, and to fill in secrets if it lacks any."""
    if _HIDDEN in command:
        return f"To continue, fill in the secrets at {_HIDDEN} and run: {command}"
    return f"To continue, run: {command}"


def _marked(word: str, cleaned: str) -> str:
    """The cleaned word with ``...`` at each place that lost a credential: without a mark it would name another URL."""
    if word == cleaned:
        return word
    if len(word) > _MARKED_CHARACTERS:
        return cleaned + _HIDDEN
    marked = ""
    for kind, begin, _, start, end in SequenceMatcher(None, word, cleaned, autojunk=False).get_opcodes():
        marked += cleaned[start:end]
        if kind in ("delete", "replace"):
            marked += (word[begin] if word[begin] in "?&;#" else "") + _HIDDEN
    return marked


def _names(argv: Sequence[str]) -> set[str]:
    return {word[2:].partition("=")[0] for word in underscored(argv) if word.startswith("--")}


def _without_if_exists(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        if word.partition("=")[0] != "--if_exists" and before != "--if_exists":
            kept.append(word)
    return kept


def _is_secret(option: str, value: str) -> bool:
    has_variables = option in _ENVIRONMENT and value.lstrip().startswith(_WITH_VARIABLES)
    return has_variables or option in _SECRET or is_credential(option)


def _hidden(option: str, value: str) -> str:
    if option == _PAIRS and "=" in value:
        return f"{value.partition('=')[0]}={_HIDDEN}"
    return _HIDDEN


def _program(first: str) -> str:
    if Path(first).name != "__main__.py":
        return shlex.quote("beamlabel" if shutil.which("beamlabel") == first else first)
    is_usual = shutil.which("python") == sys.executable
    return f"{'python' if is_usual else shlex.quote(sys.executable or 'python')} -m beamlabel"
