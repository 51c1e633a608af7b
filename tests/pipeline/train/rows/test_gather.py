"""Rows for a training: the same rows in the same order for all image locations."""

from beamlabel.pipeline.train.rows.options import RowsOptions
from beamlabel.pipeline.train.rows.rows import gather_rows
from beamlabel.pipeline.truth.options import TruthOptions
from support.fine_tuning import patterns
from support.jobs import TINY_FEATURES, label


def test_the_order_is_that_of_the_contents(tmp_path):
    found = []
    for name in ("here", "there", "elsewhere"):
        images = patterns(tmp_path / name / "images", 40)
        job = label(tmp_path / name / "labels", "--input", images, module=TINY_FEATURES)
        assert job.code == 0
        rows = gather_rows(RowsOptions(outputs=(str(job.output),)), TruthOptions(truth=("parent",)))
        found.append(rows)
    one, *others = (
        (rows.table.column("content_hash").to_pylist(), rows.split.tolist(), rows.targets.tolist())
        for rows in found
    )
    assert one[0] == sorted(one[0]) and len(one[0]) == 40
    assert others == [one, one]
    # The images' ids depend on their locations and would give another order.
    orders = {tuple(rows.table.column("image_id").to_pylist()) for rows in found}
    assert all(list(ids) != sorted(ids) for ids in orders)
