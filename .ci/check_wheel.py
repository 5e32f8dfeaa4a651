"""
Check the distributions: both have the right files, they can be reproduced from the sdist, and the
wheel works in an empty environment.

    python3 check_wheel.py TREE DIST

TREE is the source tree from which the sdist and the wheel in DIST were built. This script uses the
package `build`, and creates virtual environments.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from urllib.request import urlopen

from check_daemon import LIMIT, look, running

PLUGIN = "twisted/plugins/txmetrics_tcp_plugin.py"
SCHEMA = "txmetrics_tcp/event.proto"  # in the wheel; in the tree and the sdist, it is below proto/
UPLOT = "tests/vendored/uPlot-1.6.32.esm.js"  # the readable source of page/uplot.js
LEFTOVERS = ("__pycache__", "dropin.cache", ".pyc", "/target/", "_trial_temp", ".venv")


def check_wheel_names(tree: Path, wheel: Path) -> None:
    """Check that the wheel has the package, schema, plugin file and metadata, and no other file."""
    package = {
        path.relative_to(tree).as_posix()
        for path in (tree / "txmetrics_tcp").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    info = "-".join(wheel.name.split("-")[:2]) + ".dist-info/"
    about = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    expected = package | {SCHEMA, PLUGIN} | {info + name for name in about}
    names = set(zipfile.ZipFile(wheel).namelist())
    if names != expected:
        sys.exit(f"{wheel.name}: missing {expected - names}, unexpected {names - expected}")
    print(f"{wheel.name}: {len(names)} files, as expected")


def check_sdist_names(sdist: Path) -> None:
    """Check that the sdist can be built, tested and documented, and has no leftovers of a run."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    required = {
        PLUGIN,
        f"proto/{SCHEMA}",
        "tests/__init__.py",
        "docs/conf.py",
        "LICENSE",
        "txmetrics_tcp/web/page/index.html",
        "txmetrics_tcp/web/page/uplot-license.txt",
        UPLOT,
    }
    if missing := required - names:
        sys.exit(f"{sdist.name}: missing {missing}")
    if leftovers := [name for name in names if any(word in f"/{name}" for word in LEFTOVERS)]:
        sys.exit(f"{sdist.name}: unexpected {leftovers}")
    print(f"{sdist.name}: {len(names)} files")


def check_reproducible(wheel: Path, sdist: Path, empty: Path) -> None:
    """Check that a build from the sdist, with other file times and another umask, is the same."""
    source, again = empty / "source", empty / "again"
    shutil.unpack_archive(sdist, source, filter="data")  # with the times in the archive
    for path in source.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
    (root,) = source.iterdir()
    build = [sys.executable, "-m", "build", "--sdist", "--wheel", "--outdir", again, root]
    subprocess.run(build, umask=0o077, stdout=subprocess.DEVNULL, check=True)
    for built in (sdist, wheel):
        if (again / built.name).read_bytes() != built.read_bytes():
            sys.exit(f"{built.name}: a second build differs")
    print("a second build is the same")


def check_installed(wheel: Path, empty: Path) -> None:
    """Check that both commands and the page work in an empty environment and directory."""
    subprocess.run([sys.executable, "-m", "venv", empty / "venv"], check=True)
    programs = empty / "venv" / "bin"
    subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", wheel], check=True)
    cwd = empty / "cwd"
    cwd.mkdir()

    done = subprocess.run([programs / "twistd", "--help"], cwd=cwd, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.split()[:1] == ["metrics-tcp"]]
    if done.returncode or len(lines) != 1 or "Traceback" in done.stderr:
        sys.exit(f"twistd --help does not list metrics-tcp once:\n{done.stdout}{done.stderr}")

    twistd = [programs / "twistd", "-n", "--pidfile=", "metrics-tcp"]
    with running([*twistd, "--listen", "tcp:0:interface=127.0.0.1"], cwd) as port:
        look(programs / "metrics-tcp", port, cwd)
        check_page(programs / "metrics-tcp", port, cwd)
    if left := list(cwd.iterdir()):
        sys.exit(f"twistd left files in its directory: {left}")


def check_page(metrics_tcp: Path, port: int, cwd: Path) -> None:
    """Check that the wheel has the files that the page loads."""
    command = [metrics_tcp, "web", str(port), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            link = re.search(r"http://\S+/", server.stderr.readline())
            if link is None:
                sys.exit("metrics-tcp web does not print where the page is")
            for name in ("", "page/app.js", "page/style.css", "page/uplot.js"):
                with urlopen(link[0] + name, timeout=LIMIT) as response:
                    if not response.read():
                        sys.exit(f"{name} is empty")
        finally:
            server.terminate()
    print("the page is served")


def main() -> None:
    tree, dist = map(Path, sys.argv[1:])
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    check_wheel_names(tree, wheel)
    check_sdist_names(sdist)
    with tempfile.TemporaryDirectory() as empty:
        check_reproducible(wheel, sdist, Path(empty))
        check_installed(wheel, Path(empty))


if __name__ == "__main__":
    main()
