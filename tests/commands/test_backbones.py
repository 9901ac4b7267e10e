"""`thawnet backbones`: what there is to start from, and what it costs."""

from __future__ import annotations

import pytest

from support.commands import called
from thawnet.model.catalogue import CURATED, MOST, facts_of, search


def test_short_list_names_networks_that_timm_has_with_their_cost(
    capfd: pytest.CaptureFixture[str],
) -> None:
    status, out, err = called(capfd, "backbones")
    assert status == 0
    heading, *rows = out.splitlines()
    assert heading.split() == ["name", "parameters", "GMACs", "at", "licence", "weights", "for"]
    assert [row.split()[0] for row in rows] == list(CURATED)
    assert "thawnet backbones WORD" in err


def test_cost_is_the_published_one() -> None:
    facts = facts_of("mobilenetv2_100")
    assert facts is not None
    # Sandler et al. 2018, table 4: 3.4 M parameters and 300 M multiply-adds at 224 px.
    assert facts.parameters == pytest.approx(3.5, abs=0.05)
    assert facts.macs == pytest.approx(0.300, abs=0.005)
    assert (facts.size, facts.licence, facts.weights) == (224, "apache-2.0", "ra_in1k")


def test_transformers_are_told_at_a_size_that_pays() -> None:
    facts = facts_of("vit_small_patch14_dinov2")
    assert facts is not None
    assert facts.size == 224  # their weights': 518


def test_search_finds_names_with_all_words_the_small_ones_first(
    capfd: pytest.CaptureFixture[str],
) -> None:
    names = search(["dinov2", "reg4"])
    assert names[0].startswith("vit_small_")
    assert all("dinov2" in name and "reg4" in name for name in names)
    assert len(search(["vit"])) == MOST
    status, out, _ = called(capfd, "backbones", "mobilenetv2", "050")
    assert status == 0
    assert out.splitlines()[1].split()[0] == "mobilenetv2_050"


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("mobilenet_v2", "mobilenetv2_100"),
        ("MobileNet-V2", "mobilenetv2_100"),
        ("vit_b_16", "vit_base_patch16_224"),
        ("dino v2", "vit_small_patch14_dinov2"),
    ],
)
def test_search_knows_how_else_people_write_it(word: str, first: str) -> None:
    assert search([word])[0] == first


def test_word_that_no_name_has_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = called(capfd, "backbones", "mobilnet")
    assert (status, out) == (2, "")
    assert err == (
        "thawnet: 'mobilnet': no model of timm has that in its name; `thawnet backbones` lists "
        "some to begin with\n"
    )
