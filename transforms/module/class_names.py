"""Loads the names of a model's classes."""

from __future__ import annotations

from importlib import resources

IMAGENET_CLASSES = 1000
BACKGROUND = "background"


def load_class_names(labels: str | None, num_classes: int | None) -> tuple[str, ...] | None:
    """The names of a model's classes, in the order of its logits.

    Args:
      labels: a file with one name per line (UTF-8, local or ``gs://``); ``"none"`` for no names; None to choose by the
        number of classes: 1000 are the ILSVRC-2012 classes in synset order, 1001 the same after ``background``, and any
        other number has no names.
      num_classes: columns of the model's logits; None if it has none.

    Returns:
      ``num_classes`` names, or None.

    Raises:
      ValueError: a file for a model without logits, an empty line in the file, bytes that are not UTF-8, or a number of
        names other than the number of classes.
    """
    if labels == "none":
        return None
    if labels is None:
        return _imagenet_names(num_classes)
    if num_classes is None:
        raise ValueError(f"labels {labels}: the module has no logits, so it has no classes to name")
    names = _read_names(labels)
    if len(names) != num_classes:
        raise ValueError(
            f"labels {labels}: {len(names)} names for {num_classes} classes{_hint(len(names) - num_classes)}"
        )
    return names


def _imagenet_names(num_classes: int | None) -> tuple[str, ...] | None:
    if num_classes not in (IMAGENET_CLASSES, IMAGENET_CLASSES + 1):
        return None
    text = (
        resources.files("beamlabel.transforms.module")
        .joinpath("imagenet_labels.txt")
        .read_text(encoding="utf-8")
    )
    names = tuple(text.splitlines())
    return names if num_classes == IMAGENET_CLASSES else (BACKGROUND, *names)


def _read_names(path: str) -> tuple[str, ...]:
    from beamlabel.transforms.storage import read_bytes

    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"labels {path}: not UTF-8 at byte {error.start}") from error
    # Not splitlines(): a form feed or U+2028 inside a name does not start a new line.
    names = [line.strip() for line in text.rstrip().replace("\r\n", "\n").split("\n")]
    if names == [""]:
        raise ValueError(f"labels {path}: the file is empty")
    for number, name in enumerate(names, start=1):
        if not name:
            raise ValueError(f"labels {path}: line {number} is empty; every class needs a name")
    return tuple(names)


def _hint(surplus: int) -> str:
    if surplus == -1:
        return f"; does the model's class 0 mean '{BACKGROUND}'? Then add that as the first line"
    if surplus == 1:
        return f"; is the first line '{BACKGROUND}', which this model does not have? Then remove it"
    return ""
