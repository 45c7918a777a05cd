"""What the tests of pages share: a server for a folder, a page that is listened to, width, contrast, pictures."""

import functools
import http.server
import os
import threading
from contextlib import contextmanager

WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Of the texts that are shown: the lowest contrast with what is behind them (WCAG 2, 1.4.3), and that text.
CONTRAST = """() => {
    const parts = colour => colour.match(/[\\d.]+/g).map(Number)
    const light = colour => {
        const [r, g, b] = parts(colour).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        return .2126 * r + .7152 * g + .0722 * b
    }
    const behind = e => {
        for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if ((parts(c)[3] ?? 1) === 1) return c }
        return 'rgb(255, 255, 255)'
    }
    return [...document.querySelectorAll('body *:not(svg *):not(script):not(style):not(noscript):not(:disabled)')].filter(e =>
        e.checkVisibility({opacityProperty: true, visibilityProperty: true}) && e.getClientRects().length &&
        [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
        const [a, b] = [light(getComputedStyle(e).color), light(behind(e))]
        return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.textContent.slice(0, 40)]
    }).sort((a, b) => a[0] - b[0])[0]
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {".js": "text/javascript"}

    def log_message(self, *_):
        pass


@contextmanager
def serving(folder):
    """The address of a folder on a server of this machine, until the block ends."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def listened(browser, own, **options):
    """(a new page, what goes wrong on it): errors, warnings, requests to addresses that do not begin with `own`."""
    page, wrong = browser.new_page(**options), []
    page.set_default_timeout(120_000)
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
    page.on(
        "console", lambda said: wrong.append(f"{page.url}: {said.text}") if said.type in ("error", "warning") else None
    )
    page.on("request", lambda sent: sent.url.startswith((own, "data:", "blob:")) or wrong.append(f"asks {sent.url}"))
    return page, wrong


def keep(page, name, **how):
    """A picture of the page in the folder BROWSER_PICTURES, where one is named."""
    if folder := os.environ.get("BROWSER_PICTURES"):
        page.screenshot(path=f"{folder}/{name}.png", **how)
