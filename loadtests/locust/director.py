"""What the one process in charge does, from a run's servers to its verdict."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import gevent
from figures import Figures
from functions import SECONDS, Functions, ttl_of_hot_value
from locust.env import Environment
from locust.runners import MasterRunner
from options import Choices, RefusedError
from run import APP, BATCH, Plan, current, fill, sites_of
from scenarios import Timeline
from servers import OwnServers, own_servers
from traffic import NAMESPACE, VALUES, Keys
from verdicts import BY_HAND, LOCKED, Record

from app import examples
from app.serving import Serving, serving
from shardcache import Client, Gutter, Node, NodeError, Settings, TimeoutPolicy

PATIENCE: Final = 10.0  # seconds for a call that prepares or cleans up
TURN: Final = 50  # keys whose owner is looked up at a time
STALE: Final = 30.0  # seconds for which the application may serve an old report
# What the run of a page's source is, and of which site that has rows of its own in the verdict.
PAGES: Final = {
    "protected": (LOCKED, ""),
    "unprotected": (BY_HAND, ""),
    **{name: (LOCKED, name) for name in examples.EXAMPLES},
}

log = logging.getLogger("shardcache.loadtest")


@dataclass(slots=True)
class Director:
    """One run, from its servers to its verdict; `close` ends what it began, however it went.

    `finals` are the workers that have sent their last figures, `heard` when each last sent any.
    It is `over` once it is being judged, and `refused` says why a worker could not take part.
    """

    choices: Choices
    environment: Environment
    figures: Figures = field(default_factory=Figures)
    heard: dict[str, float] = field(default_factory=dict)
    finals: set[str] = field(default_factory=set)
    over: bool = False
    refused: str = ""
    _stack: ExitStack = field(default_factory=ExitStack)
    _own: OwnServers | None = None
    _client: Client | None = None
    _plan: Plan | None = None
    _sites: dict[str, Serving] = field(default_factory=dict)
    _timeline: Timeline | None = None
    _runs: Counter[str] = field(default_factory=Counter)  # of each site that are among the events
    _ended: float = 0.0  # when users began to be stopped
    _target: str = ""
    _moved: tuple[float, float] = (0.0, 0.0)

    def prepare(self) -> Plan:
        """Start what the run needs, and write its first values; return what all have to know.

        Raise `RefusedError` for servers that cannot be reached, or that hold others' keys.
        """
        choices = self.choices
        plan = Plan(
            number=secrets.token_hex(4),
            scenario=choices.scenario,
            variant=choices.variant,
            profile=choices.profile,
            settings=choices.settings or self._start_servers(),
            target="",
            rate=choices.rate,
            seconds=choices.seconds,
        )
        self._client = self._stack.enter_context(_patient(plan))
        check_reachable(self._client)
        if choices.settings and not choices.yes:
            _check_empty(self._client)
        self._stack.callback(self._forget)
        keys = Keys(choices.profile)
        if choices.scenario.fault:
            self._target = self._client.node_for(keys.key(VALUES, 1)).name
        if "TrafficUser" in choices.scenario.user_classes and not plan.in_process:
            fill(self._client, keys)
        for site in sites_of(self.environment, choices.scenario):
            self._start_site(site, plan)
        urls = {name: served.url for name, served in self._sites.items()}
        self._plan = replace(plan, target=self._target, sites=urls)
        self._timeline = Timeline(choices.seconds)
        return self._plan

    @property
    def prepared(self) -> bool:
        """Return whether all is there for the run to begin."""
        return self._plan is not None

    def begin(self) -> None:
        """Begin to count seconds, and let the fault come when its time has."""
        runner = self.environment.runner
        if isinstance(runner, MasterRunner):
            self.heard = {
                worker.id: 0.0 for worker in (*runner.clients.ready, *runner.clients.running)
            }
        if self.choices.scenario.fault:
            fault = gevent.spawn(self._play_fault)
            self._stack.callback(fault.kill)

    def spawned(self) -> None:
        """Note that all users are there; the first time counts."""
        if self._timeline is not None and not self._timeline.spawned:
            self._timeline = replace(self._timeline, spawned=current.moment())

    def take(self, worker: str, data: dict[str, Any]) -> None:
        """Add what a worker reports of this run; `final` data is its last."""
        if self._plan is None or data["run"] != self._plan.number:
            return
        self.figures.add(data["figures"])
        self.heard[worker] = current.moment()
        if data["final"]:
            self.finals.add(worker)

    def note_stop(self) -> None:
        """Note that users are being stopped: too early, unless the run has had its time."""
        if not self._ended:
            self._ended = current.moment()

    def record(self) -> Record:
        """Return the run so far for the verdict; at its end, silent workers count as lost."""
        for name, served in self._sites.items():
            runs = served.runs()
            for run in runs[self._runs[name] :]:
                self.figures.event(current.moment_of(run.moment), *PAGES[run.page])
            self._runs[name] = len(runs)
        moved, ideal = self._moved
        return Record(
            scenario=self.choices.scenario.name,
            variant=self.choices.variant,
            servers=self.choices.own or "given",
            profile=self.choices.profile,
            timeline=self._timeline or Timeline(self.choices.seconds),
            figures=self.figures,
            users=self.choices.users,
            rate=self.choices.rate,
            seconds_to_recompute=SECONDS,
            hot_ttl=ttl_of_hot_value(self.choices.seconds),
            target=self._target,
            moved=moved,
            ideal=ideal,
            lost=self._lost() if self.over else (),
            stopped=self._ended if self.over and self._ended < self.choices.seconds else None,
        )

    def close(self) -> None:
        """Delete the keys that the run wrote, and stop what it started."""
        self._stack.close()

    # Steps.

    def _start_servers(self) -> Settings:
        log.info("starting servers: three %s", self.choices.own.replace("both", "of each kind"))
        self._own = self._stack.enter_context(own_servers(self.choices.own))
        failover = self.choices.variant.failover
        return Settings.of(
            nodes=self._own.urls,
            namespace=NAMESPACE,
            timeout=self.choices.scenario.timeout,
            failover=Gutter(self._own.spare()) if failover == "gutter" else failover,
        )

    def _start_site(self, name: str, plan: Plan) -> None:
        if self.environment.host:
            raise RefusedError("the run starts the application itself: leave out --host")
        if self._own is None:
            raise RefusedError(
                "the application needs servers of the run's own: leave out --cache-url and"
                " SHARDCACHE_URL"
            )
        ttl = ttl_of_hot_value(self.choices.seconds)
        urls = [node.url for node in plan.settings.nodes]
        if name == APP:
            block = serving(urls, ttl=ttl, stale=STALE, source_seconds=SECONDS)
        else:
            block = examples.serving(name, urls, ttl=ttl)
        log.info("starting %s", name)
        self._sites[name] = self._stack.enter_context(block)

    def _play_fault(self) -> None:
        timeline = Timeline(self.choices.seconds)
        gevent.sleep(timeline.fault - current.moment())
        fault = self.choices.scenario.fault
        assert fault is not None, "only a scenario with a fault comes here"
        if fault == "add":
            self._add_node()
            return
        assert self._own is not None, "a fault is done to servers of the run's own"
        node = next(node for node in self._nodes() if node.name == self._target)
        log.info("%.1f s: %s %s", current.moment(), fault, node.name)
        self.figures.event(current.moment(), "fault", node.name)
        with self._own.fault(fault, node):
            gevent.sleep(timeline.fault_end - current.moment())
        self.figures.event(current.moment(), "repaired", node.name)
        log.info("%.1f s: %s is back", current.moment(), node.name)

    def _add_node(self) -> None:
        assert self._own is not None, "a node is added to servers of the run's own"
        assert self._client is not None, "the run has been prepared"
        url = self._own.add()
        keys = Keys(self.choices.profile).values()
        before = self._client.topology
        self._client.add_node(url)
        after = self._client.topology
        self._target = next(node.name for node in after.nodes if node.url == url)
        self.environment.runner.send_message("shardcache-add-node", {"url": url})
        log.info("%.1f s: added %s", current.moment(), self._target)
        self.figures.event(current.moment(), "fault", self._target)
        moved = 0
        for number, hashed in enumerate(map(self._client.hashed, keys)):
            moved += before.owner(hashed).name != after.owner(hashed).name
            if number % TURN == 0:
                gevent.sleep(0.001)  # the users' calls would wait for the end of it
        self._moved = moved / len(keys), 1 / len(after.nodes)

    def _nodes(self) -> Sequence[Node]:
        assert self._client is not None, "the run has been prepared"
        return self._client.nodes

    def _lost(self) -> Sequence[str]:
        runner = self.environment.runner
        return [
            f"worker {runner.get_worker_index(worker)}, last heard of at {moment:.1f} s"
            for worker, moment in self.heard.items()
            if worker not in self.finals
        ]

    def _forget(self) -> None:
        """Delete every key that the run may have written; say so if some could not be."""
        assert self._client is not None, "the run has been prepared"
        if self._own is not None:
            return  # they end with their servers
        keys = Keys(self.choices.profile).all_written()
        batches = [keys[begin : begin + BATCH] for begin in range(0, len(keys), BATCH)]
        functions = Functions(self._client, self.choices.seconds, lambda _how: None)
        errors = [*map(self._delete, batches), _error_of(functions.forget)]
        found = sorted({str(error) for error in errors if error is not None})
        if found:
            log.error("keys of this run are left on the servers: %s", "; ".join(found))

    def _delete(self, keys: Sequence[str]) -> Exception | None:
        assert self._client is not None, "the run has been prepared"
        client = self._client
        return _error_of(lambda: client.delete_many(keys))


def _error_of(work: Callable[[], object]) -> Exception | None:
    """Return what went wrong: one node that fails must not keep keys on the others."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - told when all has been tried
        return error
    return None


@contextmanager
def _patient(plan: Plan) -> Iterator[Client]:
    """Make a client that waits long, and raises, for what is done before and after a run."""
    settings = replace(plan.settings, timeout=TimeoutPolicy(PATIENCE), on_error="raise")
    with Client.from_settings(settings) as client:
        yield client


def check_reachable(client: Client) -> None:
    """Raise `RefusedError` naming every node that does not answer."""
    errors = [str(answer) for answer in client.ping().values() if isinstance(answer, NodeError)]
    if errors:
        raise RefusedError("; ".join(errors))


def _check_empty(client: Client) -> None:
    """Raise `RefusedError` naming every node that holds keys."""
    held = {name: keys_held(node.server) for name, node in client.stats().items()}
    found = [f"{name} holds {count:,} keys" for name, count in held.items() if count]
    if found:
        raise RefusedError(
            f"{', '.join(found)}: a run writes to these servers, under names of its own, and takes"
            " their memory; add --yes to allow it"
        )


def keys_held(figures: dict[str, str] | NodeError) -> int:
    """Return how many keys a server says that it holds.

    >>> keys_held({"curr_items": "7"}), keys_held({"db0": "keys=3,expires=0", "db1": "keys=1"})
    (7, 4)
    """
    if isinstance(figures, NodeError):
        raise figures
    of_redis = sum(
        int(text.partition("keys=")[2].partition(",")[0])
        for name, text in figures.items()
        if name.startswith("db") and "keys=" in text
    )
    return int(figures.get("curr_items", 0)) + int(figures.get("entries", 0)) + of_redis
