"""The clients that ``X-Robots-Tag`` addresses, and the directives that forbid use."""

import pytest

from beamlabel.transforms.loading.web.robots_tag import forbidding

OURS = "beamlabel/1.0 (+https://example.org/bot; noai-ignorer/9)"


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        (["noai"], "noai"),
        (["NoImageAI"], "noimageai"),
        (["noindex, noai"], "noai"),
        (["noindex", "nofollow,NOAI"], "noai"),
        (["beamlabel: noai"], "noai"),
        (["BeamLabel: noindex, noimageai"], "noimageai"),
        (["*: noai"], "noai"),
        (["otherbot: noindex, beamlabel: noai"], "noai"),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST, noai"], "noai"),
        (["unavailable_after: Friday, 25-Jun-10 15:00:00 UTC, noai"], "noai"),
        (["max-snippet: 20, max-image-preview: large, noai"], "noai"),
        (["otherbot: noai", "noimageai"], "noimageai"),
        ([], None),
        ([""], None),
        (["noindex, nofollow, noarchive"], None),
        (["otherbot: noai"], None),
        (["otherbot: noindex, noai"], None),
        (["otherbot: noai", "beamlabel: noindex"], None),
        (["noai-ignorer: noai"], None),
        (["noairline", "no ai", "noai=0"], None),
    ],
)
def test_what_forbids(tags: list[str], found: str | None) -> None:
    assert forbidding(tags, OURS) == found


def test_who_asks_under_another_name_is_meant_by_it() -> None:
    assert forbidding(["mybot: noai"], "MyBot/2 (+mailto:a@b) Mozilla/5.0") == "noai"
    assert forbidding(["mozilla: noai"], "MyBot/2 (+mailto:a@b) Mozilla/5.0") == "noai"
    assert forbidding(["beamlabel: noai"], "MyBot/2") == "noai"
    assert forbidding(["mybot: noai"], OURS) is None
