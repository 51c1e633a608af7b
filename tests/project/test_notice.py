"""``NOTICE`` names all shipped or downloaded data, and ``LICENSE`` agrees with the metadata."""

import re
import sys

from beamlabel.pipeline.demo.sample import sample_photos
from support.paths import DATA, ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest creates there

NOTICE = (ROOT / "NOTICE").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_licence_is_that_of_the_metadata():
    assert PYPROJECT["project"]["license"] == "Apache-2.0"
    assert PYPROJECT["project"]["license-files"] == ["LICENSE", "NOTICE"]
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    # All nine sections and the appendix.
    assert re.findall(r"^   (\d)\. ", text, re.MULTILINE) == [str(number) for number in range(1, 10)]
    assert "END OF TERMS AND CONDITIONS" in text


def test_data_in_the_package_is_named():
    """All files except code and the project's own pages and provider file.

    The pages are those of the report and of diff; the provider file is that of Beam YAML.
    """
    files = [
        path
        for directory in ("pipeline", "transforms")
        for path in (ROOT / directory).rglob("*.*")
        if path.suffix not in (".py", ".pyc") and path.parent.name not in ("report", "diff", "beam_yaml")
    ]
    assert files
    assert [path for path in files if str(path.relative_to(ROOT)) not in NOTICE] == []


def test_data_of_the_tests_is_named():
    """By its name or that of its directory; an ``.expected.npz`` lies beside its image."""
    told = NOTICE + (DATA / "README.md").read_text()
    paths = [path for path in DATA.iterdir() if path.name != "README.md"]
    assert paths
    assert [path for path in paths if path.name.removesuffix(".expected.npz") not in told] == []


def test_every_sample_photograph_is_named_with_its_package():
    pages = NOTICE.split("The sample photographs")[1]
    for photo in sample_photos():
        assert re.search(rf"^    {re.escape(photo.name)} ", pages, re.MULTILINE), photo
    for requirement in PYPROJECT["project"]["optional-dependencies"]["demo"]:
        package = re.match(r"[\w-]+", requirement)
        assert package and package[0] in NOTICE, requirement
