"""Finds, checks and loads the module that made the embeddings."""

from __future__ import annotations

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.prepare_module import load, resolve
from beamlabel.pipeline.train.rows.base import BaseOutput
from beamlabel.transforms.module.hub_module import HubModule
from beamlabel.transforms.module_process.process import ModuleProcess
from beamlabel.transforms.output_spec import features_id_of
from beamlabel.transforms.own_module.description import Description
from beamlabel.transforms.own_module.head import Head
from beamlabel.transforms.storage.uris import public_uri


def load_base(
    base: BaseOutput,
    handle: str | None,
    process: ModuleProcess,
    *,
    fingerprint: str | None = None,
    allow_unsafe_ops: bool = False,
) -> HubModule:
    """Loads the module whose features the outputs hold; imports TensorFlow.

    Args:
      base: description of the module in the outputs.
      handle: ``--module``; None: the module that the outputs name.
      process: process that fetches and tries the module.
      fingerprint, allow_unsafe_ops: see ``resolve``.

    Raises:
      UsageError: the module is not available, or is a different one.
    """
    named = handle or str(base.options.get("module") or base.handle)
    try:
        resolved = resolve(named, process=process, fingerprint=fingerprint, allow_unsafe_ops=allow_unsafe_ops)
    except UsageError as error:
        hint = "" if handle else f" (the outputs name {named!r}; use --module to give its current location)"
        raise UsageError(f"{error}{hint}") from error
    preprocessing = base.preprocessing
    low, high = preprocessing["input_range"]
    try:
        module = load(
            resolved,
            process,
            logits_output=base.options.get("logits_output"),
            features_output=base.options.get("features_output"),
            image_size=(preprocessing["height"], preprocessing["width"]),
            input_range=(low, high),
        )
    except ValueError as error:
        raise UsageError(f"--module {named!r}: {error}") from error
    same = resolved.fingerprint == base.fingerprint
    if base.features_id:
        same = features_id_of(preprocessing, module.features_of) == base.features_id
    if not same or module.embedding_dim != base.embedding_dim:
        raise UsageError(
            f"--module {named!r} ({resolved.fingerprint[:12]}) did not make the embeddings of the outputs; "
            f"{base.handle} ({base.fingerprint[:12]}) did"
        )
    return module


def description_of(module: HubModule, base: BaseOutput, head: Head, classes: tuple[str, ...]) -> Description:
    """The description of an own module."""
    return Description(
        class_names=classes,
        scores=head.scores,
        normalizes=head.normalizes,
        height=module.height,
        width=module.width,
        input_range=module.input_range,
        features_of=module.features_of,
        base=public_uri(module.resolved.handle),
        base_fingerprint=module.resolved.fingerprint,
        decoding={name: base.preprocessing.get(name) for name in ("crop", "color_profile")},
    )
