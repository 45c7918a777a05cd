"""Every notebook in a real JupyterLab, in headless Chromium: all cells run, none ends in an error, its widgets move.

    make test-browser

Notable: the notebooks run in a copy, so that what is committed stays as it is.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from pages import keep

FOLDER = Path(__file__).parents[1] / "notebooks"
SECONDS = int(os.environ.get("BROWSER_SECONDS", 400))  # for one notebook
SETTINGS = {
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    "notebook-extension/tracker": '{"windowingMode": "none"}',  # or cells out of sight are not drawn
}

# Runs in the page. `state`: of the code cells that hold code: how many, how many have run, how many outputs are errors.
READY = """async () => {
    const panel = window.jupyterapp.shell.currentWidget
    await panel.context.ready
    await panel.sessionContext.ready
    await panel.sessionContext.session.kernel.info
    window.ended = 'no'
    window.jupyterapp.commands.execute('notebook:run-all-cells').then(done => { window.ended = String(done) })
}"""
STATE = """() => {
    const cells = window.jupyterapp.shell.currentWidget.content.widgets.filter(
        c => c.model.type === 'code' && c.model.sharedModel.getSource().trim())
    const outputs = cells.flatMap(c => c.model.outputs.toJSON())
    return {cells: cells.length, run: cells.filter(c => c.prompt ? c.prompt !== '*' : c.model.executionCount).length,
            errors: outputs.filter(o => o.output_type === 'error').map(o => `${o.ename}: ${o.evalue}`), ended: window.ended}
}"""
CLEAR = "() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')"
LOOK = "box => [...box.querySelectorAll('img, pre')].map(e => e.src || e.textContent).join('|')"


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """(address, token) of a JupyterLab on a copy of the notebooks."""
    home, token, port = tmp_path_factory.mktemp("lab"), secrets.token_hex(8), 8700 + os.getpid() % 200
    shutil.copytree(FOLDER, home / "notebooks")
    for name, text in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    here = {"JUPYTERLAB_SETTINGS_DIR": home / "settings", "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
            "JUPYTER_RUNTIME_DIR": home / "runtime", "IPYTHONDIR": home / "ipython", "HF_HUB_OFFLINE": "1",
            "MINILLAVA_SCALE": "tiny"}  # fmt: skip
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser", "--allow-root",
               "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}",
               f"--ServerApp.root_dir={home / 'notebooks'}"]  # fmt: skip
    environment = os.environ | {key: str(value) for key, value in here.items()}
    with open(home / "log.txt", "w") as log:
        server = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api?token={token}", timeout=2)
                break
            except OSError:
                assert server.poll() is None, (home / "log.txt").read_text()[-2000:]
                time.sleep(0.5)
        yield address, token
    finally:
        server.terminate()
        server.wait(30)


def move(page, box):
    """Change the first control of a widget as a person does; returns what kind it was."""
    if box.locator(".widget-upload").count():
        with page.expect_file_chooser() as chosen:
            box.locator(".widget-upload").first.click()
        chosen.value.set_files(FOLDER.parent / "data_samples" / "pictures" / "train-000000.png")
        return "upload"
    if box.locator("select").count():
        box.locator("select").first.select_option(index=1)
        return "dropdown"
    if box.locator(".widget-toggle-buttons button").count():
        box.locator(".widget-toggle-buttons button:not(.mod-active)").first.click()
        return "buttons"
    box.locator(".noUi-handle").first.focus()
    page.keyboard.press("ArrowRight")
    return "slider"


def widgets(path):
    """How many cells of a notebook show a widget: those that begin a line with `explore(` or `SceneEditor(`."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return sum(bool(re.search(r"^(explore|SceneEditor)\(", "".join(c["source"]), re.MULTILINE)) for c in cells)


@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_runs_in_jupyterlab_and_its_widgets_move(lab, browser, path):
    address, token = lab
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    page.set_default_timeout(60_000)
    try:
        page.goto(f"{address}/lab/workspaces/{path.stem}/tree/{path.name}?token={token}")
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
        page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext")
        page.evaluate(CLEAR)
        page.evaluate(READY)
        end = time.monotonic() + SECONDS
        while (state := page.evaluate(STATE))["ended"] == "no" and time.monotonic() < end:
            time.sleep(0.5)
        assert state["errors"] == [] and state["ended"] == "true", state
        assert page.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0
        boxes = page.locator(".jp-OutputArea-output .widget-vbox").all()
        assert len(boxes) == widgets(path)
        for box in boxes:
            box.scroll_into_view_if_needed()
            before = box.evaluate(LOOK)
            kind, end = move(page, box), time.monotonic() + 60
            while box.evaluate(LOOK) == before and time.monotonic() < end:
                time.sleep(0.2)
            assert box.evaluate(LOOK) != before, f"the {kind} changed nothing"
        keep(page, path.stem)
    finally:
        page.evaluate("() => window.jupyterapp.shell.currentWidget?.sessionContext.shutdown()")
        page.close()
