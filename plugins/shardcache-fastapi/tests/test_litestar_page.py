"""The application on the page about Litestar runs under uvicorn, and answers as the page shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from shardcache.testing.servers import Server, free_port
from shardcache.testing.waiting import eventually

pytestmark = pytest.mark.servers

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "litestar.md"
PATIENCE = 20  # seconds for a call: how busy this machine is must not decide


@pytest.fixture
def nodes(make_memcached: Callable[[], Server]) -> list[Server]:
    """Return three servers of the test's own."""
    return [make_memcached() for _ in range(3)]


@pytest.fixture
def get(tmp_path: Path, nodes: list[Server]) -> Iterator[Callable[[str], str]]:
    """Yield a function that fetches a path, as one browser, from the application on three memcacheds."""
    text = PAGE.read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(# app\.py\n.*?)^```", text, re.MULTILINE | re.DOTALL)
    before, found, after = program.partition("clearable=True)")
    assert found
    program = f"{before}clearable=True, timeout={PATIENCE}){after}"
    (tmp_path / "app.py").write_text(program, encoding="utf-8")
    port = free_port()
    hosts = ",".join(f"{server.host}:{server.port}" for server in nodes)
    cookies = urllib.request.HTTPCookieProcessor(CookieJar())
    browser = urllib.request.build_opener(cookies)

    def fetch(path: str) -> str:
        with browser.open(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.read().decode()

    def answers() -> bool:
        with suppress(OSError):
            return bool(fetch("/healthz"))
        return False

    with subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--workers=2", f"--port={port}", "app:app"],
        cwd=tmp_path,
        env={**os.environ, "SHARDCACHE_URL": f"memcached://{hosts}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as application:
        try:
            eventually(answers, within=30)
            yield fetch
        finally:
            application.terminate()


def test_the_application_answers_as_shown(get, nodes):
    """Before a node dies, and after: each request is answered."""
    text = PAGE.read_text(encoding="utf-8")
    assert get("/reports/7") == get("/reports/7") == '{"number":7,"sales":700}'
    assert '\n{"number":7,"sales":700}0.' in text
    assert len({get("/") for _ in range(4)}) == 1
    assert [get("/visits") for _ in range(2)] == ['{"visits":1}', '{"visits":2}']
    assert '\n{"visits":1}{"visits":2}\n' in text
    dead = nodes[1]
    dead.kill()
    for number in range(1, 9):
        assert json.loads(get(f"/reports/{number}"))["sales"] == 100 * number
        assert get("/").startswith("rendered at ")
        assert get("/visits").startswith('{"visits":')
    ejected = f'{{"ejected":["{dead.host}:{dead.port}"]}}'
    assert get("/healthz") == ejected
    assert ejected.replace(str(dead.port), "11312") in text
