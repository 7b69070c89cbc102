"""Faults of recomputes: claims, stores, single flight and many keys."""

from __future__ import annotations

from mutants.mutant import Mutant

VALUE_TESTS = tuple(
    f"operations/recompute/test_{subject}.py"
    for subject in ("recompute", "refresh", "claims", "waiting", "takeover", "outcomes")
)
FLIGHT_TESTS = ("operations/recompute/test_single_flight.py",)
TYPE_TESTS = tuple(
    f"operations/recompute/test_{subject}.py" for subject in ("typed_results", "uncacheable")
)
RESULT_TAG_TESTS = ("operations/recompute/test_result_tags.py",)

MUTANTS = [
    Mutant(
        "the lock before the first read",
        "operations/recompute/cached_value.py",
        "    reply, versions = await request.read()\n    if type(reply) is tuple:",
        "    await redlock.attempt(request.cluster, request.key, request.policy.locking)\n"
        "    reply, versions = await request.read()\n"
        "    if type(reply) is tuple:",
        VALUE_TESTS,
    ),
    Mutant(
        "no second look once the lock is held",
        "operations/recompute/recompute.py",
        "            if outcome is not None:\n                return outcome\n        # Another's",
        "            del outcome\n        # Another's",
        VALUE_TESTS,
    ),
    Mutant(
        "a store that no invalidation voids",
        "operations/recompute/recompute.py",
        "reply = await request.ask(Cas(request.name, payload, claim.token, seconds))",
        "reply = await request.ask(Set(request.name, payload, seconds))",
        VALUE_TESTS,
    ),
    Mutant(
        "a void flight is joined",
        "operations/recompute/progress.py",
        "if claim is None or progress.as_of >= self.began:",
        "if True:",
        FLIGHT_TESTS,
    ),
    Mutant(
        "a flight whose tags were invalidated is joined",
        "operations/recompute/progress.py",
        "return still_holds and tags_agree(self.versions, progress.versions)",
        "return still_holds",
        FLIGHT_TESTS,
    ),
    Mutant(
        "those who see the stub of their leader do not join",
        "operations/recompute/progress.py",
        "return still_holds and tags_agree(self.versions, progress.versions)",
        "return False",
        FLIGHT_TESTS,
    ),
    Mutant(
        "those whose node is down do not join",
        "operations/recompute/progress.py",
        "return True  # unknown, and joining spares the source",
        "return False",
        FLIGHT_TESTS,
    ),
    Mutant(
        "an older forced refresh stores over a newer one",
        "operations/recompute/recompute.py",
        "        if refresh is not None:\n            return refresh\n",
        "        if reply.payload is not None:\n            return claim\n",
        VALUE_TESTS,
    ),
    Mutant(
        "a late follower does not look at the tags of its result",
        "operations/recompute/cached_value.py",
        "or await _is_void(request, ended, leader.first_read)",
        "or False",
        RESULT_TAG_TESTS,
    ),
    Mutant(
        "a refresh joins a recompute that may serve an old value",
        "operations/recompute/leader.py",
        "if self.progress.renews and not progress.renews:",
        "if False:",
        ("operations/recompute/test_blocks.py",),
    ),
    Mutant(
        "an orphan goes on for ever",
        "io/task_flights.py",
        "        self._outlives = None\n        self.leave()",
        "        self.leave()",
        ("operations/recompute/test_orphans.py", "io/test_task_flights.py"),
    ),
    Mutant(
        "any bare stub passes for the leader's",
        "operations/recompute/claims.py",
        "return token is not None and token == self.token",
        "return True",
        FLIGHT_TESTS,
    ),
    Mutant(
        "what was recomputed in place of a hung refresh is not stored",
        "operations/recompute/leader.py",
        "claim = await claim_refresh(request, last_resort, When.ALWAYS)",
        "claim = None",
        FLIGHT_TESTS,
    ),
    Mutant(
        "the stub of a void recompute is left in the way",
        "operations/recompute/leader.py",
        "            await self.void.release()\n",
        "            pass\n",
        FLIGHT_TESTS,
    ),
    Mutant(
        "a renewed stub is not known again",
        "operations/recompute/recompute.py",
        "if reply is not False or not await claim.find_again():",
        "if True:",
        FLIGHT_TESTS,
    ),
    Mutant(
        "an exception is kept that would not come back equal",
        "operations/recompute/request.py",
        "return None if twin is None or not equal(twin, error) else payload",
        "return payload",
        ("clients/test_kept_errors.py",),
    ),
    Mutant(
        "what cannot be copied is given to all",
        "operations/recompute/cached_value.py",
        "    if not ended.shareable:\n        return await _recompute_alone(request)\n",
        "    if ended.payload is None and ended.error is None:\n        return ended.value\n",
        ("clients/test_recomputing.py",),
    ),
    Mutant(
        "the holder of a lock takes over from a process without one",
        "operations/recompute/recompute.py",
        "if not takes_over or is_unlocked(reply.stub):",
        "if not takes_over:",
        VALUE_TESTS,
    ),
    Mutant(
        "a process without a lock does not say so on memcached",
        "operations/recompute/recompute.py",
        "if shows_mark and claim.leads and claim.at_start == BARE_STUB:",
        "if False:",
        VALUE_TESTS,
    ),
    Mutant(
        "a stub of another's is stored over by the holder of the lock",
        "operations/recompute/recompute.py",
        "            if not takes_over or is_unlocked(reply.stub):\n                return claim\n",
        "            return claim\n",
        VALUE_TESTS,
    ),
    Mutant(
        "those who wait are not told that a making was given up",
        "operations/recompute/claims.py",
        "            await self._ask(Cas(self._name, abandoned(self.mark), self.token, ABANDONED_SECONDS))",
        "            await self._ask(DeleteCas(self._name, self.token))",
        VALUE_TESTS,
    ),
    Mutant(
        "the work of a flight is part of the task that began it",
        "io/task_flights.py",
        "        if self.followed or self._task.done():\n            return\n",
        "",
        ("io/test_task_flights.py",),
    ),
    Mutant(
        "values to be refreshed and missing ones take two calls of a factory",
        "operations/recompute/lockstep.py",
        "            elif _wishing(operations, Enter):\n                return\n",
        "",
        ("operations/recompute/test_many_policies.py",),
    ),
    Mutant(
        "claims of many keys stay when their caller is stopped",
        "operations/recompute/lockstep.py",
        "await self.io.shield(lambda: self._stop(operations))",
        "await self.io.shield(lambda: self._stop(()))",
        ("operations/recompute/test_many.py",),
    ),
    Mutant(
        "the flights of a batch do not stand for each other in the wait-for graph",
        "io/single_flight.py",
        "Edge(own, self.work)",
        "Edge(own, self)",
        ("operations/recompute/test_many.py", "io/test_flight_batches.py"),
    ),
    Mutant(
        "an interruption is shared",
        "io/thread_flights.py",
        "outcome: T | FlightEnd = FlightEnd.CANCELLED\n        try:",
        "outcome: T | FlightEnd = FlightEnd.TIMED_OUT\n        try:",
        ("io/test_thread_flights.py",),
    ),
    Mutant(
        "a result that cannot be stored keeps the followers waiting",
        "operations/recompute/recompute.py",
        "    except EncodeError as error:\n        await _skip_storing(request, claim)\n",
        "    except EncodeError as error:\n",
        TYPE_TESTS,
    ),
    Mutant(
        "a result is stored that would come back as something else",
        "core/values/typed.py",
        "if difference is not None:",
        "if difference == 1:",
        TYPE_TESTS,
    ),
    Mutant(
        "a value of an older type raises",
        "operations/recompute/request.py",
        " and not isinstance(error, InvalidValueError)",
        "",
        TYPE_TESTS,
    ),
    Mutant(
        "the leader gets another value than the followers",
        "operations/recompute/request.py",
        "return self.payloads.dump_result(self.name, result)",
        "return self.payloads.dump_result(self.name, result)[0], result",
        TYPE_TESTS,
    ),
]
