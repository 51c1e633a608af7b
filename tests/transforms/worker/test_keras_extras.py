"""Packages that Keras imports only for plots and wrappers are left out, in beamlabel's own processes only."""

import subprocess
import sys

import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("sklearn")

PROGRAM = """
import sys
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.worker.keras_extras import leave_out_keras_extras
if {is_own}:
    leave_out_keras_extras()
tf = tensorflow()
print("sklearn" in sys.modules, tf.keras.layers.Dense(2)(tf.ones((1, 3))).shape[1])
import sklearn
"""


@pytest.mark.parametrize("is_own", [True, False])
def test_they_are_left_out_while_tensorflow_is_imported(is_own):
    program = PROGRAM.format(is_own=is_own)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(not is_own), "2"], done.stderr
    assert done.returncode == 0, "afterwards they can be imported"
