"""``beamlabel fetch MODULE DIR``: a module of a hub, in a folder or bucket of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from urllib.parse import urlsplit

from beamlabel import __version__
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.declare import option, positional
from beamlabel.pipeline.options.parser import parse_command
from beamlabel.pipeline.options.types import BYTE_SIZE, DURATION, SHA256
from beamlabel.transforms.module_process.limits import DEADLINE_SECONDS, Limits
from beamlabel.transforms.secrets.logs import get_logger

_LOGGER = get_logger("beamlabel")


@dataclass(frozen=True, kw_only=True)
class FetchModuleOptions:
    """The module, and where it goes."""

    module: str = positional(
        metavar="MODULE", help="as the job's --module: a Hub handle, .tar.gz, gs:// path …"
    )
    dir: str = positional(metavar="DIR", help="folder to make: local or gs://")
    module_fingerprint: str | None = option(
        SHA256, metavar="SHA256", help="copy nothing unless this is the module's fingerprint"
    )
    module_deadline: float = option(
        DURATION,
        default=DEADLINE_SECONDS,
        metavar="TIME",
        help="to fetch and unpack the module, in a process of its own that is ended then (default 10m)",
    )
    module_memory: int | None = option(
        BYTE_SIZE, metavar="SIZE", help="for this process, such as 8G (default: what is free, at least 4G)"
    )


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
      UsageError: a wrong argument, no such module, or a folder that holds something else.
    """
    options = parse_command(
        FetchModuleOptions,
        argv,
        command="fetch",
        description="Copies a module into a folder or bucket, so that a nightly job (--module DIR) does not depend "
        "on the hub. Its fingerprint stays. A record of where it came from is written beside it, to "
        "DIR.fetched.json.",
        epilog="A fetch that is killed leaves nothing that passes for a module; run it again. Exit codes: 0 fetched, "
        "now or before, 2 wrong usage, no such module, or DIR holds something else, 3 it broke.",
    )
    limits = Limits(options.module_deadline, options.module_memory)
    fetch_module(options.module, options.dir, limits, options.module_fingerprint)
    return 0


def fetch_module(
    handle: str, folder: str, limits: Limits | None = None, fingerprint: str | None = None
) -> None:
    """Copies a module and writes where it came from; nothing of it is run.

    Args:
      handle: the module's.
      folder: to make.
      limits: of the process that fetches it; None: the usual ones.
      fingerprint: that the module has to have; None: any.

    Raises:
      UsageError: no such module, one of another fingerprint than the one given, a folder that holds something else, or
        one that cannot be written.
      OSError: the storage failed, or what was written is not what is read.
    """
    from beamlabel.pipeline.job.prepare_module import resolve
    from beamlabel.pipeline.places.cache import check_cache
    from beamlabel.pipeline.places.outputs import check_folder
    from beamlabel.transforms import storage
    from beamlabel.transforms.hub.mirror import mirror_module
    from beamlabel.transforms.hub.provenance import Provenance, read_provenance
    from beamlabel.transforms.module_process.process import ModuleProcess

    if folder.startswith(("http://", "https://")) or (
        not storage.is_local(folder) and not urlsplit(folder).path.strip("/")
    ):
        raise UsageError(f"DIR {folder!r}: neither a local folder nor one in a bucket")
    check_folder("DIR", folder)
    check_cache()
    with ModuleProcess(limits) as process:
        module = resolve(handle, option="MODULE", process=process, fingerprint=fingerprint)
    try:
        is_new = mirror_module(module.path, folder)
        record = read_provenance(folder, module.fingerprint)
        if record is None or record.handle != module.origin:
            fetched_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
            Provenance(module.origin, module.fingerprint, fetched_at, __version__).write(folder)
    except (ValueError, FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise UsageError(f"DIR {folder!r}: {error}") from error
    _LOGGER.info(
        "%s %s, fingerprint %s", folder, "is there" if is_new else "was there already", module.fingerprint
    )
