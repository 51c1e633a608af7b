"""How predictions are made: what the user wants, and what the module allows, brought together in one place."""

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
      argument: its name in ``PredictOptions``.
      detail: what is wrong.
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
      sha256: of the file, in hex.
    """

    path: str
    sha256: str


@dataclass(frozen=True)
class PredictOptions:
    """How predictions are made of logits and features.

    What is left open here (``scores="auto"``, ``top_k=None``) the artifact decides, by ``fitted``: at the latest
    where a worker opens it.

    Attributes:
      artifact_path, artifact_sha256: what the launcher compiled and staged. If it is of the engine ``linear``, there
        may come ``EmbeddedRows``, and no images.
      top_k: classes in a row, or 0 for none; None: 5, or all where there are fewer. 5 is cut to fewer classes too.
      scores: ``softmax``, ``sigmoid``, ``none``, or ``auto``: what fits the module's logits.
      class_names: a name for each class; None: no names; ``auto``: ImageNet's where the classes are its, which
        ``derive`` and ``LabelImages`` put in.
      embeddings: whether features are kept, if there are any.
      normalize_embeddings: whether embeddings get L2 length 1.
      batch_size: images in every batch but the last of a bundle.
      worker_threads: that compute in a worker process; None: as many as the cores that it may use.
      keep_pixels: whether predictions carry their pixels on, by reference, for the sink of the same stage.
      billing_project: that pays for reading the artifact from ``gs://``; None: as the process's other requests.
      head: for ``EmbeddedRows`` among the images; None if there are none.
      deadline: after which a worker process is ended that hangs at a batch; None: never.
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
        """Whether the artifact has to decide something yet."""
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
    """The options with nothing left open, as they fit a module. Fitting them again changes nothing.

    Args:
      options: the wishes.
      spec: the module's.
      default_names: what the classes are called where ``class_names`` is ``auto``.

    Raises:
      WishError: the module does not allow a value; names it.
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
    """Which scores a module gets and why, in words."""
    if asked:
        return f"{scores}, as asked for; the module gives {spec.score_kind}: {spec.scores_reason}"
    left = "scores are left as they are" if scores == "none" else f"scores by {scores}"
    return f"{left}: the module gives {spec.score_kind}: {spec.scores_reason}"


def _top_k(wish: int | None, classes: int | None) -> int:
    if classes is None:
        if wish not in (None, 0, DEFAULT_TOP_K):
            raise WishError("top_k", f" {wish}: the module has no logits")
        return 0
    # A default that somebody writes out is the default still.
    if wish is None or wish == DEFAULT_TOP_K:
        return min(DEFAULT_TOP_K, classes)
    if wish > classes:
        raise WishError("top_k", f" {wish}: the module has {classes} classes")
    return wish


def _check_embeddings(options: PredictOptions, spec: ModelSpec) -> None:
    if not options.embeddings and spec.num_classes is None:
        raise WishError("embeddings", ": the module has no logits, so nothing would be left")
    if options.normalize_embeddings and (not options.embeddings or spec.embedding_dim is None):
        raise WishError("normalize_embeddings", ": there are no embeddings to normalize")


def _scores(wish: str, spec: ModelSpec) -> str:
    if wish == "softmax" and spec.num_classes == 1:
        raise WishError("scores", " softmax: the module has one class, whose softmax is 1 for every image")
    if wish != AUTO:
        return wish
    if spec.scores is None:
        raise WishError(
            "scores",
            f": it is not clear whether the module gives logits or probabilities for its {spec.num_classes} classes: "
            f"{spec.scores_reason}; say softmax or sigmoid for logits, or none to leave them as they are",
        )
    return spec.scores
