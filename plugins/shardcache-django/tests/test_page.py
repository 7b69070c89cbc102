"""The project on the page about Django runs, and answers as the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shardcache.testing.servers import free_port
from shardcache.testing.waiting import eventually

pytestmark = pytest.mark.servers

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "django.md"


@pytest.fixture
def get(tmp_path: Path, memcached_cluster) -> Iterator[Callable[[str], str]]:
    """Yield a function that fetches a path from the project, which runs over two memcacheds."""
    (program,) = re.findall(
        r"^```python\n(import os\n.*?)^```",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    (tmp_path / "shop.py").write_text(program, encoding="utf-8")
    port = free_port()
    hosts = ",".join(f"{server.host}:{server.port}" for server in memcached_cluster)

    def fetch(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.read().decode()

    def answers() -> bool:
        with suppress(OSError):
            return bool(fetch("/healthz"))
        return False

    with subprocess.Popen(
        [sys.executable, "shop.py", "runserver", "--noreload", f"127.0.0.1:{port}"],
        cwd=tmp_path,
        env={**os.environ, "SHARDCACHE_URL": f"memcached://{hosts}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as project:
        try:
            eventually(answers, within=30)
            yield fetch
        finally:
            project.kill()


def test_the_project_answers_as_shown(get, memcached_cluster):
    """Before a node dies, and after."""
    text = PAGE.read_text(encoding="utf-8")
    assert get("/reports/7") == '{"number": 7, "sales": 700}'
    assert '\n{"number": 7, "sales": 700}\n' in text
    assert get("/") == get("/")
    dead = memcached_cluster[1]
    dead.kill()
    for number in range(1, 21):
        assert get(f"/reports/{number}") == f'{{"number": {number}, "sales": {100 * number}}}'
    ejected = f'{{"status": "ok", "ejected": ["{dead.host}:{dead.port}"]}}'
    assert get("/healthz") == ejected
    assert ejected.replace(str(dead.port), "11212") in text
