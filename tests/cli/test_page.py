"""The page at `/`, in a real browser: headless Chromium."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra `server` is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")

from cadcpp.models.demo import DemoPair  # noqa: E402
from tests.support.server import Server, serving  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
    pytest.mark.filterwarnings("ignore"),  # of the driver's own
]
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1100, "height": 800}
LONG = "Write a long story about the sea."
KEY = "a-key"


@pytest.fixture(scope="module")
def server(target: Path, demo: DemoPair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("page") / "log"
    with serving(log, "-m", target, "-d", demo.draft, "--ctx", 2048, "--threads", 1, "--alias", "smol") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Visit:
    """A page that is open, and what it complained of."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.context = browser.new_context(viewport=DESK, **options)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("console", lambda told: self.complaints.extend([told.text] * (told.type == "error")))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda asked: self.elsewhere.append(asked.url))
        self.page.goto(url.removesuffix("v1"))

    def say(self, text: str) -> None:
        self.page.get_by_label("Message", exact=True).fill(text)
        self.page.keyboard.press("Enter")

    def until(self, condition: str) -> None:
        """Wait for what holds in the page; its security policy keeps the driver from waiting there."""
        while not self.page.evaluate(condition):
            self.page.wait_for_timeout(50)

    def wait(self) -> None:
        self.page.wait_for_selector("[aria-busy]", state="detached", timeout=120_000)

    def replies(self) -> list[str]:
        return [str(each) for each in self.page.locator(".turn.assistant div").all_inner_texts()]


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Visit]:
    made = Visit(browser, server.url)
    yield made
    assert made.complaints == []
    place = server.url.removesuffix("v1")
    assert all(url.startswith((place, "data:", "blob:")) for url in made.elsewhere)
    made.context.close()


def test_a_conversation(visit: Visit) -> None:
    visit.page.locator("summary").click()
    visit.say(LONG)
    visit.until("document.querySelector('#speed').textContent.includes('a pass')")
    visit.page.wait_for_selector(".turn.assistant .draft", timeout=60_000)
    assert visit.page.locator("#tree circle").count() > 1 and visit.page.locator("#lanes rect").count() > 1
    visit.page.keyboard.press("Escape")
    visit.wait()
    visit.say(f"{LONG} Go on.")
    visit.until("document.querySelectorAll('.turn.assistant div')[1]?.textContent.length > 3")
    visit.page.get_by_role("button", name="Stop").click()
    visit.wait()
    assert len(visit.replies()) == 2
    assert "tokens of context" in visit.page.locator("#plan").inner_text()


def test_stopping_in_the_middle_ends_the_work(visit: Visit, server: Server) -> None:
    visit.say(LONG)
    visit.until("document.querySelector('.turn.assistant div').textContent.length > 5")
    visit.page.get_by_role("button", name="Stop").click()
    visit.wait()
    stopped = visit.replies()
    idle = "fetch('slots').then((a) => a.json()).then(([slot]) => !slot.is_processing)"
    visit.until(idle)
    assert visit.replies() == stopped and visit.page.get_by_role("button", name="Send").is_visible()


def test_a_reload_keeps_the_conversation(visit: Visit) -> None:
    visit.say(LONG)
    visit.until("document.querySelector('.turn.assistant div').textContent.length > 5")
    visit.page.keyboard.press("Escape")
    visit.wait()
    before = visit.replies()
    visit.page.reload()
    assert visit.replies() == before
    visit.page.get_by_role("button", name="New chat").click()
    assert visit.replies() == []


def test_a_phone(visit: Visit) -> None:
    visit.page.set_viewport_size(PHONE)
    visit.say(LONG)
    visit.until("document.querySelector('.turn.assistant div').textContent.length > 50")
    visit.page.get_by_role("button", name="Stop").click()
    visit.wait()
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = visit.page.get_by_role("button", name="Send").bounding_box()
    assert box["height"] >= 40 and box["x"] + box["width"] <= PHONE["width"]


def test_what_a_model_writes_is_text(visit: Visit) -> None:
    visit.page.evaluate(
        "sessionStorage.setItem('messages', JSON.stringify([{role: 'assistant', content: '<img src=x>'}]))"
    )
    visit.page.reload()
    assert visit.page.locator(".turn img").count() == 0 and visit.replies() == ["<img src=x>"]


def test_a_server_that_is_gone_is_told(visit: Visit) -> None:
    visit.context.set_offline(True)
    visit.say(LONG)
    assert visit.page.get_by_role("alert").inner_text(timeout=20_000)
    visit.complaints.clear()  # the browser's own words on it
    visit.context.set_offline(False)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read(browser: Any, server: Server, scheme: str) -> None:
    visit = Visit(browser, server.url, color_scheme=scheme)
    colours = visit.page.evaluate(
        "['color', 'backgroundColor'].map((name) => getComputedStyle(document.body)[name].match(/\\d+/g).map(Number))"
    )
    text, back = (sum(colour) for colour in colours)
    assert (text < 150 and back > 700) if scheme == "light" else (text > 600 and back < 150)
    visit.context.close()


def test_a_key_is_asked_for(browser: Any, target: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "log", "-m", target, "--ctx", 512, "--threads", 1, CADCPP_API_KEY=KEY) as server:
        visit = Visit(browser, server.url)
        visit.page.get_by_label("API key").fill(KEY)
        visit.say(LONG)
        visit.until("document.querySelector('.turn.assistant div')?.textContent.length > 3")
        visit.page.keyboard.press("Escape")
        visit.wait()
        assert not visit.page.get_by_label("API key").is_visible()
        visit.context.close()
