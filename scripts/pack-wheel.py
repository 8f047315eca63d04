#!/usr/bin/env python3
"""Pack the Python package around a library that is compiled already: `pack-wheel.py LIBRARY FOLDER` prints the wheel.

Releases are built with maturin (`scripts/build-wheel.sh`), which compiles everything with its own choice of features. This takes
what the tests were compiled with.
"""

import base64
import hashlib
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "bindings" / "python"
OLDEST = "cp311"


def metadata(project: dict, version: str) -> str:
    lines = ["Metadata-Version: 2.4", f"Name: {project['name']}", f"Version: {version}"]
    lines += [f"Summary: {project['description']}", f"License-Expression: {project['license']}"]
    lines += [f"Requires-Python: {project['requires-python']}"]
    lines += [f"Classifier: {classifier}" for classifier in project["classifiers"]]
    lines += [f"Requires-Dist: {needed}" for needed in project["dependencies"]]
    for extra, needs in project["optional-dependencies"].items():
        lines += [f"Provides-Extra: {extra}", *(f"Requires-Dist: {needed}; extra == '{extra}'" for needed in needs)]
    readme = (PACKAGE / project["readme"]).read_text(encoding="utf-8")
    return "\n".join([*lines, "Description-Content-Type: text/markdown", "", readme])


def stripped(library: Path, folder: Path) -> bytes:
    """The library without debugging information, where it can be removed."""
    small = folder / "small"
    try:
        subprocess.run(["strip", "--strip-debug", "-o", small, library], check=True)
    except (OSError, subprocess.CalledProcessError):
        return library.read_bytes()
    return small.read_bytes()


def pack(library: Path, folder: Path) -> Path:
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]["version"]
    name = project["name"]
    tag = f"{OLDEST}-abi3-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
    ending = ".pyd" if sys.platform == "win32" else ".abi3.so"
    with tempfile.TemporaryDirectory() as scratch:
        files = {f"{name}/_altdiffusion{ending}": stripped(library, Path(scratch))}
    for path in sorted((PACKAGE / "python" / name).iterdir()):
        if path.suffix in (".py", ".pyi", ".typed") or path.name == "py.typed":
            files[f"{name}/{path.name}"] = path.read_bytes()
    info = f"{name}-{version}.dist-info"
    scripts = "".join(f"{command} = {function}\n" for command, function in project["scripts"].items())
    wheel = f"Wheel-Version: 1.0\nGenerator: {Path(__file__).name}\nRoot-Is-Purelib: false\nTag: {tag}\n"
    files[f"{info}/METADATA"] = metadata(project, version).encode()
    files[f"{info}/WHEEL"] = wheel.encode()
    files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{scripts}".encode()
    rows = []
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(content)}\n")
    files[f"{info}/RECORD"] = f"{''.join(rows)}{info}/RECORD,,\n".encode()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return target


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(pack(Path(sys.argv[1]), Path(sys.argv[2])))
