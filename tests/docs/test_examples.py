"""The examples on the pages run as shown."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ *```(?P<language>\w*)")


def examples(page: str) -> str:
    """Give the lines of a page's Python blocks, all others blank, so that line numbers hold."""
    kept = []
    language = ""
    for line in page.splitlines():
        fence = FENCE.match(line)
        if fence:
            language = "" if language else fence["language"] or "text"
        kept.append(line if language in {"pycon", "python"} and not fence else "")
    return "\n".join(kept) + "\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_run_as_shown(page: Path):
    """What a page shows at the prompt is what the reader gets."""
    text = examples(page.read_text(encoding="utf-8"))
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    runner = doctest.DebugRunner(optionflags=doctest.ELLIPSIS)
    try:
        runner.run(test)
    except doctest.DocTestFailure as failure:
        line = (failure.example.lineno or 0) + 1
        pytest.fail(
            f"{page.name}:{line}: {failure.example.source}"
            f"expected:\n{failure.example.want}got:\n{failure.got}",
            pytrace=False,
        )


def test_a_wrong_example_is_found():
    """A fence ends the expected output, and prose beside the blocks is no example."""
    page = ">>> prose\n\n```pycon\n>>> 1 + 1\n3\n```\nmore prose\n"
    (example,) = doctest.DocTestParser().get_examples(examples(page))
    assert (example.source, example.want, example.lineno) == ("1 + 1\n", "3\n", 3)
