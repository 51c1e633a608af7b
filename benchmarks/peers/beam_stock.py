"""Beam as its own examples write it (``examples/inference``: PyTorch image classification, TensorFlow segmentation).

Two things differ. ``load_model`` is overridden because the stock handlers call Keras, which refuses TF1 Hub modules
(https://github.com/apache/beam/issues/30288). The local runner is named because ``DirectRunner`` would first try to
download another one. Unknown arguments go to Beam, such as
``--direct_num_workers=2 --direct_running_mode=multi_processing``.
"""

from __future__ import annotations

import io
from typing import Any

import apache_beam as beam
import numpy as np
import peer
import tensorflow as tf
import tensorflow_hub as hub
from apache_beam.io.filesystems import FileSystems
from apache_beam.ml.inference.base import KeyedModelHandler, PredictionResult, RunInference
from apache_beam.ml.inference.tensorflow_inference import TFModelHandlerTensor
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from PIL import Image


class HubModelHandler(TFModelHandlerTensor):
    """The stock handler with another way to load the module."""

    def load_model(self) -> Any:
        return hub.load(self._model_uri, tags=[])


class Infer:
    """The inference function: both outputs in one call."""

    def __init__(self, features: str) -> None:
        self._features = features

    def __call__(self, model: Any, batch: Any, inference_args: Any, model_id: Any = None) -> Any:
        outputs = model.signatures[peer.SIGNATURE](images=tf.stack(batch, axis=0))
        answers = zip(outputs[peer.LOGITS].numpy(), outputs[self._features].numpy(), strict=True)
        return [
            PredictionResult(image, {"logits": logits, "features": features}, model_id)
            for image, (logits, features) in zip(batch, answers, strict=True)
        ]


def read(uri: str) -> tuple[str, bytes]:
    with FileSystems.open(uri) as file:
        return uri, file.read()


def preprocess(keyed: tuple[str, bytes], size: tuple[int, int]) -> tuple[str, Any]:
    uri, data = keyed
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return uri, tf.image.resize(np.asarray(image), size) / 255.0


def postprocess(keyed: tuple[str, Any]) -> dict[str, Any]:
    uri, result = keyed
    ids, scores = peer.top_k(result.inference["logits"][np.newaxis])
    features = result.inference["features"].reshape(-1)
    return {"uri": uri, "class_ids": ids[0], "scores": scores[0], "embedding": features}


def main() -> None:
    peer.let_workers_import_this()
    options, beam_arguments = peer.parser(__doc__).parse_known_args()
    facts = peer.read_facts(options.prepared)
    output = peer.empty_directory(options.output)
    handler = HubModelHandler(options.module, inference_fn=Infer(facts.features))
    beam_options = PipelineOptions(beam_arguments, save_main_session=True)
    with beam.Pipeline(runner=FnApiRunner(), options=beam_options) as pipeline:
        _ = (
            pipeline
            | "ReadList" >> beam.io.ReadFromText(options.input)
            | "Read" >> beam.Map(read)
            | "Preprocess" >> beam.Map(preprocess, size=(facts.height, facts.width))
            | "Infer" >> RunInference(KeyedModelHandler(handler))
            | "Postprocess" >> beam.Map(postprocess)
            | "Write"
            >> beam.io.WriteToParquet(
                str(output / "part"), peer.schema(facts.dimensions), file_name_suffix=".parquet"
            )
        )


if __name__ == "__main__":
    main()
