"""Notebooks on Colab and Kaggle: the links to them, and the first cell of every notebook. Elsewhere it only sets the dial.

`RELEASE` alone says whose code runs there. While it is empty there are no links, and the cell fetches nothing: it asks for
the project's zip or for a clone made by hand. Where it is set, the cell clones that tag and nothing else. The cell only
brings the project; `set_up` does the rest. pip never installs or replaces the torch and numpy that are there, installs
other packages only where they are missing or too old, and pins no version. Both are safe to run again.
`python -m minillava.course.index` writes links and cell into every notebook; run it after a change of RELEASE.
"""

import importlib
import importlib.metadata
import re
import subprocess
import sys
import tempfile
from pathlib import Path

RELEASE = ""  # "owner/name@tag" of a repository on GitHub that you vouch for; empty: no release is published
_ASKS = """\
        import shutil
        from pathlib import Path

        for uploaded in Path().glob("*.zip"):
            shutil.unpack_archive(uploaded, "uploaded")
        places = [Path("uploaded"), Path("/kaggle/input")]
        found = [file for place in places for file in place.rglob("minillava/course/colab.py")]
        if not found:
            raise SystemExit(
                "This course names no published release, so this cell fetches nothing. Bring the project yourself: "
                "upload its zip to the files on the left (on Kaggle: Add Input, Upload), or clone a copy that you trust: "
                "!git clone ADDRESS minillava-course. Then run this cell again."
            )
        shutil.copytree(found[0].parents[2], home)"""
_CLONES = """\
        import subprocess

        release = ["--branch={tag}", "https://github.com/{repository}"]
        subprocess.run(["git", "clone", "-q", "--depth=1", *release, home], check=True)"""
_CELL = """\
# @title Set-up: the project and its packages (on Colab and Kaggle), then the dial
import os
import sys

if "google.colab" in sys.modules or "KAGGLE_KERNEL_RUN_TYPE" in os.environ:  # elsewhere the project is here already
    home = os.path.abspath("minillava-course")
    if not os.path.isdir(home):
{bring}
    sys.path[:0] = [] if home in sys.path else [home]
    from minillava.course import colab

    colab.set_up(home)

from minillava.course.dial import dial

scale = dial()  # or dial("tiny"), dial("colab"), dial("full"): the same cells on other parts"""
HIDDEN = {"cellView": "form", "jupyter": {"source_hidden": True}}  # Colab's and Jupyter's way to fold a cell's code
LINKS = "**Colab, Kaggle**: "  # how the line below a notebook's title begins
PREINSTALLED = ("torch", "numpy")  # the builds that are there match the drivers and each other


def _parts(release: str) -> tuple[str, str]:
    """("owner/name", tag). Raises ValueError when the setting is not of that form: a branch or no tag is no release."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+@[\w.-]*\d[\w.-]*", release):
        raise ValueError(f"RELEASE {release!r} must be empty or owner/name@tag, where the tag holds a version")
    return tuple(release.split("@"))


def set_up_cell(release: str = RELEASE) -> str:
    """The first cell of every notebook."""
    if not release:
        return _CELL.format(bring=_ASKS)
    repository, tag = _parts(release)
    return _CELL.format(bring=_CLONES.format(repository=repository, tag=tag))


def on_colab(name: str, folder: str, release: str = RELEASE) -> str:
    """` ([on Colab](address))`, the notebook as the release has it; empty without a release."""
    if not release:
        return ""
    repository, tag = _parts(release)
    return f" ([on Colab](https://colab.research.google.com/github/{repository}/blob/{tag}/{folder}/{name}))"


def links(name: str, folder: str = "notebooks", release: str = RELEASE) -> str:
    """The line below a notebook's title, as text, so that it can be read offline: where to open it, and whose code it is."""
    if not release:
        return f"{LINKS}no release is published yet. Upload this notebook there; its first cell asks for the project."
    repository, tag = _parts(release)
    kaggle = f"https://www.kaggle.com/kernels/welcome?src=https://github.com/{repository}/blob/{tag}/{folder}/{name}"
    return f"{LINKS}open this notebook{on_colab(name, folder, release)} ([on Kaggle]({kaggle})), release {release}."


def set_up(home: str | Path) -> None:
    """Install the project in `home` and the packages it still needs, without touching torch and numpy.

    Prints when the session has to be restarted. Raises RuntimeError when pip fails, as where torch or numpy are missing
    or too old.
    """
    before = _versions()
    if "minillava" in before:
        return
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("".join(f"{name}=={before[name]}\n" for name in PREINSTALLED if name in before), "utf-8")
        command = [sys.executable, "-m", "pip", "install", "-q", "--constraint", str(constraints)]
        if subprocess.run([*command, "--editable", f"{home}[notebooks,api,real]"]).returncode:
            advice = "if torch or numpy are too old, choose a newer runtime (Runtime > Change runtime type)"
            raise RuntimeError(f"pip could not install what is needed (see above); {advice}, then run this cell again")
    importlib.invalidate_caches()
    after, modules = _versions(), importlib.metadata.packages_distributions()
    loaded = {name for module, names in modules.items() if module in sys.modules for name in names}
    if old := sorted(name for name in loaded & before.keys() if after.get(name) != before[name]):
        print(f"An older {', '.join(old)} is in use: Runtime > Restart session, then run this cell again.")


def _versions() -> dict[str, str]:
    """Name -> version of everything that is installed."""
    return {found.name: found.version for found in importlib.metadata.distributions()}
