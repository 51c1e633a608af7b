"""Writes a module's facts for the peers and the LiteRT file of the hand-written script, once and untimed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from peer import LOGITS, SIGNATURE, Facts, TensorFlowModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--module", required=True)
    parser.add_argument("--prepared", required=True, type=Path)
    options = parser.parse_args()
    import tensorflow as tf
    import tensorflow_hub as hub

    signature = hub.load(options.module, tags=[]).signatures[SIGNATURE]
    shapes = {key: list(spec.shape) for key, spec in signature.structured_outputs.items()}
    _, height, width, _ = signature.structured_input_signature[1]["images"].shape
    features = next(key for key in shapes if key.endswith("global_pool"))
    facts = Facts(height, width, features, shapes[features][-1], shapes[LOGITS][-1])
    model = TensorFlowModel(options.module, facts)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [model.predict.get_concrete_function()], model.loaded
    )
    options.prepared.mkdir(parents=True, exist_ok=True)
    (options.prepared / "model.tflite").write_bytes(converter.convert())
    (options.prepared / "facts.json").write_text(json.dumps(facts._asdict()))


if __name__ == "__main__":
    main()
