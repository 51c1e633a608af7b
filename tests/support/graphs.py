"""Fuses a graph as a portable runner does."""

from typing import Any

from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import translations

# These transforms must run in one stage, or pixels would be shuffled.
STEPS = ("OpenUnit", "LoadImages", "RunInference", "WriteUnit")


def fused(graph: beam_runner_api_pb2.Pipeline) -> list[Any]:
    """The stages of a graph after fusion."""
    _, stages = translations.create_and_optimize_stages(
        graph,
        phases=[
            translations.annotate_downstream_side_inputs,
            translations.fix_side_input_pcoll_coders,
            translations.pack_combiners,
            translations.lift_combiners,
            translations.expand_sdf,
            translations.expand_gbk,
            translations.sink_flattens,
            translations.greedily_fuse,
            translations.read_to_impulse,
            translations.sort_stages,
        ],
        known_runner_urns=frozenset(),
        use_state_iterables=False,
    )
    return stages


def names(stage: Any) -> str:
    """The names of a stage's transforms."""
    return " ".join(transform.unique_name for transform in stage.transforms)
