"""Notebooks on Colab: the badge, and what the first cell of every notebook does there. Elsewhere it does nothing.

The cell itself only fetches the project; `set_up` does the rest. pip never installs or replaces Colab's torch and numpy,
installs other packages only where they are missing or too old, and pins no version. It is safe to run again.
`python -m minillava.course.index notebooks` writes badge and cell into every notebook.
"""

import importlib
import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path

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


def colab_url(name: str, folder: str = "notebooks") -> str:
    """The address at which Colab opens a notebook of this repository, by its file name."""
    return f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/{folder}/{name}"


def badge(name: str, folder: str = "notebooks") -> str:
    """The badge's Markdown for a notebook's file name."""
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab_url(name, folder)})"


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
        constraints.write_text("".join(f"{name}=={before[name]}\n" for name in PREINSTALLED if name in before))
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
