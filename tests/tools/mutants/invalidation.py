"""Faults of invalidation: tags, and generations of a namespace."""

from __future__ import annotations

from mutants.mutant import Mutant

GENERATIONS = "operations/invalidation/generations.py"
RESULT_TAG_TESTS = ("operations/recompute/test_result_tags.py",)
GENERATION_TESTS = tuple(
    f"operations/invalidation/test_{subject}.py"
    for subject in ("generation_names", "generations", "planted_generations", "generation_safety")
)

MUTANTS = [
    Mutant(
        "an invalidation during a recompute is missed, if the result has the tag",
        "operations/recompute/recompute.py",
        "    if logged:\n        return Tagged(result_tags, None)\n",
        "",
        RESULT_TAG_TESTS,
    ),
    Mutant(
        "a tag is logged after its version is removed",
        "operations/invalidation/tags.py",
        "        reply = failure or await cluster.ask(member, Delete(name), deadline)\n",
        "        reply = failure or reply\n",
        RESULT_TAG_TESTS,
    ),
    Mutant(
        "a lost log of tags is no reason",
        "operations/invalidation/tag_log.py",
        "    if end not in entries:\n        return True\n",
        "    if end not in entries:\n        return False\n",
        RESULT_TAG_TESTS,
    ),
    Mutant(
        "a generation that any one node says is believed",
        "core/generations.py",
        "return _held_by(quorum(nodes) - (nodes - len(answers)), answers)",
        "return max(answers)",
        GENERATION_TESTS,
    ),
    Mutant(
        "a generation that silent nodes may have is missed",
        "core/generations.py",
        "return _held_by(quorum(nodes) - (nodes - len(answers)), answers)",
        "return _held_by(quorum(nodes), answers)",
        GENERATION_TESTS,
    ),
    Mutant(
        "a generation from the far future is believed",
        "core/generations.py",
        "return FIRST if _began(name) > wall + MAX_AHEAD else name",
        "return name",
        GENERATION_TESTS,
    ),
    Mutant(
        "the mark is moved before the generation is in force",
        GENERATIONS,
        "        stored = await _store_newer(cluster, generation.key, name, found, deadline, wanted)",
        "        await self._move(cluster, members, deadline)\n"
        "        stored = await _store_newer(cluster, generation.key, name, found, deadline, wanted)",
        GENERATION_TESTS,
    ),
    Mutant(
        "what was read along with a mark half moved is the last word",
        GENERATIONS,
        "return after if len(set(marks.values())) == 1 else before",
        "return after",
        GENERATION_TESTS,
    ),
    Mutant(
        "a generation is stored over whatever is there",
        GENERATIONS,
        "return Cas(key, payload, reply[1])",
        "return Set(key, payload)",
        GENERATION_TESTS,
    ),
    Mutant(
        "in force is what one node has noted",
        GENERATIONS,
        "        if len(stored) < wanted:",
        "        if not stored:",
        GENERATION_TESTS,
    ),
    Mutant(
        "one node's mark stands for all",
        GENERATIONS,
        "            if len(heard) < quorum(len(members)):",
        "            if len(heard) < 1:",
        GENERATION_TESTS,
    ),
    Mutant(
        "the second until the next look begins with the answer",
        GENERATIONS,
        "self.due = began + LOOK_AGAIN",
        "self.due = cluster.io.now() + LOOK_AGAIN",
        GENERATION_TESTS,
    ),
]
