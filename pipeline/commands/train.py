"""``beamlabel train OUTPUT... --truth ... --output DIR``: classes of one's own on top of a module."""

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
Trains a head for classes of your own on the embeddings that outputs hold, and writes a module of base and head,
which the job takes as --module, beamlabel relabel runs alone, and tensorflow_hub loads.

The truth is a file, a kept column of the output, or the folder of each image (--truth parent). Each image counts
once, by its newest row; copies are never in two splits. L2 and the number of epochs are chosen on the validation
images, and so is the temperature that makes scores as sure as they are right; then the head is trained on train and
validation images. The test images are only looked at. Beside the module lie _TRAINING.json and _report.html."""
_EPILOG = """\
The embeddings lie in a file without a name while the head is trained, in the folder that TMPDIR names. Exit codes:
0 done, 2 wrong usage, a truth that cannot be used, or --output exists, 3 it broke, 130/143 cancelled."""


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
        tell(f"cancelled, and nothing is written to {options.result.output}")
        raise
    told = summary(
        findings, options.result.output, options.rows.outputs[0], is_fine_tuned=fine_tuning.fine_tune
    )
    for line in told:
        tell(line)
    tell(f"done in {time.monotonic() - began:.0f} s")
    return 0


def summary(findings: Findings, output: str, source: str, *, is_fine_tuned: bool = False) -> list[str]:
    """The end of the story in a few lines.

    Args:
      findings: of the training.
      output: where the module is.
      source: an output that the next command may take.
      is_fine_tuned: whether the whole network was trained.
    """
    from beamlabel.pipeline import layout
    from beamlabel.transforms import storage

    tested, lines = findings.accuracy["test"], []
    if tested.value is None or tested.low is None or tested.high is None:
        lines.append("no image was left to test: nobody knows how good the head is")
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
        lines.append(f"{found} a truth that is likely wrong: look at the report, and correct it there")
    module = shlex.quote(output)
    # The features of a network that was trained are others than those that the rows have.
    follows = (
        f"beamlabel --input IMAGES --module {module} --output NEW"
        if is_fine_tuned
        else f"beamlabel relabel {shlex.quote(source)} --module {module} --output NEW"
    )
    lines += [f"module: {output}", f"report: {storage.join(output, layout.REPORT)}", f"next: {follows}"]
    return lines
