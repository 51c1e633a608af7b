"""Resolves a handle to a local module and its artifact; another process fetches and loads missing files.

This process never imports TensorFlow. If the cache has everything, no other process starts.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from beamlabel.transforms import storage
from beamlabel.transforms.hub.resolve import NotAtHandError, ResolvedModule, hub_root, resolve_module
from beamlabel.transforms.inference.artifact import Artifact, ModuleError, Quantization
from beamlabel.transforms.module.compile import CompileOptions, artifact_path, read_artifact, tell
from beamlabel.transforms.module.head_artifact import head_at_hand
from beamlabel.transforms.module_process import tasks
from beamlabel.transforms.module_process.process import ModuleProcess
from beamlabel.transforms.module_process.waits import wait
from beamlabel.transforms.storage.uris import public_uri

_TASKS = tasks.__name__
# In the cache: one file for each combination of module and options that was loaded successfully.
_LOADED = "loaded"


def resolved_module(
    handle: str,
    cache: Path,
    process: ModuleProcess,
    *,
    expected_fingerprint: str | None = None,
    allow_unsafe_ops: bool = False,
) -> ResolvedModule:
    """See ``resolve_module``.

    Raises:
      ModuleError: there is no such module, it is incomplete, or it could not be fetched in time.
    """
    subject = subject_of(handle)
    keywords = {"expected_fingerprint": expected_fingerprint, "allow_unsafe_ops": allow_unsafe_ops}

    def at_hand() -> ResolvedModule:
        return resolve_module(
            handle,
            cache,
            fetches=False,
            expected_fingerprint=expected_fingerprint,
            allow_unsafe_ops=allow_unsafe_ops,
        )

    try:
        if handle.startswith(("http://", "https://")) or storage.is_local(handle):
            return at_hand()
        # This queries the module's storage each time, which may hang.
        return process.in_thread(at_hand, subject)
    except NotAtHandError:
        is_on_hub = handle.startswith(("http://", "https://"))
        root = hub_root(cache) if is_on_hub else cache
        root = cache if root.is_relative_to(cache.absolute()) else root
        variable = "BEAMLABEL_CACHE" if root == cache else "TFHUB_CACHE_DIR"
        check_writable(root, subject, "does not hold it", variable=variable)
        verb = "Unpack" if not is_on_hub and storage.is_local(handle) else "Fetch"
        with wait(f"{verb}ing the {subject} (once; cached in {root})", f"{verb}ed the {subject}"):
            found = process.call(
                f"{_TASKS}:resolve", subject, handle=handle, cache=str(cache), keywords=keywords
            )
        return tasks.unpacked(found)


def compiled_artifact(
    resolved: ResolvedModule, options: CompileOptions, cache: Path, process: ModuleProcess
) -> Artifact:
    """See ``compile.compiled``.

    Raises:
      ModuleError: the options do not suit the module, compilation changes its results, or it was not compiled in time.
    """
    path = artifact_path(resolved, options, cache)
    artifact = read_artifact(path)
    if artifact is None:
        check_writable(cache, subject_of(resolved.handle), "does not hold it compiled for these options")
        with wait(f"Compiling the module (once; cached in {cache})", "Compiled the module"):
            process.call(
                f"{_TASKS}:compile_artifact",
                subject_of(resolved.handle),
                resolved=tasks.packed(resolved),
                options=asdict(options),
                cache=str(cache),
            )
        artifact = _made(path, resolved)
    return tell(artifact, options)


def compiled_head(
    resolved: ResolvedModule,
    artifact: Artifact,
    cache: Path,
    process: ModuleProcess,
    *,
    precision: str,
    normalized: bool,
    quantization: Quantization | None = None,
) -> Artifact:
    """See ``head_artifact``.

    Raises:
      ModuleError: as in ``head_artifact``, or the work was not done in time.
    """
    keywords: dict[str, Any] = {"precision": precision, "normalized": normalized}
    found = head_at_hand(resolved, artifact, cache, quantization=quantization, **keywords)
    if found is not None:
        return found
    check_writable(cache, subject_of(resolved.handle), "does not hold it compiled for these options")
    keywords["quantization"] = None if quantization is None else asdict(quantization)
    process.call(
        f"{_TASKS}:compile_head",
        subject_of(resolved.handle),
        resolved=tasks.packed(resolved),
        artifact=artifact.path,
        cache=str(cache),
        keywords=keywords,
    )
    keywords["quantization"] = quantization
    found = head_at_hand(resolved, artifact, cache, **keywords)
    if found is None:
        raise _nothing_made(resolved)
    return found


def looked_at(resolved: ResolvedModule, process: ModuleProcess, **options: Any) -> dict[str, Any]:
    """See ``tasks.look``.

    Raises:
      ModuleError: the options do not suit the module, or it was not loaded in time.
    """
    found: dict[str, Any] = process.call(
        f"{_TASKS}:look", subject_of(resolved.handle), resolved=tasks.packed(resolved), options=options
    )
    return found


def check_loads(resolved: ResolvedModule, cache: Path, process: ModuleProcess, **options: Any) -> None:
    """Checks in another process, once per module, that the module can be loaded before this process loads it.

    Args:
      resolved: the module.
      cache: directory that remembers loaded modules.
      process: the process to load the module in.
      options: options of ``inspect_module``.

    Raises:
      ModuleError: see ``looked_at``.
    """
    key = json.dumps(
        [resolved.fingerprint, resolved.handle, resolved.allows_unsafe_ops, options], sort_keys=True
    )
    loaded = cache / _LOADED / hashlib.sha256(key.encode()).hexdigest()[:32]
    if not loaded.is_file():
        looked_at(resolved, process, **options)
        with suppress(OSError):  # the next run checks it again
            loaded.parent.mkdir(parents=True, exist_ok=True)
            loaded.touch()


def subject_of(handle: str) -> str:
    """The name of a module in messages."""
    return f"module {public_uri(handle)}"


def check_writable(cache: Path, subject: str, lacks: str, *, variable: str = "BEAMLABEL_CACHE") -> None:
    """Refuses to make a file that the cache could not store.

    Args:
      cache: the directory that would store it.
      subject: the module, see ``subject_of``.
      lacks: why the file is needed, such as ``does not hold it``.
      variable: the environment variable that names the cache.

    Raises:
      ModuleError: the cache cannot be written.
    """
    if cache.is_dir() and not os.access(cache, os.W_OK | os.X_OK):
        raise ModuleError(
            f"{subject}: the cache {cache} {lacks} and cannot be written; set {variable} to another directory"
        )


def _made(path: Path, resolved: ResolvedModule) -> Artifact:
    """The artifact that the other process wrote, after a check, since it is not trusted."""
    artifact = read_artifact(path)
    if artifact is None or artifact.spec.fingerprint != resolved.fingerprint:
        raise _nothing_made(resolved)
    return artifact


def _nothing_made(resolved: ResolvedModule) -> ModuleError:
    return ModuleError(
        f"{subject_of(resolved.handle)}: it was compiled, but the artifact is missing from the cache; the disk may be "
        "full, or another program empties the cache"
    )
