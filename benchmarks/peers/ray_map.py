"""Ray Data: ``map_batches`` over as many actors as cores, each with the module, then ``write_parquet``.

Actors that decode and infer were faster than tasks that decode ahead of one actor that infers.
"""

from __future__ import annotations

import os
from typing import Any

import peer

BATCH, BLOCK = 64, 128

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


class Label:
    """An actor that decodes and infers a batch."""

    def __init__(self, module: str, facts: peer.Facts) -> None:
        self._model = peer.TensorFlowModel(module, facts, threads=1)
        self._size = (facts.height, facts.width)

    def __call__(self, batch: dict[str, Any]) -> Any:
        uris = list(batch["uri"])
        return peer.table(uris, *self._model.from_pixels(peer.decode_files(uris, self._size)))


def main() -> None:
    peer.let_workers_import_this()
    options = peer.parser(__doc__).parse_args()
    import ray

    cores = len(os.sched_getaffinity(0))
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    output = peer.empty_directory(options.output)
    paths = peer.read_list(options.input)
    blocks = max(cores, len(paths) // BLOCK)
    dataset = ray.data.from_items([{"uri": path} for path in paths], override_num_blocks=blocks)
    labeled = dataset.map_batches(
        Label,
        fn_constructor_args=(options.module, peer.read_facts(options.prepared)),
        batch_size=BATCH,
        num_cpus=0.75,  # the rest of each core is for the tasks that write
        compute=ray.data.ActorPoolStrategy(size=cores),
    )
    labeled.write_parquet(str(output), ray_remote_args={"num_cpus": 0.25})


if __name__ == "__main__":
    main()
