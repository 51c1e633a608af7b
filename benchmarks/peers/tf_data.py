"""TensorFlow's own way: ``tf.data`` decodes in its threads, a traced function infers, rows go to one Parquet file.

It decodes with libjpeg's accurate method; TensorFlow's default, the fast method, gives other pixels.
"""

from __future__ import annotations

from typing import Any

import peer
import pyarrow.parquet as pq
import tensorflow as tf

BATCH = 64


def main() -> None:
    options = peer.parser(__doc__).parse_args()
    facts = peer.read_facts(options.prepared)
    output = peer.empty_directory(options.output)
    model = peer.TensorFlowModel(options.module, facts)

    def load(uri: Any) -> tuple[Any, Any]:
        pixels = tf.io.decode_jpeg(tf.io.read_file(uri), channels=3, dct_method="INTEGER_ACCURATE")
        return uri, tf.image.resize(pixels, (facts.height, facts.width)) / 255.0

    paths = tf.data.Dataset.from_tensor_slices(peer.read_list(options.input))
    loaded = paths.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    batches = loaded.batch(BATCH).prefetch(tf.data.AUTOTUNE)
    with pq.ParquetWriter(output / "part-0.parquet", peer.schema(facts.dimensions)) as writer:
        for uris, images in batches:
            logits, features = model.predict(images)
            names = [uri.decode() for uri in uris.numpy()]
            writer.write_table(peer.table(names, logits.numpy(), features.numpy()))


if __name__ == "__main__":
    main()
