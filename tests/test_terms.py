"""Under which terms code, parts and weaves may be used: cards, the wheel's metadata, and what ``weft info`` tells."""

from __future__ import annotations

import json
import re
from importlib.metadata import metadata

import pytest
from typer.testing import CliRunner

from weft.catalog import PARTS
from weft.cli import app
from weft.errors import PartError
from weft.shipped import SHIPPED, shipped
from weft.terms import CODE, Terms, terms_of

CARD = """---
license: {}
datasets: [news, tales]
terms:
  news: research only
  tales: MIT
---
# a weave
"""


def test_card_tells_the_terms_of_a_weave_and_of_its_data(tmp_path):
    (tmp_path / "README.md").write_text(CARD.format("other\nlicense_name: research-only"))
    terms = terms_of(tmp_path)
    assert terms == Terms("research-only", {"news": "research only", "tales": "MIT"})
    assert str(terms) == "research-only; learned from news (research only), tales (MIT)"
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    assert terms_of(tmp_path) == Terms("apache-2.0", {})


@pytest.mark.parametrize(
    "card",
    [
        None,
        "# a weave",
        CARD.format("other"),  # without a name
        CARD.format("mit").replace("  news: research only\n", ""),  # a data set without terms
        CARD.format("mit").replace("news, tales", "news"),  # terms of something else
    ],
)
def test_weave_whose_card_does_not_tell_its_terms_is_refused(tmp_path, card):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    with pytest.raises(PartError, match=r"README\.md doesn't say under which terms"):
        terms_of(tmp_path)


@pytest.mark.parametrize("name", SHIPPED)
def test_card_of_every_shipped_weave_tells_its_terms(name):
    assert terms_of(shipped(name)).data


def test_metadata_of_the_wheel_name_the_terms_of_the_code_and_of_each_weave_and_no_others():
    facts = metadata("weft")
    named = {one.removeprefix("LicenseRef-").lower() for one in re.split(r" AND ", facts["License-Expression"])}
    assert named == {CODE.lower(), *(terms_of(shipped(name)).licence for name in SHIPPED)}
    cards = {f"src/weft/models/{name}/README.md" for name in SHIPPED}
    assert {"LICENSE", *cards} == set(facts.get_all("License-File"))


def test_info_tells_all_terms():
    told = json.loads(CliRunner().invoke(app, ["info", "--json"]).output)["terms"]
    assert told["code"] == CODE
    assert told["parts"] == {id: part.licence for id, part in PARTS.items()}
    for name in SHIPPED:
        terms = terms_of(shipped(name))
        assert told["models"][name] == {"license": terms.licence, "data": terms.data}
    text = CliRunner().invoke(app, ["info"]).output
    assert "terms of the code: Apache-2.0\n" in text
    for name in SHIPPED:
        assert f"terms of {name}: {terms_of(shipped(name))}\n" in text
