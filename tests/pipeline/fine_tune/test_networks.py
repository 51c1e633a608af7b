"""Modules as trainable networks: changing variables, gradients, and refusals."""

import numpy as np
import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.fine_tune.layers import blocks_of, trained_from
from beamlabel.pipeline.fine_tune.network import FROZEN, MODULE, OURS
from beamlabel.pipeline.fine_tune.open_network import open_network
from beamlabel.pipeline.fine_tune.statistics import Movement, choose_mode, modes_to_try, movement_of
from beamlabel.pipeline.fine_tune.training import is_enough
from beamlabel.transforms.hub.resolve import resolve_module
from beamlabel.transforms.module.load import inspect_module
from support.fine_tuning import broken
from support.modules import inspect
from support.own_modules import save_own

tf = pytest.importorskip("tensorflow")

from support.tf_modules import keras_classifier, save_constants, save_two_outputs  # noqa: E402


@pytest.fixture(scope="module")
def network(tiny):
    return open_network(inspect(tiny))


@pytest.fixture(scope="module")
def images():
    return tf.random.stateless_uniform([16, 32, 32, 3], seed=[1, 2])


def moved_by(network, function, images):
    """The names of the variables that change when a function runs; they are restored."""
    before = network.values()
    function(images)
    after = network.values()
    network.assign(before)
    return {
        name
        for name, one, other in zip(network.names, before, after, strict=True)
        if not np.array_equal(one, other)
    }


def gradients_of(network, function, images):
    """The sum of absolute gradients of each trainable variable."""
    variables = [one for one, trained in zip(network.variables, network.trainable, strict=True) if trained]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(function(images)))
    return [
        0.0 if one is None else float(tf.reduce_sum(tf.abs(one))) for one in tape.gradient(loss, variables)
    ]


@pytest.mark.parametrize("mode", [MODULE, OURS])
def test_all_variables_have_gradients_and_all_averages_move(network, images, mode):
    gradients = gradients_of(network, network.train[mode], images)
    assert len(gradients) == 39 and all(np.isfinite(gradients)) and all(gradients)
    averages = {name for name in network.names if "/moving_" in name}
    assert len(averages) == len(network.statistics) == 26
    assert moved_by(network, network.train[mode], images) - {"calls"} == averages
    assert not moved_by(network, network.infer, images)


def test_our_averages_move_as_the_modules_do(network, images):
    movement = movement_of(network, images)
    # The exporter's value is 0.999.
    assert (movement.statistics, movement.moved) == (26, 26)
    assert movement.kept == pytest.approx(0.999, abs=2e-4)
    assert modes_to_try(network, movement, 5000)[0] == [MODULE]
    assert modes_to_try(network, movement, 100)[0] == [OURS]


def test_a_frozen_network_is_trained_as_it_serves(network, images):
    gradients = gradients_of(network, network.infer, images)
    assert len(gradients) == 39 and all(np.isfinite(gradients)) and all(gradients)


@pytest.mark.parametrize("how", ["no collection", "no-ops"])
def test_update_ops_that_do_not_move_are_noticed(tiny, tmp_path, images, how):
    network = open_network(inspect(broken(tiny, tmp_path / "broken", how)))
    movement = movement_of(network, images)
    assert (movement.statistics, movement.moved) == (26, 0)
    modes, why = modes_to_try(network, movement, 5000)
    assert modes == [OURS, FROZEN] and "0 of 26" in why
    assert len(moved_by(network, network.train[OURS], images) - {"calls"}) == 26


def test_the_way_with_the_best_validation_is_taken():
    scores = {OURS: (0.5, 1.0), FROZEN: (0.5, 0.9)}
    best, told = choose_mode([OURS, FROZEN], scores.__getitem__)
    assert best == FROZEN and told[OURS] == {"validation_accuracy": 0.5, "validation_loss": 1.0}
    assert choose_mode([OURS, FROZEN], {OURS: (0.6, 2.0), FROZEN: (0.5, 0.9)}.__getitem__)[0] == OURS


@pytest.mark.parametrize(
    ("done", "best", "epochs", "expected"),
    [
        (3, 0, 12, False),
        (10, 1, 12, False),
        (11, 1, 12, True),
        (11, 7, 12, False),
        (12, 12, 12, True),
        (1, 1, 1, True),
    ],
)
def test_when_a_training_ends(done, best, epochs, expected):
    assert is_enough(done, best, epochs, patience=5) is expected


def test_without_a_train_graph_the_statistics_stay(tiny, tmp_path, images):
    network = open_network(inspect(broken(tiny, tmp_path / "frozen", "no train graph")))
    modes, why = modes_to_try(network, movement_of(network, images), 5000)
    assert modes == [FROZEN] and network.source in why
    assert all(gradients_of(network, network.infer, images))


def test_training_begins_at_a_layer(network):
    blocks = blocks_of(network)
    assert blocks[0] == "Conv" and blocks[-1] == "Conv_1" and len(blocks) == 6
    for layer in ("Conv_1", "MobilenetV2/Conv_1", "expanded_conv_2/project"):
        trained = trained_from(network, layer)
        first = next(name for name, one in zip(network.names, trained, strict=True) if one)
        assert layer in first and sum(trained) < 39 and trained[-2 - 4 : -2 - 1][0]
        assert trained[trained.index(True) :] == list(network.trainable)[trained.index(True) :]
    with pytest.raises(UsageError) as caught:
        trained_from(network, "expanded_conv_9")
    assert all(block in str(caught.value) for block in blocks)


def _keras(directory):
    keras_classifier().save(directory.with_suffix(".keras"))
    return directory.with_suffix(".keras"), {"input_range": (-1.0, 1.0), "features_output": "pooled"}


def _tf2(directory):
    return save_two_outputs(directory, size=8), {}


def _own(directory):
    base = save_two_outputs(directory.with_name("base"), size=8)
    return save_own(directory, base, directory.with_name("cache"))[0], {}


@pytest.mark.parametrize("kind", [_keras, _tf2, _own])
def test_other_formats_can_be_trained(kind, tmp_path):
    path, options = kind(tmp_path / "module")
    module = inspect_module(resolve_module(str(path), tmp_path / "cache"), **options)
    network = open_network(module)
    images = tf.random.stateless_uniform([4, module.height, module.width, 3], seed=[1, 2])
    np.testing.assert_allclose(
        network.infer(images).numpy(), module.function(images)[1].numpy(), rtol=0, atol=1e-5
    )
    assert any(gradients_of(network, network.train.get(MODULE, network.infer), images))
    if kind is _keras:
        assert movement_of(network, images) == Movement(2, 2)


def test_constants_are_refused(tmp_path):
    module = inspect(save_constants(tmp_path / "constants"), features_output="serving_default:logits")
    with pytest.raises(UsageError, match="constants"):
        open_network(module)
