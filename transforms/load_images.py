"""Turns elements into decoded images, fetched and decoded in parallel; each failure has a reason."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam

from beamlabel.transforms.arguments import checked_arguments
from beamlabel.transforms.decoding.picture.options import DecodeOptions
from beamlabel.transforms.elements.references import ElementOptions, ToReferences
from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.loading.load_images import LoadImagesDoFn
from beamlabel.transforms.loading.load_options import LoadOptions, window
from beamlabel.transforms.loading.web.http_options import PER_HOST, HttpOptions, headers_of
from beamlabel.transforms.records import Loaded
from beamlabel.transforms.worker.block_coder import BLOCKS


class LoadImages(beam.PTransform):
    """Turns each element into a ``LoadedImage`` or ``Failure``, in one stream and in any order.

    A ``LoadedImage`` has ``pixels`` (uint8[height, width, 3], RGB), ``info`` and ``ref``; ``ref.origin.element`` is the
    input element. A ``Failure`` has ``stage``, ``reason``, ``detail`` and ``origin``. ``Failure`` elements in the input
    are handed through.

    Args:
      size: (height, width) of the pixels; a module's size is ``ModelHandler.image_size``.
      uri, image, base_dir: see ``LabelImages``.
      crop, color_profile, max_pixels, decode_deadline: see ``LabelImages``.
      max_bytes, fetch_deadline, allow_http, allow_private_hosts, allowed_schemes: see ``LabelImages``.
      load_threads, worker_threads: see ``LabelImages``.
      http_headers, user_agent, ignore_robots_tag, http_per_host, billing_project: see ``LabelImages``.

    Raises:
      ValueError: an argument is out of range; the message names it.
      TypeError: (when a pipeline runs) an element's type cannot hold an image.
    """

    @checked_arguments
    def __init__(
        self,
        size: tuple[int, int],
        *,
        uri: str = "uri",
        image: str | None = None,
        base_dir: str | os.PathLike[str] | None = None,
        crop: float | None = None,
        color_profile: str = "convert",
        max_pixels: int = 100_000_000,
        decode_deadline: float = 20.0,
        max_bytes: int = 64 << 20,
        fetch_deadline: float = 60.0,
        allow_http: bool = False,
        allow_private_hosts: bool = False,
        allowed_schemes: Sequence[str] | None = None,
        http_headers: Mapping[str, str] | None = None,
        user_agent: str | None = None,
        ignore_robots_tag: bool = False,
        http_per_host: int = PER_HOST,
        billing_project: str | None = None,
        load_threads: int = 64,
        worker_threads: int | None = None,
    ) -> None:
        super().__init__()
        try:
            height, width = size
        except (TypeError, ValueError):
            raise ValueError(f"size must be (height, width) in pixels, not {size!r}") from None
        decode = DecodeOptions(height, width, crop, max_pixels, color_profile, decode_deadline)
        http = http_options(http_headers, user_agent, ignore_robots_tag, http_per_host)
        fetch = fetch_options(
            max_bytes, fetch_deadline, allow_http, allow_private_hosts, http, billing_project, allowed_schemes
        )
        self._elements: ElementOptions | None = element_options(uri, image, base_dir)
        self._options = load_options(fetch, decode, load_threads, worker_threads)
        self._in_batches: int | None = None

    @staticmethod
    def with_options(
        options: LoadOptions, elements: ElementOptions | None = None, *, in_batches: int | None = None
    ) -> LoadImages:
        """Creates the transform from existing options.

        Args:
          options: the options for loading images.
          elements: the fields of the image in an element; None: the elements are ``ImageRef``s, or failures and unit
            ends, which are handed through, as in the labeling job.
          in_batches: if the elements are ``Block``s of these: the number of images in each output ``Block``, or fewer
            if they are large. None: elements come and go one by one.
        """
        return _LoadImagesOf(options, elements, in_batches)

    def expand(self, images: beam.PCollection[Any]) -> beam.PCollection[Loaded]:
        if self._elements is not None:
            images = images | "ToReferences" >> ToReferences(self._elements)
        if self._in_batches is None:
            return images | beam.ParDo(LoadImagesDoFn(self._options)).with_output_types(Loaded)
        return images | beam.ParDo(LoadImagesDoFn(self._options, self._in_batches)).with_output_types(BLOCKS)


class _LoadImagesOf(LoadImages):
    def __init__(self, options: LoadOptions, elements: ElementOptions | None, in_batches: int | None) -> None:
        beam.PTransform.__init__(self)
        self._options, self._elements, self._in_batches = options, elements, in_batches


def element_options(
    uri: str, image: str | None, base_dir: str | os.PathLike[str] | None, prefix: str = ""
) -> ElementOptions:
    """The public arguments as ``ElementOptions``: relative paths refer to the current directory by default."""
    base = os.getcwd() if base_dir is None else os.fspath(base_dir)  # noqa: PTH109 (a string is wanted)
    return ElementOptions(uri, image, base, prefix)


def http_options(
    http_headers: Mapping[str, str] | None,
    user_agent: str | None,
    ignore_robots_tag: bool,
    http_per_host: int,
) -> HttpOptions:
    """The public arguments as ``HttpOptions``.

    Raises:
      ValueError: a value is out of range or cannot be sent; the message names the argument, but no header's value.
    """
    return HttpOptions(headers_of(http_headers), user_agent, ignore_robots_tag, http_per_host)


def fetch_options(
    max_bytes: int,
    fetch_deadline: float,
    allow_http: bool,
    allow_private_hosts: bool,
    http: HttpOptions,
    billing_project: str | None,
    allowed_schemes: Sequence[str] | None = None,
) -> FetchOptions:
    """The public arguments as ``FetchOptions``.

    Raises:
      ValueError: a value is out of range; the message names the argument.
    """
    schemes = None if allowed_schemes is None else tuple(allowed_schemes)
    try:
        return FetchOptions(
            max_bytes, fetch_deadline, allow_http, allow_private_hosts, http, billing_project, schemes
        )
    except ValueError as error:
        raise ValueError(str(error).replace("deadline must", "fetch_deadline must")) from None


def load_options(
    fetch: FetchOptions, decode: DecodeOptions, load_threads: int, worker_threads: int | None
) -> LoadOptions:
    """The public arguments as ``LoadOptions``.

    Raises:
      ValueError: a value is out of range; the message names the argument.
    """
    for name, value in (("load_threads", load_threads), ("worker_threads", worker_threads)):
        if value is None and name == "worker_threads":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    return LoadOptions(fetch, decode, load_threads, window(load_threads), worker_threads)
