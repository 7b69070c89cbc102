"""What is done when Locust says that a run is prepared, begins, reports, or is over."""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

import gevent
import options
import report
import web_tab
from director import Director, check_reachable
from locust.env import Environment
from locust.rpc import Message
from locust.runners import STATE_STOPPED, MasterRunner, WorkerRunner
from options import Choices, RefusedError
from run import Plan, current
from verdicts import Check, Record, held, judge

from app.serving import DependencyMissingError
from locust import events, stats
from shardcache import ShardCacheError
from shardcache.testing.servers import ServerFailedError, ServerMissingError

EVERY: Final = 2.0  # seconds between two lines of progress
FINALS: Final = 5.0  # seconds that workers have to send their last figures
SPARE: Final = 1.0  # seconds that a user has to end a call when it is stopped
NEVER: Final = 3600.0  # seconds; no process takes that long to end
MISSED, REFUSED = 1, 2  # exit statuses
CANNOT_BEGIN: Final = (
    RefusedError,
    ShardCacheError,
    ServerMissingError,
    ServerFailedError,
    DependencyMissingError,
)

log = logging.getLogger("shardcache.loadtest")

# Of the process in charge: the one that Locust calls master, or the only one.
director: Director | None = None
finishing: gevent.Greenlet | None = None
judged: list[tuple[Record, Sequence[Check]]] = []


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:  # Locust's own, without types
    """Add our options to Locust's."""
    options.add_to(parser)


@events.init.add_listener
def prepare(environment: Environment, web_ui: Any = None, **_: Any) -> None:
    """Refuse options that make no valid run, before anything starts."""
    runner = environment.runner
    runner.register_message("shardcache-add-node", _learn_of_node)
    runner.register_message("shardcache-failed", _hear_of_failure)
    runner.register_message("shardcache-last-figures", _hear_last_figures)
    runner.register_message("shardcache-finish", _finish_worker)
    signal.signal(signal.SIGINT, _interrupt)
    if isinstance(runner, WorkerRunner):
        return
    signal.signal(signal.SIGTERM, _interrupt)  # Locust's own comes after the run
    environment.parsed_options.given_url = environment.parsed_options.cache_url
    if web_ui is not None:
        web_tab.add_to(web_ui, lambda: director)
    try:
        choices = Choices.of(environment.parsed_options)
    except (RefusedError, ShardCacheError) as error:
        log.error("%s", error)  # noqa: TRY400 - one line for a person, no traceback
        raise SystemExit(REFUSED) from None
    # A stopped user finishes its call: otherwise a lock would remain.
    environment.stop_timeout = max(environment.stop_timeout, SPARE)
    environment.parsed_options.num_users = choices.users
    environment.parsed_options.spawn_rate = choices.spawn_rate
    environment.parsed_options.run_time = choices.seconds


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise `KeyboardInterrupt` in the main greenlet, and not in whichever is at work.

    Another may be a thread of the standard library, which swallows it.
    """
    gevent.spawn(signal.default_int_handler, number, frame)


@events.test_start.add_listener
def start(environment: Environment, **_: Any) -> None:
    """Begin a run: in the process in charge, with servers; in each that calls, with a client."""
    global director  # noqa: PLW0603 - Locust calls functions, and one run is on at a time
    runner = environment.runner
    chosen = environment.parsed_options
    if not isinstance(runner, WorkerRunner):
        environment.process_exit_code = None
        try:
            director = Director(Choices.of(chosen), environment)
            chosen.plan = director.prepare().plain()
        except CANNOT_BEGIN as error:
            _refuse(environment, str(error))
    if isinstance(runner, MasterRunner):
        current.start_clock()
    else:
        current.begin(Plan.of(chosen.plan), runner.worker_index)
    if isinstance(runner, WorkerRunner):
        _report_unreachable(runner)
    if director is not None:
        director.begin()
        gevent.spawn(_show_progress, environment, director)


@events.spawning_complete.add_listener
def note_spawned(**_: Any) -> None:
    """Note that all users are there."""
    if director is not None:
        director.spawned()


@events.report_to_master.add_listener
def send(client_id: str, data: dict[str, Any]) -> None:  # noqa: ARG001 - as Locust calls it
    """Send a worker's figures to the master."""
    data["shardcache"] = current.take()


@events.worker_report.add_listener
def receive(client_id: str, data: dict[str, Any]) -> None:
    """Add a worker's figures to those of all."""
    if director is not None and "shardcache" in data:
        director.take(client_id, data["shardcache"])


@events.worker_connect.add_listener
def check_in_time(client_id: str, **_: Any) -> None:
    """End a run when a worker joins too late: its seconds would differ."""
    if director is None or not director.prepared or director.over or client_id in director.heard:
        return
    _end_refused(
        "a worker joined while the run was on; start all workers first, and the master with"
        " --expect-workers"
    )


@events.test_stopping.add_listener
def note_stop(**_: Any) -> None:
    """Record when users are stopped."""
    if director is not None:
        director.note_stop()


@events.test_stop.add_listener
def stop(environment: Environment, **_: Any) -> None:
    """End the calls of this process; on the web page, judge the run as well."""
    global finishing  # noqa: PLW0603 - as above
    if isinstance(environment.runner, MasterRunner):
        _collect_last_figures(environment)
    else:
        current.end()
    if environment.web_ui is not None and director is not None:
        finishing = gevent.spawn(_finish, environment)


@events.quitting.add_listener
def quit_locust(environment: Environment, **_: Any) -> None:
    """Judge the run that is over, and leave nothing behind."""
    if isinstance(environment.runner, WorkerRunner):
        current.end()
        log.info("%d calls of this worker", current.calls)
        return
    if environment.runner.state != STATE_STOPPED:
        environment.runner.quit()
    current.end()
    if finishing is not None:
        finishing.join()
    _finish(environment)
    if judged and environment.parsed_options.html_file:
        report.add_to_locust_page(*judged[-1], Path(environment.parsed_options.html_file))
    if environment.parsed_options.csv_prefix:
        _await_last_rows()


def _await_last_rows() -> None:
    """Wait until Locust has written its tables again: it does so every second, not at the end.

    After that it must not write again, because it closes the files.
    """
    every, stats.CSV_STATS_INTERVAL_SEC = stats.CSV_STATS_INTERVAL_SEC, NEVER
    gevent.sleep(every)


def _finish(environment: Environment) -> None:
    """Judge a run, once; report the verdict, and stop what the run started."""
    global director  # noqa: PLW0603 - as above
    ended = director
    if ended is None or ended.over:
        return
    ended.over = True
    try:
        if not ended.prepared or ended.refused:
            return
        if not isinstance(environment.runner, MasterRunner):
            ended.take("local", current.take())
        record = ended.record()
        checks = judge(record)
        judged.append((record, checks))
        report.show(record, checks)
        report.write(record, checks, ended.choices.report)
        web_tab.keep(record, checks)
        if not held(checks):
            environment.process_exit_code = MISSED
    finally:
        # Not before: until here workers send their last figures, and the page waits for a verdict.
        if director is ended:
            director = None
        ended.close()


def _collect_last_figures(environment: Environment) -> None:
    """Ask the workers for what they have not reported; wait for it, within limits."""
    if director is None:
        return
    environment.runner.send_message("shardcache-finish")
    with gevent.Timeout(FINALS, exception=False):
        while director.heard.keys() - director.finals:
            gevent.sleep(0.05)


def _finish_worker(environment: Environment, msg: Message, **_: Any) -> None:  # noqa: ARG001 - as Locust calls it
    """Stop the users of this worker, and send its last figures."""
    environment.runner.stop()
    environment.runner.send_message("shardcache-last-figures", current.take())


def _hear_last_figures(environment: Environment, msg: Message, **_: Any) -> None:  # noqa: ARG001 - as above
    """Add the last figures of a worker."""
    if director is not None:
        director.take(msg.node_id, msg.data)


def _refuse(environment: Environment, why: str) -> None:
    """Log why a run cannot begin, and end what waits for it."""
    log.error("%s", why)
    environment.process_exit_code = REFUSED
    web_tab.refuse(why)
    runner = environment.runner
    if environment.web_ui:
        gevent.spawn(_withdraw, environment)
    elif not isinstance(runner, MasterRunner):  # a master quits by itself when its shape ends
        gevent.spawn(runner.quit)
    # Of all ways to leave what called us, this one prints no traceback.
    raise gevent.GreenletExit


def _withdraw(environment: Environment) -> None:
    """End a run that did not begin, so that the page shows why, and the next one can begin."""
    runner = environment.runner
    # What `stop` of a runner does; but a master's does nothing before there are users.
    runner.shape_greenlet = runner.shape_last_tick = None
    runner.update_state(STATE_STOPPED)
    _finish(environment)


def _show_progress(environment: Environment, running: Director) -> None:
    """Print a line every few seconds, as long as the run is on."""
    while director is running:
        gevent.sleep(EVERY)
        if not isinstance(environment.runner, MasterRunner) and not current.ended:
            running.take("local", current.take())
        if director is running and current.moment() <= running.choices.seconds:
            log.info("%s", report.progress(running.record(), current.moment()))


def _learn_of_node(environment: Environment, msg: Message, **_: Any) -> None:  # noqa: ARG001 - as Locust calls it
    """Add the new node to the clients of this process."""
    current.add_node(msg.data["url"])


def _report_unreachable(runner: WorkerRunner) -> None:
    """Tell the master if the servers cannot be reached from here, as loopback cannot from afar."""
    try:
        check_reachable(current.client)
    except RefusedError as error:
        runner.send_message("shardcache-failed", {"error": str(error)})


def _hear_of_failure(environment: Environment, msg: Message, **_: Any) -> None:
    """Stop the run because a worker could not take part in it."""
    index = environment.runner.get_worker_index(msg.node_id)
    _end_refused(f"worker {index} cannot take part: {msg.data['error']}")


def _end_refused(why: str) -> None:
    """End a run that is not valid any more, and print why."""
    if director is None or director.refused:
        return
    director.refused = why
    environment = director.environment
    log.error("%s", why)
    environment.process_exit_code = REFUSED
    web_tab.refuse(why)
    gevent.spawn(environment.runner.stop if environment.web_ui else environment.runner.quit)
