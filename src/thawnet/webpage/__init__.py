"""What the served page, the exported page and the report have in common: colours, type, icon."""

from pathlib import Path

HOUSE = Path(__file__).parent / "house.css"
ICON = Path(__file__).parent / "icon.svg"
