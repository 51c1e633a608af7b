"""The facts that ``docs/nightly.md`` states: times of the lock, exit codes, names of files."""

import re

import support.nightly_deployment as deployment
from beamlabel.pipeline.output import lease
from support.exit_code_tables import OF_JOBS, in_tables
from support.nightly_deployment import ROOT

PAGE = (ROOT / "docs" / "nightly.md").read_text()


def test_the_times_of_the_lock_are_the_programs():
    told = re.findall(
        r"(\d+) (seconds|minutes)", PAGE.split("## Locks and foreign files")[1].split("\n\n")[1]
    )
    seconds = [int(number) * {"seconds": 1, "minutes": 60}[unit] for number, unit in told]
    assert seconds == [lease.RENEW_SECONDS, lease.STALE_SECONDS]


def test_the_table_of_exit_codes_is_the_programs():
    assert in_tables(PAGE) == OF_JOBS


def test_files_that_the_page_names_are_there():
    for link in re.findall(r"\]\((\.\./[^)#]*|[\w.]+\.md)\)", PAGE):
        assert (ROOT / "docs" / link).exists()
    table = PAGE.split("## Schedules")[1]
    for name in re.findall(r"`([\w@-]+\.(?:py|yaml|service|sh|cron))`", table):
        assert (deployment.DIRECTORY / name).exists(), name
    titles = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors
