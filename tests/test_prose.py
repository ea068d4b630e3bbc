"""Docstrings begin with their subject or with a verb, see CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).parents[1]
FILES = sorted(path for root in ("converter", "evaluate", "weights") for path in (TREE / root).rglob("*.py"))
OBSCURE = re.compile(r"(What|How|Of|Whether|Where|Which|Who|Whose|That|Those|It|They)\b")


def docstrings(path: Path) -> Iterator[str]:
    """Texts of all docstrings of a file, those of constants and attributes included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for statement in getattr(node, "body", []) if isinstance(getattr(node, "body", None), list) else []:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                yield str(statement.value.value).strip()


def test_docstrings_begin_with_their_subject_or_a_verb() -> None:
    texts = {str(path.relative_to(TREE)): list(docstrings(path)) for path in FILES}
    obscure = {path: [text for text in found if OBSCURE.match(text)] for path, found in texts.items()}
    assert {path: found for path, found in obscure.items() if found} == {}
    assert sum(map(len, texts.values())) > 1000
