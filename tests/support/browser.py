"""Helpers that open pages in headless Chromium and return its DOM, console messages and requests."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser

from tests.support.processes import HANGS
from tests.support.requirements import program

CHROMIUM = program("chromium")

QUIET = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
"""Options of a browser without a display. ``--no-sandbox`` is needed because the tests may run as root."""

BROWSERS_OWN = re.compile(r"https?://([\w.-]+\.)?(google|googleapis|gvt1)\.com/")
"""URLs that the browser requests on its own, for example to look for updates, whatever page it shows."""

ALONE = ("--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND")


@dataclass(frozen=True)
class Seen:
    """The result of opening a page: the DOM, the console messages, and the URLs requested besides the page itself."""

    dom: str
    console: list[str]
    asked: list[str]

    @property
    def elements(self):
        """The elements of the document in document order, as (tag, attributes)."""
        return elements(self.dom)


def elements(text):
    """Return the elements of an HTML text in document order, as (tag, attributes)."""

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append((tag, dict(attrs)))

    found = []
    Reader().feed(text)
    return found


def opened(page, folder, *options):
    """Open a page and return its :class:`Seen`."""
    log = folder / "net.json"
    log.unlink(missing_ok=True)
    done = run("--dump-dom", "--enable-logging=stderr", f"--log-net-log={log}", *options, page.as_uri(), folder=folder)
    console = re.findall(r"CONSOLE.*", done.stderr)
    # The log may lack its closing bracket, so it isn't parsed as JSON.
    addresses = set(re.findall(r'"url":"((?:[^"\\]|\\.)*)"', log.read_text()))
    asked = [json.loads(f'"{one}"') for one in sorted(addresses)]
    own = page.as_uri()
    return Seen(
        done.stdout, console, [one for one in asked if one.split("#")[0] != own and not BROWSERS_OWN.match(one)]
    )


def picture(page, folder, out, width, height, *options):
    """Write a screenshot of a page."""
    run(f"--window-size={width},{height}", f"--screenshot={out}", *options, page.as_uri(), folder=folder)


def measured(page, folder, script, width):
    """Return the JSON result of a script that runs in a page in a frame of the given width.

    The script runs in a copy of the page without its content security policy, which forbids scripts.
    """
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text("utf-8"))
    code = f"parent.postMessage(JSON.stringify((() => {{ {script} }})()), '*')"
    (folder / "copy.html").write_text(text.replace("</body>", f"<script>{code}</script></body>"), "utf-8")
    frame = folder / "frame.html"  # a browser window can't be narrower than 500 pixels
    frame.write_text(
        "<script>addEventListener('message', (said) => { document.documentElement.dataset.said = said.data })</script>"
        f"<iframe src=copy.html width={width} height=900 style='border: 0'></iframe>"
    )
    dom = run("--dump-dom", "--virtual-time-budget=5000", frame.as_uri(), folder=folder).stdout
    return json.loads(dict(elements(dom)[0][1])["data-said"])


def run(*words, folder):
    """Run the browser with a profile in the given folder."""
    profile = folder / "profile"
    return subprocess.run(
        [CHROMIUM, *QUIET, *ALONE, f"--user-data-dir={profile}", *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=HANGS,
    )
