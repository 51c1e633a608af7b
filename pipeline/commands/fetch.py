"""``beamlabel fetch MODULE DIR``: copies a module from a hub to your own directory or bucket."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from urllib.parse import urlsplit

from beamlabel import __version__
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.declare import option, positional
from beamlabel.pipeline.options.module_limits import deadline_option, memory_option
from beamlabel.pipeline.options.parser import parse_command
from beamlabel.pipeline.options.types import SHA256
from beamlabel.transforms.module_process.limits import Limits
from beamlabel.transforms.secrets.logs import get_logger

_LOGGER = get_logger("beamlabel")


@dataclass(frozen=True, kw_only=True)
class FetchModuleOptions:
    """The module and its destination."""

    module: str = positional(
        metavar="MODULE", help="like the job's --module: a Hub handle, .tar.gz, gs:// path …"
    )
    dir: str = positional(metavar="DIR", help="directory to create: local or gs://")
    module_fingerprint: str | None = option(
        SHA256, metavar="SHA256", help="copy nothing if the module's fingerprint differs"
    )
    module_deadline: float = deadline_option("fetches and unpacks")
    module_memory: int | None = memory_option()


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
      UsageError: a wrong argument, no such module, or a directory that holds something else.
    """
    options = parse_command(
        FetchModuleOptions,
        argv,
        command="fetch",
        description="Copies a module to a directory or bucket, so that a nightly job (--module DIR) does not depend "
        "on the hub. The copy has the same fingerprint. DIR.fetched.json beside it records its origin.",
        epilog="A killed fetch leaves nothing that could be taken for a module; run it again. Exit codes: 0 fetched, "
        "now or before, 2 wrong usage, no such module, or DIR holds something else, 3 failed.",
    )
    limits = Limits(options.module_deadline, options.module_memory)
    fetch_module(options.module, options.dir, limits, options.module_fingerprint)
    return 0


def fetch_module(
    handle: str, directory: str, limits: Limits | None = None, fingerprint: str | None = None
) -> None:
    """Copies a module and records its origin, without running any of it.

    Args:
      handle: the module's.
      directory: the directory to create.
      limits: of the process that fetches it; None: the default limits.
      fingerprint: the required fingerprint; None: any.

    Raises:
      UsageError: no such module, one with another fingerprint, or a directory that holds something else or cannot be
        written.
      OSError: the storage failed, or the copy reads back differently.
    """
    from beamlabel.pipeline.job.prepare_module import resolve
    from beamlabel.pipeline.places.cache import check_cache
    from beamlabel.pipeline.places.outputs import check_directory
    from beamlabel.transforms import storage
    from beamlabel.transforms.hub.mirror import mirror_module
    from beamlabel.transforms.hub.provenance import Provenance, read_provenance
    from beamlabel.transforms.module_process.process import ModuleProcess

    if directory.startswith(("http://", "https://")) or (
        not storage.is_local(directory) and not urlsplit(directory).path.strip("/")
    ):
        raise UsageError(f"DIR {directory!r} is neither a local directory nor one in a bucket")
    check_directory("DIR", directory)
    check_cache()
    with ModuleProcess(limits) as process:
        module = resolve(handle, option="MODULE", process=process, fingerprint=fingerprint)
    try:
        is_new = mirror_module(module.path, directory)
        record = read_provenance(directory, module.fingerprint)
        if record is None or record.handle != module.origin:
            fetched_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
            Provenance(module.origin, module.fingerprint, fetched_at, __version__).write(directory)
    except (ValueError, FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise UsageError(f"DIR {directory!r}: {error}") from error
    _LOGGER.info(
        "%s %s, fingerprint %s", directory, "is there" if is_new else "was there already", module.fingerprint
    )
