"""What documents point to exists: links, files of the code, rooms."""

import re
from pathlib import Path

import pytest

from tests.support.rooms import ROOMS, ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "models" / "README.md"]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FILE = re.compile(r"`((?:[a-z_]+/)*[a-z_]+\.(?:py|toml|cmake))`")


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What links to the page's headings end with, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
    found = []
    for link in _LINK.findall(prose(page)):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert not broken(page)


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title\n[a](#a-title) [b](#b-title) [c](page.md) [d](gone.md) [e](https://example.org)\n")
    assert broken(page) == ["#b-title", "gone.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_the_code_that_are_named_exist(page: Path) -> None:
    named = set(_FILE.findall(page.read_text("utf-8")))
    gone = {name for name in named if not any((root / name).exists() for root in (ROOT, ROOT / "cadcpp", ROOT / ".ci"))}
    assert not gone


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_targets_that_are_named_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    parts = re.findall(r"^PARTS := (.*)$", makefile, re.MULTILINE)[0].split()
    targets = {*re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE), *(f"bench-{part}" for part in parts)}
    named = set(re.findall(r"(?:`|^    (?:\$ )?)make ([a-z][a-z-]*)", page.read_text("utf-8"), re.MULTILINE))
    assert named <= targets


def test_the_architecture_has_every_room_in_order() -> None:
    rooms = re.findall(r"^\| `(\w+)` \|", ARCHITECTURE.read_text("utf-8"), re.MULTILINE)
    assert [room for room in rooms if room in ROOMS["cadcpp"]] == [*reversed(ROOMS["cadcpp"])][1:]
