"""Faults of what is stored and read: freshness, signatures, other clients."""

from __future__ import annotations

from mutants.mutant import Mutant

SIGNED_TESTS = ("clients/test_signed.py", "clients/test_replay.py")
FOREIGN_TESTS = ("clients/test_foreign_values.py",)

MUTANTS = [
    Mutant(
        "XFetch with the wrong sign",
        "core/values/freshness.py",
        "return -value.delta * beta",
        "return value.delta * beta",
        ("core/values/test_freshness.py",),
    ),
    Mutant(
        "jitter that lengthens",
        "core/cache_policy.py",
        "return ttl * (1 - jitter * chance)",
        "return ttl * (1 + jitter * chance)",
        ("core/values/test_freshness.py",),
    ),
    Mutant(
        "a signature that is good for every key",
        "core/values/signing.py",
        "        len(name),\n        name,\n",
        "        0,\n        b'',\n",
        SIGNED_TESTS,
    ),
    Mutant(
        "a signature that is good for every kind",
        "core/values/payloads.py",
        "return Scope(purpose, kind, self.name if by_codec else",
        "return Scope(b'value', 0, self.name if not purpose else",
        SIGNED_TESTS,
    ),
    Mutant(
        "a signature without an end",
        "core/values/signing.py",
        "if now > ends + LEEWAY:",
        "if now < 0 < ends:",
        SIGNED_TESTS,
    ),
    Mutant(
        "what nobody signed is believed",
        "core/values/payloads.py",
        "if self.others.unsigned and is_from_another_client(flags):",
        "if is_from_another_client(flags):",
        SIGNED_TESTS,
    ),
    Mutant(
        "what other clients write comes in by an envelope",
        "core/values/freshness.py",
        "if not is_value(flags):",
        "if flags < 0:",
        FOREIGN_TESTS,
    ),
    Mutant(
        "every pickle of others is read when some are",
        "core/values/other_clients.py",
        "if len(data) < 2 or data[0] != _PICKLE_MARK or data[1] not in _PROTOCOLS:",
        "if len(data) < 0:",
        ("compatibility/test_mixed_fleet.py",),
    ),
    Mutant(
        "any class of a known name is taken for the one in the table",
        "core/codecs/subclasses.py",
        "return code if code and SUBCLASSES[code].find() is kind else 0",
        "return code",
        ("core/codecs/test_subclasses.py",),
    ),
]
