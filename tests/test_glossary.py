"""The glossary lists terms that the project uses, and names modules that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TREE = Path(__file__).parents[1]
PAGE = TREE / "docs" / "glossary.md"
TEXT = PAGE.read_text(encoding="utf-8")
TERMS = re.findall(r"^- \*\*(.+?)\*\*:", TEXT, re.MULTILINE)
NAMES = sorted(set(re.findall(r"`lmconv\.([\w.]+)`", TEXT)))
SOURCES = [
    path.read_text(encoding="utf-8").lower()
    for folder, pattern in (("converter", "*.py"), ("evaluate", "*.py"), ("docs", "*.md"))
    for path in sorted((TREE / folder).rglob(pattern))
    if path != PAGE
]


@pytest.mark.parametrize("term", TERMS)
def test_every_term_is_used_in_a_source_file_or_a_page(term: str) -> None:
    words = [re.compile(rf"(?<![a-z]){re.escape(word)}(?![a-z])") for word in re.split(r"[ -]", term.lower())]
    assert any(all(word.search(source) for word in words) for source in SOURCES)


def test_no_term_is_defined_twice() -> None:
    assert len(TERMS) == len(set(TERMS))
    assert len(TERMS) > 40


@pytest.mark.parametrize("name", NAMES)
def test_every_module_of_the_glossary_exists(name: str) -> None:
    *parts, last = name.split(".")
    for root in ("converter", "evaluate"):
        folder = TREE.joinpath(root, "lmconv", *parts)
        module = folder.with_suffix(".py")
        if (folder / last).is_dir() or (folder / f"{last}.py").is_file():
            return
        if module.is_file() and re.search(rf"^(class|def) {last}\b", module.read_text(encoding="utf-8"), re.MULTILINE):
            return
    pytest.fail(f"the glossary names lmconv.{name}, which does not exist")


def test_the_readme_links_the_glossary() -> None:
    assert "(docs/glossary.md)" in (TREE / "README.md").read_text(encoding="utf-8")


def test_the_links_of_the_glossary_lead_to_pages() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (PAGE.parent / link).is_file(), link
