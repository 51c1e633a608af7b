"""Checks that an image's Dockerfile installs nothing without a hash."""

from __future__ import annotations

import re


def check_install(install: str, *, may_add: str | None = None) -> None:
    """Checks the ``RUN`` that installs the project.

    Args:
      install: The argument of ``RUN`` with continued lines joined.
      may_add: An ARG with further packages, chosen by the user who builds the image.
    """
    assert "lock_requirements.py build >/src/build.txt" in install
    assert 'lock_requirements.py "build,base${EXTRAS}' in install
    commands = [command for command in re.split(r"&&|;", install) if "pip install" in command]
    if may_add is not None:
        (added,) = [command for command in commands if may_add in command]
        assert "--constraint /src/constraints.txt" in added
        commands.remove(added)
    assert len(commands) == 3
    for command in commands:
        assert "--no-deps" in command
        of_lock = "--require-hashes --requirement /src/" in command
        assert of_lock or command.split()[-1] == "/src", command
        # Otherwise pip downloads build dependencies without checking a hash.
        assert "--no-build-isolation" in command or "build.txt" in command, command
