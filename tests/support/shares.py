"""The shares of data whose images are held back to validate and test, however few there are."""

from __future__ import annotations

from thawnet.data.shares import Shares

HELD_BACK = Shares(few=0)
