"""
What people install: see that the wheel holds what it should, and that it works on its own.

    python3 check_wheel.py TREE DIST

TREE is what the sdist and the wheel in DIST were built from. Needs nothing but the standard
library; makes an environment of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from check_daemon import look, running

PLUGIN = "twisted/plugins/txmetrics_tcp_plugin.py"
RUBBISH = ("__pycache__", "dropin.cache", ".pyc", "/target/", "_trial_temp", ".venv")


def check_wheel_names(tree: Path, wheel: Path) -> None:
    """The package as it is in the tree, the one plugin file, the metadata; nothing beside it."""
    package = {
        path.relative_to(tree).as_posix()
        for path in (tree / "txmetrics_tcp").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    info = "-".join(wheel.name.split("-")[:2]) + ".dist-info/"
    about = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    expected = package | {PLUGIN} | {info + name for name in about}
    names = set(zipfile.ZipFile(wheel).namelist())
    if names != expected:
        sys.exit(f"{wheel.name}: lacks {expected - names}, and has {names - expected} too much")
    print(f"{wheel.name}: {len(names)} files, as it should be")


def check_sdist_names(sdist: Path) -> None:
    """What is needed to build, test and document it elsewhere; nothing that a run left."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    required = {PLUGIN, "proto/event.proto", "tests/__init__.py", "docs/conf.py", "LICENSE"}
    if lacks := required - names:
        sys.exit(f"{sdist.name} lacks {lacks}")
    if rubbish := [name for name in names if any(word in f"/{name}" for word in RUBBISH)]:
        sys.exit(f"{sdist.name} has {rubbish}")
    print(f"{sdist.name}: {len(names)} files")


def check_installed(wheel: Path, empty: Path) -> None:
    """In an empty environment and an empty folder, both commands do their work."""
    subprocess.run([sys.executable, "-m", "venv", empty / "venv"], check=True)
    programs = empty / "venv" / "bin"
    subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", wheel], check=True)
    cwd = empty / "cwd"
    cwd.mkdir()

    said = subprocess.run([programs / "twistd", "--help"], cwd=cwd, capture_output=True, text=True)
    lines = [line for line in said.stdout.splitlines() if line.split()[:1] == ["metrics-tcp"]]
    if said.returncode or len(lines) != 1 or "Traceback" in said.stderr:
        sys.exit(f"twistd --help does not list metrics-tcp once:\n{said.stdout}{said.stderr}")

    twistd = [programs / "twistd", "-n", "--pidfile=", "metrics-tcp"]
    with running([*twistd, "--listen", "tcp:0:interface=127.0.0.1"], cwd) as port:
        look(programs / "metrics-tcp", port, cwd)
    if left := list(cwd.iterdir()):
        sys.exit(f"it left {left}")


def main() -> None:
    tree, dist = map(Path, sys.argv[1:])
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    check_wheel_names(tree, wheel)
    check_sdist_names(sdist)
    with tempfile.TemporaryDirectory() as empty:
        check_installed(wheel, Path(empty))


if __name__ == "__main__":
    main()
