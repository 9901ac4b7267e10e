"""Names of files that other programs leave beside photos: thumbnails, recycle bins, indexes.

Only unambiguous names are listed; names that begin with a dot are hidden and need no list.
Synology writes a thumbnail of every photo as @eaDir/PHOTO.jpg/SYNOPHOTO_THUMB_XL.jpg, and keeps
deleted files in #recycle; QNAP uses @Recycle. Such thumbnails and deleted files look like photos.
"""

from __future__ import annotations

NAMES = frozenset(
    [
        *("@eaDir", "@tmp", "@sharebin", "#recycle", "#snapshot"),  # Synology
        *("@Recycle", "@Recently-Snapshot", "@__thumb"),  # QNAP
        *("$RECYCLE.BIN", "$Recycle.Bin", "RECYCLER", "System Volume Information"),  # Windows
        *("Thumbs.db", "thumbs.db", "ehthumbs.db", "desktop.ini", "Desktop.ini"),
        *("__MACOSX", "Network Trash Folder", "Temporary Items", "Icon\r"),  # macOS
        *("lost+found", "CaptureOne", "Picasa.ini", "__pycache__", "node_modules"),
    ]
)
BEGINNINGS = ("SYNOPHOTO_", "SYNOFILE_", "SYNOINDEX_", "SYNOVIDEO_")
ENDINGS = (".lrdata", ".lrcat-data", "@SynoEAStream", "@SynoResource")


def is_leftover(name: str) -> bool:
    """Return whether a file or folder of this name is another program's leftover."""
    return name in NAMES or name.startswith(BEGINNINGS) or name.endswith(ENDINGS)


def is_passed_over(name: str) -> bool:
    """Return whether a name is hidden or a leftover, and so never an image or a class."""
    return name[0] == "." or is_leftover(name)
