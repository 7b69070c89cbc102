"""Faults of calls about one key."""

from __future__ import annotations

from mutants.mutant import Mutant

FOREIGN_TESTS = ("clients/test_foreign_values.py",)

MUTANTS = [
    Mutant(
        "two writes on Redis are the same",
        "backends/redis/wire.py",
        "self._version = (self._version + 1) & LAST_VERSION",
        "self._version = self._version & LAST_VERSION",
        ("backends/redis/test_wire.py",),
    ),
    Mutant(
        "a refused swap deletes what is newer",
        "operations/keys/single.py",
        "await cluster.ask(member, DeleteCas(name, token), deadline)",
        "await cluster.ask(member, Delete(name), deadline)",
        FOREIGN_TESTS,
    ),
    Mutant(
        "a kept expiry moves by a second",
        "operations/keys/keeping.py",
        "if isinstance(expiry, Until) and not expiry.exact:",
        "if False:",
        ("operations/keys/test_keeping.py",),
    ),
    Mutant(
        "a kept value has no expiry",
        "backends/redis/wire.py",
        'return self._compare_and_set(command, (b"KEEPTTL",))',
        "return self._compare_and_set(command, ())",
        ("backends/redis/test_ages.py",),
    ),
    Mutant(
        "a count that another client voided is returned",
        "operations/keys/counters.py",
        "return new if reply is True else reply",
        "return new",
        ("operations/keys/test_counters.py",),
    ),
    Mutant(
        "the mark of a recompute exists",
        "operations/keys/ages.py",
        "    if is_mark(payload):",
        "    if False:",
        ("operations/keys/test_ages.py",),
    ),
]
