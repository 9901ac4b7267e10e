"""The command `backbones`: list pretrained networks and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from ..core import console
from ..core.columns import aligned
from ..core.errors import UsageError
from ..core.flags import option
from ..core.packages import TRAIN_PACKAGES, require_installed

HEADINGS = ("name", "parameters", "GMACs", "at", "licence", "weights")


@dataclass(frozen=True)
class BackbonesOptions:
    """List pretrained networks to start from.

    Without WORD a short list that suits most data; with it, timm's networks whose names contain all
    words. GMACs: billions of multiplications for one image of the given size. The weights' tag says
    what they were trained on: in1k is ImageNet (1,000 classes), in22k its 22,000 classes, in12k
    12,000 of them, lvd142m the 142 million images of DINOv2.
    """

    words: Annotated[tuple[str, ...], tyro.conf.Positional, option("[WORD ...]")] = ()
    """Parts of timm's name, as in `dinov2` or `convnext tiny`."""


def backbones(options: BackbonesOptions) -> None:
    """Print a table of networks. Raises UsageError if no name contains the words."""
    require_installed("backbones", TRAIN_PACKAGES)
    from ..model.catalogue import CURATED, MOST, facts_of, search

    names = search(options.words) if options.words else list(CURATED)
    if not names:
        raise UsageError(
            f"'{' '.join(options.words)}': no model of timm has that in its name; `thawnet "
            "backbones` lists some to begin with"
        )
    rows: list[tuple[str, ...]] = []
    with console.progress("looking at the networks", len(names)) as advance:
        for name in names:
            facts = facts_of(name)
            if facts is not None:
                row = [
                    facts.name,
                    f"{facts.parameters:,.1f} M",
                    f"{facts.macs:,.2f}",
                    f"{facts.size} px",
                    facts.licence,
                    facts.weights,
                ]
                if not options.words:
                    row.append(CURATED[name])
                rows.append(tuple(row))
            advance(1)
    more = ("for",) if not options.words else ()
    for line in aligned([(*HEADINGS, *more), *rows]):
        console.result(line)
    if len(names) == MOST:
        console.say(f"the first {MOST}; another word finds fewer")
    if not options.words:
        console.say(
            "others: `thawnet backbones WORD`; what they take on your data: `thawnet doctor DATA "
            "--backbones NAME NAME ...`"
        )
