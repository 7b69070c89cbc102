"""One process plays one run after another, however the first one ended."""

from __future__ import annotations

import pytest

from browser.runs import TAB, is_over, verdict, watch


@pytest.fixture(params=[0, 2], ids=["alone", "two workers"], autouse=True)
def _form(request, page, run_locust):
    with run_locust(workers=request.param) as url:
        page.open(url)
        yield


def test_a_run_that_cannot_begin_says_why_and_the_next_one_can(page):
    """The tab names a mistake in the form, with the right values; a second try works."""
    page.fill(profile="kettle")
    page.start()
    page.look_at(TAB)
    (refused,) = page.wait_for_rows(lambda rows: verdict(rows) == "refused")
    assert "no profile 'kettle' (known: counters, deletes, hot-keys, " in refused[1]
    page.open_new_form()
    page.fill(profile="hot-keys")
    page.start()
    live, after = watch(page)
    assert "profile hot-keys" in live[0][0]
    assert verdict(after) == "holds"


def test_one_run_follows_another(page):
    """A second run neither ends at once nor shows the rows of the first one."""
    page.start()
    first = watch(page)
    page.open_new_form()
    page.fill(userCount="2")
    page.start()
    second = watch(page)
    assert [verdict(first.after), verdict(second.after)] == ["holds", "holds"]
    assert "2 users" in second.after[0][0]


def test_a_run_that_is_stopped_says_so(page):
    """After STOP the verdict says that the run was not played to its end."""
    page.start()
    page.look_at(TAB)
    page.wait_for_rows(lambda rows: verdict(rows) == "running")
    page.button("STOP").click()
    rows = page.wait_for_rows(lambda rows: verdict(rows) == "stopped")
    assert rows[0][1].startswith("after ")


def test_the_example_application_can_be_visited_again(page):
    """The address of an application that has ended is not used as the host of the next run."""
    page.fill(scenario="app")
    page.start()
    watch(page)
    page.browser.refresh()
    page.open_new_form()
    page.fill(scenario="app")
    page.start()
    live, _ = watch(page)
    assert live[0][0].startswith("app on memcached")


def test_a_form_that_is_sent_again_does_not_disturb_a_run(page):
    """A run continues as it began, whatever another user chooses meanwhile."""
    page.start()
    page.look_at(TAB)
    page.wait_for_rows(lambda rows: verdict(rows) == "running")
    page.send(user_count="9", spawn_rate="9", profile="kettle")
    rows = page.wait_for_rows(is_over)
    assert "profile read-mostly, 4 users" in rows[0][0]
    assert verdict(rows) == "holds"
