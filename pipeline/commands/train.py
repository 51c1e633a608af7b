"""``beamlabel train OUTPUT... --truth ... --output DIR``: trains your own classes on top of a module."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

from beamlabel.pipeline.options.fetch_rights import FetchRights
from beamlabel.pipeline.options.parser import Parser, add_options, add_payer, values_of
from beamlabel.pipeline.process import messages
from beamlabel.transforms.storage.billing import set_billing_project

if TYPE_CHECKING:
    from beamlabel.pipeline.train.findings.findings import Findings

_WORST = 3
_DESCRIPTION = """\
Trains a head for your own classes on the embeddings in outputs, and writes a module of base and head. The job accepts
the module as --module, beamlabel relabel runs its head alone, and tensorflow_hub loads it.

The truth is a file, a kept column of the output, or the directory of each image (--truth parent). Each image counts
once, by its newest row, and copies are never in two splits. L2, the number of epochs, and the temperature that
calibrates the scores are chosen on the validation images. Then the head is trained on train and validation images. The
test images are used only to measure. _TRAINING.json and _report.html are written beside the module."""
_EPILOG = """\
During training the embeddings are in an unnamed file in the directory TMPDIR. Exit codes: 0 done, 2 wrong usage, a
truth that cannot be used, or --output exists, 3 failed, 130/143 cancelled."""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
      UsageError: a wrong argument, or see ``train``.
    """
    import argparse

    from beamlabel.pipeline.fine_tune.options import FineTuneOptions, check
    from beamlabel.pipeline.places.cache import check_kept
    from beamlabel.pipeline.train.rows.options import HeadOptions, ResultOptions, RowsOptions
    from beamlabel.pipeline.truth.options import TruthOptions

    parser = Parser(
        prog="beamlabel train",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for group in (RowsOptions, TruthOptions, ResultOptions, HeadOptions, FineTuneOptions, FetchRights):
        add_options(parser, group)
    add_payer(parser)
    parsed = parser.parse_args(argv)
    set_billing_project(parsed.billing_project)

    from beamlabel.pipeline.process.cancellation import Cancelled
    from beamlabel.pipeline.train.train import TrainOptions, train

    options = TrainOptions(
        rows=values_of(RowsOptions, parsed),
        truth=values_of(TruthOptions, parsed),
        head=values_of(HeadOptions, parsed),
        result=values_of(ResultOptions, parsed),
        rights=values_of(FetchRights, parsed),
    )
    check(fine_tuning := values_of(FineTuneOptions, parsed))
    check_kept()
    began = time.monotonic()

    def tell(text: str) -> None:
        messages.tell(text, "beamlabel train")

    try:
        if fine_tuning.fine_tune:
            from beamlabel.pipeline.fine_tune.fine_tune import fine_tune

            findings = fine_tune(options, fine_tuning, tell)
        else:
            findings = train(options, tell)
    except Cancelled:
        tell(f"nothing was written to {options.result.output}")
        raise
    told = summary(
        findings, options.result.output, options.rows.outputs[0], is_fine_tuned=fine_tuning.fine_tune
    )
    for line in told:
        tell(line)
    tell(f"done in {time.monotonic() - began:.0f} s")
    return 0


def summary(findings: Findings, output: str, source: str, *, is_fine_tuned: bool = False) -> list[str]:
    """The result in a few lines.

    Args:
      findings: of the training.
      output: the module's directory.
      source: an output for the suggested next command.
      is_fine_tuned: whether the whole network was trained.
    """
    from beamlabel.pipeline import layout
    from beamlabel.transforms import storage

    tested, lines = findings.accuracy["test"], []
    if tested.value is None or tested.low is None or tested.high is None:
        lines.append("no image was left for the test, so the accuracy of the head is unknown")
    else:
        lines.append(
            f"accuracy {tested.value:.1%} on {tested.images} test images (95 %: {tested.low:.1%} to {tested.high:.1%})"
        )
    told = sorted((one.f1, one.name) for one in findings.class_scores if one.f1 is not None)
    if len(told) > _WORST:
        worst = ", ".join(f"{name} {f1:.2f}" for f1, name in told[:_WORST])
        lines.append(f"worst classes by F1 on the test images, 0 to 1: {worst}")
    if suspects := len(findings.suspects):
        found = "1 image has" if suspects == 1 else f"{suspects} images have"
        lines.append(f"{found} a truth that is likely wrong; check and correct it in the report")
    module = shlex.quote(output)
    # A fine-tuned network has other features than the rows, so relabel cannot use them.
    follows = (
        f"beamlabel --input IMAGES --module {module} --output NEW"
        if is_fine_tuned
        else f"beamlabel relabel {shlex.quote(source)} --module {module} --output NEW"
    )
    lines += [f"module: {output}", f"report: {storage.join(output, layout.REPORT)}", f"next: {follows}"]
    return lines
