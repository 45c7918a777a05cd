"""Notebooks on Colab: the badge, and what the first cell of every notebook does there. Elsewhere it does nothing.

The cell itself only fetches the project; `set_up` does the rest. It never installs or replaces Colab's torch and numpy,
installs other packages only where they are missing or too old, and pins no version. It is safe to run again.
`python -m minillava.course.index notebooks` writes badge and cell into every notebook.
"""

import importlib
import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

REPOSITORY = "minillava/minillava"  # owner/name on GitHub; every address is made from it
CELL = f"""import sys

if "google.colab" in sys.modules:  # on Colab only: fetch the project and what it lacks; safe to run again
    import os
    import subprocess

    home = os.path.abspath("minillava-course")
    if not os.path.isdir(home):
        subprocess.run(["git", "clone", "-q", "--depth=1", "https://github.com/{REPOSITORY}", home], check=True)
    sys.path[:0] = [] if home in sys.path else [home]
    from minillava.course import colab

    colab.set_up(home)

from minillava.course.dial import dial

scale = dial()  # or dial("tiny"), dial("colab"), dial("full"): the same cells on other parts
""".strip()
PREINSTALLED = ("torch", "numpy")  # Colab's own builds match its drivers and each other
NOT_ON_COLAB = ("jupyterlab",)  # not needed there


def colab_url(name: str, folder: str = "notebooks") -> str:
    """The address at which Colab opens a notebook of this repository, by its file name."""
    return f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/{folder}/{name}"


def badge(name: str, folder: str = "notebooks") -> str:
    """The badge's Markdown for a notebook's file name."""
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab_url(name, folder)})"


def unmet_requirements(requirements: list[str]) -> dict[str, str]:
    """Name -> name and versions of those requirements, written as in pyproject.toml, that are not met here.

    Those of the extras "course" and "api" are included.
    """
    found = {}
    for requirement in map(Requirement, requirements):
        wanted = not requirement.marker or any(requirement.marker.evaluate({"extra": e}) for e in ("course", "api"))
        try:
            met = requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True)
        except importlib.metadata.PackageNotFoundError:
            met = False
        if wanted and not met and requirement.name not in NOT_ON_COLAB:
            found[requirement.name] = f"{requirement.name}{requirement.specifier}"
    return found


def set_up(home: str | Path) -> None:
    """Install the project in `home` and the packages it still needs, without touching torch and numpy.

    Prints when the session has to be restarted. Raises RuntimeError when pip fails, or when torch or numpy are missing
    or too old.
    """
    try:
        importlib.metadata.version("minillava")
    except importlib.metadata.PackageNotFoundError:
        _pip("--no-deps", "--editable", str(home))
        importlib.invalidate_caches()
    missing = unmet_requirements(importlib.metadata.requires("minillava") or [])
    if old := [missing[name] for name in PREINSTALLED if name in missing]:
        raise RuntimeError(
            f"this runtime has no {' and no '.join(old)}; choose a newer one (Runtime > Change runtime type)"
        )
    if not missing:
        return
    installed = [f"{name}=={importlib.metadata.version(name)}" for name in PREINSTALLED]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(installed))  # so that pip leaves them as they are
        _pip("--constraint", str(constraints), *missing.values())
    importlib.invalidate_caches()
    modules = {"pillow": "PIL"}
    loaded = [name for name in missing if modules.get(name, name) in sys.modules]
    print("Installed:", ", ".join(missing.values()))
    if loaded:
        print(f"An older {', '.join(loaded)} is in use: Runtime > Restart session, then run this cell again.")


def _pip(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", *arguments])
    if done.returncode:
        raise RuntimeError("pip could not install " + " ".join(arguments) + " (it says why above); run this cell again")
