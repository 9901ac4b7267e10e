"""Copy ONNX Runtime Web from npm into src/thawnet/export/page/runtime.

    python tools/vendor_ort.py [--check]

The files are committed, 4.9 MB, so that no clone, wheel or export needs npm or a network. Run this
to change the version. --check: write nothing, and fail if the files differ from npm's.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import lzma
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "1.30.0"
# SHA-512, in base64, of the package as npm packs it; npm calls it dist.integrity.
INTEGRITY = (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
# By name in FOLDER: the script, its WebAssembly binary, and whether a page can contain the script.
# The second build also computes on GPUs; why these two builds: docs/experiments.md.
BUILDS = {
    "ort": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm", True),
    "ort-gpu": ("ort.jspi.bundle.min.mjs", "ort-wasm-simd-threaded.jspi.wasm", False),
}
FOLDER = Path(__file__).resolve().parents[1] / "src" / "thawnet" / "export" / "page" / "runtime"

LICENSE = f"""/*
ONNX Runtime Web {VERSION}, from the npm package onnxruntime-web. Changed here: its files have other
names; ort.js puts its exports into globalThis.thawnet.ort, and resolves its own address without
location.origin, which is "null" for files in Firefox. MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
*/
"""


def packed() -> bytes:
    """Download the package from npm and check its hash."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--json", f"onnxruntime-web@{VERSION}"]
        done = subprocess.run(  # noqa: S603 - nothing in it comes from outside
            command, cwd=folder, check=True, capture_output=True, text=True
        )
        content = (Path(folder) / json.loads(done.stdout)[0]["filename"]).read_bytes()
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if digest != INTEGRITY:
        raise SystemExit(f"npm gave another package: sha512 {digest}, expected {INTEGRITY}")
    return content


def script(text: str, source: str, name: str, inline: bool) -> str:
    """Return the runtime's script, renamed from `source` to `name`.

    source: its name in the package, which its threads open; some hosts do not know .mjs. inline:
    make it a script that a page can contain instead of importing it.
    """
    text = re.sub(r"^//# sourceMappingURL=.*\n?", "", text, flags=re.MULTILINE)
    text = text.replace(source, name)
    if not inline:
        return LICENSE + text
    # An absolute URL needs no base, and a file's origin, "null" in Firefox, is not a valid one.
    text, count = re.subn(
        rf'new URL\(new (\w+)\("{name}",import\.meta\.url\)\.href,\w+\)\.href',
        rf'new \1("{name}",import.meta.url).href',
        text,
    )
    if count != 1:
        raise SystemExit(f"{source} resolves its own address in another way now")
    exports = re.search(r"export\{([^}]*)\};?\s*$", text)
    if exports is None:
        raise SystemExit(f"{source} ends in no export any more")
    pairs = (pair.split(" as ") for pair in exports[1].split(","))
    fields = ",".join(f"{outside}:{inside}" for inside, outside in pairs)
    return f"{LICENSE}{text[: exports.start()]}(globalThis.thawnet??={{}}).ort={{{fields}}};\n"


def main() -> None:
    """Write the files, or with --check compare them."""
    with tarfile.open(fileobj=io.BytesIO(packed())) as package:

        def member(name: str) -> bytes:
            file = package.extractfile(f"package/dist/{name}")
            assert file is not None
            return file.read()

        for name, (source, binary, inline) in BUILDS.items():
            text = script(member(source).decode(), source, f"{name}.js", inline)
            _put(name, text, member(binary))


def _put(name: str, text: str, binary: bytes) -> None:
    target, compressed = FOLDER / f"{name}.js", FOLDER / f"{name}.wasm.xz"
    if "--check" in sys.argv[1:]:
        if target.read_text() != text or lzma.decompress(compressed.read_bytes()) != binary:
            raise SystemExit(f"{FOLDER} is not what npm gives: {name}")
        return
    target.write_text(text, encoding="utf-8")
    compressed.write_bytes(lzma.compress(binary, preset=9 | lzma.PRESET_EXTREME))
    print(f"{target.name} {len(text):,}, {compressed.name} {compressed.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
