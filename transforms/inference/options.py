"""Prediction options: combines the user's wishes with the module's limits."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from beamlabel.transforms.deadline.watchdog import BatchDeadline
from beamlabel.transforms.inference.artifact import ModelSpec
from beamlabel.transforms.inference.top_k import SCORE_FUNCTIONS

AUTO = "auto"
DEFAULT_TOP_K = 5


class WishError(ValueError):
    """A value that the module does not allow.

    Attributes:
      argument: the name in ``PredictOptions``.
      detail: the problem.
    """

    def __init__(self, argument: str, detail: str) -> None:
        super().__init__(f"{argument}{detail}")
        self.argument, self.detail = argument, detail

    def __reduce__(self) -> tuple[type[WishError], tuple[str, str]]:
        return WishError, (self.argument, self.detail)


@dataclass(frozen=True)
class HeadArtifact:
    """The head of an own module, compiled for the engine ``linear`` and staged.

    Attributes:
      path: the file, local or remote.
      sha256: SHA-256 of the file, in hex.
    """

    path: str
    sha256: str


@dataclass(frozen=True)
class PredictOptions:
    """How to turn logits and features into predictions.

    The artifact decides the values that are left open here (``scores="auto"``, ``top_k=None``) through ``fitted``, at
    the latest when a worker opens it.

    Attributes:
      artifact_path, artifact_sha256: the artifact that the launcher compiled and staged. With the engine ``linear``,
        elements may be ``EmbeddedRows`` but not images.
      top_k: classes in a row, or 0 for none; None: 5, or all if there are fewer. 5 is also cut to fewer classes.
      scores: ``softmax``, ``sigmoid``, ``none``, or ``auto``: the function that fits the module's logits.
      class_names: a name for each class; None: no names; ``auto``: ImageNet's if the module has its classes, filled in
        by ``derive`` and ``LabelImages``.
      embeddings: whether features are kept, if there are any.
      normalize_embeddings: whether embeddings are scaled to L2 length 1.
      batch_size: images in every batch but the last of a bundle.
      worker_threads: number of computing threads in a worker process; None: the number of available cores.
      keep_pixels: whether predictions carry their pixels on, by reference, for the sink of the same stage.
      billing_project: the project that pays for reading the artifact from ``gs://``; None: the same as for the
        process's other requests.
      head: the head for ``EmbeddedRows`` among the images; None if there are none.
      deadline: seconds after which a worker process that hangs at a batch is ended; None: never.
    """

    artifact_path: str
    artifact_sha256: str
    top_k: int | None = None
    scores: str = AUTO
    class_names: tuple[str, ...] | str | None = AUTO
    embeddings: bool = True
    normalize_embeddings: bool = False
    batch_size: int = 128
    worker_threads: int | None = None
    keep_pixels: bool = False
    billing_project: str | None = None
    head: HeadArtifact | None = None
    deadline: BatchDeadline | None = None

    @property
    def is_open(self) -> bool:
        """Whether the artifact must still decide something."""
        return self.top_k is None or self.scores == AUTO or self.class_names == AUTO

    def __post_init__(self) -> None:
        if self.scores not in (AUTO, *SCORE_FUNCTIONS):
            choices = ", ".join((AUTO, *SCORE_FUNCTIONS))
            raise ValueError(f"scores must be one of {choices}, not {self.scores!r}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {self.batch_size}")
        if self.top_k is not None and self.top_k < 0:
            raise ValueError(f"top_k must be at least 0, not {self.top_k}")


def fitted(
    options: PredictOptions, spec: ModelSpec, default_names: tuple[str, ...] | None = None
) -> PredictOptions:
    """The options fitted to a module, with nothing left open. Fitting them again changes nothing.

    Args:
      options: the user's options.
      spec: the spec of the module.
      default_names: the class names for ``class_names`` of ``auto``.

    Raises:
      WishError: the module does not allow a value; the error names it.
    """
    _check_embeddings(options, spec)
    top_k = _top_k(options.top_k, spec.num_classes)
    names = default_names if options.class_names == AUTO else options.class_names
    if names is not None and len(names) != (spec.num_classes or 0):
        raise WishError("class_names", f": {len(names)} names for {spec.num_classes or 0} classes")
    return dataclasses.replace(
        options,
        top_k=top_k,
        scores=_scores(options.scores, spec) if top_k else "none",
        class_names=names,
        embeddings=options.embeddings and spec.embedding_dim is not None,
    )


def describe_scores(spec: ModelSpec, scores: str, *, asked: bool) -> str:
    """Describes which scores a module gets and why."""
    if asked:
        return f"Scores: {scores}, as requested. The module gives {spec.score_kind}: {spec.scores_reason}"
    left = "Scores are left unchanged" if scores == "none" else f"Scores use {scores}"
    return f"{left}. The module gives {spec.score_kind}: {spec.scores_reason}"


def _top_k(wish: int | None, classes: int | None) -> int:
    if classes is None:
        if wish not in (None, 0, DEFAULT_TOP_K):
            raise WishError("top_k", f" {wish}: the module has no logits")
        return 0
    # The default counts as the default even if the user spells it out.
    if wish is None or wish == DEFAULT_TOP_K:
        return min(DEFAULT_TOP_K, classes)
    if wish > classes:
        raise WishError("top_k", f" {wish}: the module has {classes} classes")
    return wish


def _check_embeddings(options: PredictOptions, spec: ModelSpec) -> None:
    if not options.embeddings and spec.num_classes is None:
        raise WishError("embeddings", ": the module has no logits, so nothing would be left")
    if options.normalize_embeddings and (not options.embeddings or spec.embedding_dim is None):
        raise WishError("normalize_embeddings", ": the result has no embeddings to normalize")


def _scores(wish: str, spec: ModelSpec) -> str:
    if wish == "softmax" and spec.num_classes == 1:
        raise WishError("scores", " softmax: the module has one class, whose softmax is 1 for every image")
    if wish != AUTO:
        return wish
    if spec.scores is None:
        raise WishError(
            "scores",
            f": it is not clear whether the module gives logits or probabilities for its {spec.num_classes} classes: "
            f"{spec.scores_reason}; use softmax or sigmoid for logits, or none to leave them unchanged",
        )
    return spec.scores
