"""The identity of a run's settings."""

from beamlabel.transforms.output_spec import canonical_sha256


def test_names_of_files_that_are_not_utf8_tell_settings_apart() -> None:
    names = ["a.jpg", "a\udcff.jpg", "a\udcfe.jpg", "aÿ.jpg"]
    assert len({canonical_sha256({"input": [name]}) for name in names}) == 4
