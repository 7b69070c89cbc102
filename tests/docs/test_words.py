"""Retired words do not come back: each has a plainer one, which the glossary and the field use.

Prose is searched in the package, the documentation and the project's pages; names are searched there
and among what the tests define. `python tests/docs/test_words.py` counts what is found, by folder.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = sorted((ROOT / "shardcache").rglob("*.py"))
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
]
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# Patterns, with what to say instead. A blank is any white space, with or without a comment's sign.
PHRASES: Mapping[str, str] = {
    # The beginnings of docstrings.
    '"""Give': "Return …",
    '"""Gives': "Returns …",
    '"""Say whether': "Return whether …",
    '"""Take note': "Store …, Record …",
    # One act, one word: recompute; refresh, while an old value is served.
    "anew": "again; recompute, refresh",
    "beside the calls?": "in the background",
    "in vain": "timed out",
    # Relative clauses in place of an actor.
    "whoever": "the caller, holder, leader, process, operator that …",
    "somebody": "the caller, another process, an operator",
    "nobody": "no caller, no process, no node",
    "one who": "the caller, holder, follower that …",
    "so many": "the number: wait up to `wait` seconds",
    # Turns of speech that are no English engineer's.
    "of its own": "its own …",
    "for good": "permanently",
    "let be": "ignored",
    "let(?:s|ting)? go": "release, remove",
    "another's hands": "held by another client",
    "up for grabs": "unclaimed",
    "signs? of life": "an answer",
    "dear": "expensive",
    # Words that users met, and that say something else in the field.
    "embedded": "in-process memory (node)",
    "watch-the-protection": "monitor",
    # Metaphors.
    "aboard": "waiting for the flight",
    "in hand": "held",
    "tally": "counters",
}

# What must follow a phrase, or must not: "a thread of its own" is retired, "of its own calls" is not.
FOLLOWED: Mapping[str, str] = {
    '"""Give': r"(?!\s+up\b)",
    "of its own": r"(?=[^\S\n]*(?:\Z|[\n.,;:)]|(?:"
    r"and|as|at|because|for|has|in|is|needs|never|on|only|or|such|that|to|which|with)\b))",
    "so many": r"(?!\s+that\b)",
}

# Names that say nothing else in English prose: they are searched everywhere, in prose as well.
NAMES: Mapping[str, str] = {
    "detach_all": "forget_all",
    "Landing": "FlightEnd",
    "Audience": "Observers",
    "Severity": "FailureKind",
    "Tally": "Counters",
    "Elections": "RefreshGate",
    "Begun": "StubReply",
    "DeleteIf": "CompareAndDelete",
    "ExpireIf": "CompareAndExpire",
    "DeleteUnchanged": "DeleteCas",
    "CallKeys": "KeyBuilder",
    "callkeys": "arguments",
    "refreshes_beside": "refreshes_in_background",
    "given_up": "abandon",
    "let_go": "release",
    "RESTING": "BACKING_OFF",
    "salvages": "serves_after_error",
    "worthwhile": "long_enough",
    "talk_on": "exchange_on",
}

# Names that are also ordinary words: the package defines no class, function or constant so named.
DEFINITIONS: Mapping[str, str] = {
    "Link": "Member",
    "Flights": "SingleFlight",
    "enveloped": "seal",
    "fly": "do",
    "detach": "forget",
    "tell": "notify",
    "praise": "record_success",
    "blame": "record_failure",
    "Begin": "GetOrStub",
    "Take": "Acquire",
    "Taken": "Acquired",
    "Hold": "HeldLock",
    "_Vote": "_Attempt",
    "Found": "Stored",
    "ENDED": "EXPIRED",
    "settled": "unwrap",
    "begun": "begin",
    "elected": "claim_refresh",
    "lacks": "a capability protocol, supports",
    "offer": "try_spawn",
    "shielded": "shield",
    "Bell": "Wakeup",
    "Talk": "Steps",
    "Runs": "Incarnation, HashRanges",
    "Naming": "KeySpec",
    "Prefixes": "PrefixRegistry",
}

# What tests call their helpers.
HELPERS: Mapping[str, str] = {
    "Scene": "Harness",
    "Diary": "EventLog",
}

# Files and folders that have another name, in the package and in the tests.
MODULES: Mapping[str, str] = {
    "whole": "admin",
    "computed": "cached_value",
    "making": "recompute",
    "leading": "leader",
    "probing": "prober",
    "flights": "single_flight",
    "naming": "key_builder",
    "policies": "timeouts",
    "comparing": "compare",
    "aio": "asyncio",
    "sync": "blocking",
    "dialing": "dial",
    "chunks": "coalesce",
    "awaited": "replies",
    "house": "project",
    "test_making": "test_construction",
}

# Where a word may stand all the same: by word, the files with the reason.
ALLOWED: Mapping[str, Mapping[str, str]] = {}


class Finding(NamedTuple):
    """A retired word in its place."""

    path: str
    line: int
    word: str
    instead: str

    def __str__(self) -> str:
        """Return it as an editor reads it, with what to say instead."""
        return f"{self.path}:{self.line}: {self.word!r} is retired: {self.instead}"


def phrase(words: str, flags: int = re.IGNORECASE) -> re.Pattern[str]:
    """Return a pattern that finds words over the end of a line, in comments too."""
    begins = r"\b" if words[0].isalnum() else ""
    blank = r"(?:[ \t]*\n)?[\s#>*]+"
    return re.compile(begins + words.replace(" ", blank) + r"\b" + FOLLOWED.get(words, ""), flags)


SEARCHED = [
    *((words, phrase(words), instead) for words, instead in PHRASES.items()),
    *((name, phrase(name, 0), instead) for name, instead in NAMES.items()),
]


def find_in_text(path: str, text: str) -> Iterator[Finding]:
    """Yield the retired phrases and names of a text."""
    lowered = text.lower()
    for word, pattern, instead in SEARCHED:
        if re.split(r"[ (?]", word.lower())[0].rstrip("s") not in lowered:  # most are nowhere
            continue
        for found in pattern.finditer(text):
            yield Finding(path, 1 + text.count("\n", 0, found.start()), word, instead)


def find_in_path(path: str) -> Iterator[Finding]:
    """Yield the retired names of folders and modules on the way to a file."""
    for part in Path(path).with_suffix("").parts:
        if part in MODULES:
            yield Finding(path, 1, part, MODULES[part])


def find_defined(path: str, text: str, retired: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the retired names under which a module defines a function, class or constant."""
    for name, line in defined_in(text):
        if name in retired:
            yield Finding(path, line, name, retired[name])


def find_in_names(path: str, text: str) -> Iterator[Finding]:
    """Yield the phrases of which the names of a test module's functions and classes are made."""
    for name, line in defined_in(text):
        words = " ".join(re.findall(r"[A-Z]?[a-z]+|\d+", name)).lower()
        for finding in find_in_text(path, words):
            yield finding._replace(line=line, word=f"{finding.word} ({name})")


def defined_in(text: str) -> Iterator[tuple[str, int]]:
    """Yield each name that a module defines, with its line: functions, classes, constants."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node.lineno
            case ast.Name(ctx=ast.Store()) if node.id.isupper():
                yield node.id, node.lineno


@cache
def find_all() -> list[Finding]:
    """Return every retired word of the project, with those that are allowed."""
    found: list[Finding] = []
    for file in PACKAGE:
        path, text = str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")
        found += [*find_in_path(path), *find_in_text(path, text)]
        found += find_defined(path, text, DEFINITIONS)
    for file in PAGES:
        found += find_in_text(str(file.relative_to(ROOT)), file.read_text(encoding="utf-8"))
    for file in TESTS:
        path, text = str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")
        found += [*find_in_path(path), *find_in_names(path, text)]
        found += find_defined(path, text, HELPERS)
    return found


def is_allowed(finding: Finding) -> bool:
    """Return whether the word may stand in that file."""
    return finding.path in ALLOWED.get(finding.word, {})


def test_no_retired_word_is_used():
    """Package, pages and the names of tests use the words of the glossary."""
    found = [str(finding) for finding in find_all() if not is_allowed(finding)]
    assert not found, "\n".join(["", *found])


def test_what_is_allowed_is_used():
    """A word that has left a file is no longer allowed there."""
    used = {(finding.word, finding.path) for finding in find_all()}
    allowed = {(word, path) for word, paths in ALLOWED.items() for path in paths}
    assert allowed <= used


def test_a_phrase_is_found_wherever_it_breaks():
    """Neither a new line, nor the sign of a comment, nor a capital hides one."""
    text = "# It is done beside\n    # the calls.\nIn\nvain.\n"
    assert [(found.line, found.word) for found in find_in_text("page.md", text)] == [
        (1, "beside the calls?"),
        (3, "in vain"),
    ]


def test_what_follows_a_phrase_decides():
    """A thread "of its own" is found, the failures "of its own calls" are not."""
    text = (
        "a thread of its own, its failures of its own calls, so many that it waits so many seconds"
    )
    assert [found.word for found in find_in_text("page.md", text)] == ["so many", "of its own"]


def test_an_ordinary_word_is_retired_as_a_name_alone():
    """A page may link; no class is a `Link`, and no module `leading`."""
    assert not list(find_in_text("page.md", "A link, and leading zeros."))
    module = "shardcache/leading.py"
    found = [*find_in_path(module), *find_defined(module, "class Link: ...\n", DEFINITIONS)]
    assert [finding.word for finding in found] == ["leading", "Link"]


def test_the_name_of_a_test_is_read_as_words():
    """Underscores and capitals part the words of a name."""
    found = find_in_names("tests/test_x.py", "def test_nobody_waits_in_vain(): ...\n")
    assert [finding.word.partition(" (")[0] for finding in found] == ["in vain", "nobody"]


def report() -> int:
    """Write what is found, and how much of it in each folder; return the exit status."""
    found = [finding for finding in find_all() if not is_allowed(finding)]
    folders = Counter(str(Path(finding.path).parent) for finding in found)
    lines = [
        *map(str, found),
        *(f"{count:6} {folder}" for folder, count in sorted(folders.items())),
    ]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(report())
