"""Fuzzes beamlabel's own parsers, guided by coverage: ``python benchmarks/fuzz_headers.py --seconds 3600``.

Needs ``atheris`` (``pip install atheris``), which has wheels for Linux. An error that a parser must not raise is
recorded once for each line that raises it, and fuzzing continues. An input that kills the process or takes longer than
``--timeout`` is recorded, and a new process continues with the corpus. Failed inputs are in ``--scratch``, under
``found``; a file given as an argument runs alone. Prints a row in Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).resolve().parent)]
# libFuzzer's length limit bounds only its input; parsers that unpack are bounded by memory.
_MOST_BYTES, _MEMORY_MB = 8192, 4096


def fuzz(directory: Path, arguments: list[str]) -> None:
    """Runs libFuzzer in this process, until libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["beamlabel.transforms"], enable_loader_override=False):
        import fuzz_targets
    known = {path.name for path in (directory / "found").iterdir()}

    def one(data: bytes) -> None:
        try:
            fuzz_targets.run(data)
        except Exception as error:
            name = _name(error, data)
            if name not in known:
                known.add(name)
                (directory / "found" / name).write_bytes(data)
                (directory / "found" / f"{name}.txt").write_text(traceback.format_exc())

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def _name(error: Exception, data: bytes) -> str:
    """Returns one name for each line that raises."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        frame
        for frame in frames
        if "beamlabel/transforms" in frame.filename or "/transforms/" in frame.filename
    ]
    place = (ours or frames)[-1]
    text = f"{data[0]}-{type(error).__name__}-{Path(place.filename).stem}-{place.lineno}"
    return re.sub(r"[^\w.-]", "_", text)


def drive(directory: Path, seconds: float, timeout: int) -> dict[str, Any]:
    """Fuzzes for ``seconds``, in as many processes as needed, one after the other."""
    for name in ("corpus", "seeds", "found", "crashes"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    import fuzz_targets

    for data in fuzz_targets.seeds(_MOST_BYTES):
        (directory / "seeds" / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    begin, runs, processes, coverage, peak, killed = time.monotonic(), 0, 0, 0, 0, 0
    while (left := seconds - (time.monotonic() - begin)) > 5:
        processes += 1
        log = directory / f"log-{processes}.txt"
        command = [
            sys.executable, __file__, "--scratch", str(directory), "--child", "--",
            f"-max_total_time={int(left)}", f"-timeout={timeout}", f"-rss_limit_mb={_MEMORY_MB}",
            f"-max_len={_MOST_BYTES}", f"-artifact_prefix={directory}/crashes/", "-print_final_stats=1",
            f"-seed={processes}", str(directory / "corpus"), str(directory / "seeds"),
        ]  # fmt: skip
        with log.open("wb") as out:
            code = subprocess.run(command, stdout=out, stderr=out, check=False).returncode
        killed += code == -signal.SIGKILL  # by a system without memory: a crash would leave an input
        text = log.read_text(errors="replace")
        numbers = [int(number) for number in re.findall(r"^#(\d+)\t", text, re.M)]
        done = re.findall(r"number_of_executed_units:\s+(\d+)", text)
        runs += int(done[-1]) if done else max(numbers, default=0)
        coverage = max([coverage, *map(int, re.findall(r"\bcov: (\d+)", text))])
        peak = max([peak, *map(int, re.findall(r"\brss: (\d+)Mb", text)), *_peaks(text)])
        if not numbers and code != -signal.SIGKILL:
            raise SystemExit(f"the fuzzer did not run; see {log}")
    found = sorted(path.name for path in (directory / "found").iterdir() if path.suffix != ".txt")
    # libFuzzer also leaves slow inputs there that ended.
    crashes = sorted(
        path.name for path in (directory / "crashes").iterdir() if not path.name.startswith("slow-unit")
    )
    return {
        "seconds": round(time.monotonic() - begin), "runs": runs, "processes": processes, "coverage": coverage,
        "peak_mb": peak, "killed": killed, "targets": len(fuzz_targets.TARGETS), "found": found, "crashes": crashes,
        "corpus": len(list((directory / "corpus").iterdir())),
    }  # fmt: skip


def _peaks(text: str) -> list[int]:
    return list(map(int, re.findall(r"peak_rss_mb:\s+(\d+)", text)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument(
        "--timeout",
        type=int,
        default=60,
        help="wall-clock seconds that one input may take; raise it on a busy machine",
    )
    parser.add_argument("--scratch", type=Path, default=Path("fuzz-scratch"))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help="inputs to run once each, instead of fuzzing")
    options = parser.parse_args()
    if options.child:
        fuzz(options.scratch, options.arguments)
        return
    if options.arguments:
        import fuzz_targets

        for path in options.arguments:
            fuzz_targets.run(Path(path).read_bytes())
        return
    found = drive(options.scratch, options.seconds, options.timeout)
    print(json.dumps(found, indent=1))
    print(
        "| attack | runs | seconds | edges covered | peak memory | wrong errors | crashes and hangs | killed |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    print(
        f"| {found['targets']} parsers, guided by coverage | {found['runs']:,} | {found['seconds']} | "
        f"{found['coverage']} | {found['peak_mb']} MB | {len(found['found'])} | {len(found['crashes'])} | "
        f"{found['killed']} |"
    )
    sys.exit(bool(found["found"] or found["crashes"]))


if __name__ == "__main__":
    main()
