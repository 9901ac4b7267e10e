"""Style sheet and icon of the served page, the exported page and the report."""

from pathlib import Path

HOUSE = Path(__file__).parent / "house.css"
ICON = Path(__file__).parent / "icon.svg"
