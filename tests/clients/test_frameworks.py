"""A cached function is a handler, a dependency or a command wherever a plain function is."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click
import django.conf
import fastapi
import flask
import litestar
import pydantic
import pytest
import starlette.applications
import starlette.responses
import starlette.routing
import typer
from click.testing import CliRunner
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from litestar.params import FromPath
from typer.testing import CliRunner as TyperRunner

from shardcache import AsyncClient, Client, ConfigurationError

blocking = Client("memory://a,b,c")
awaiting = AsyncClient("memory://a,b,c")
calls: list[str] = []


@pytest.fixture(autouse=True)
def _forget_calls():
    calls.clear()


async def ask(app: Any, path: str, query: str = "") -> tuple[int, Any]:
    """Return the status and the JSON of an ASGI application's answer."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [],
        "client": ("test", 1),
        "server": ("test", 80),
        "state": {},
    }
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(body) if body.startswith((b"{", b"[")) else body


@blocking.cached(ttl=60)
def item(number: int, size: str = "M") -> dict[str, Any]:
    """Return an item."""
    calls.append("blocking")
    return {"number": number, "size": size}


@awaiting.cached(ttl=60)
async def awaited_item(number: int, size: str = "M") -> dict[str, Any]:
    """Return an item, when awaited."""
    calls.append("awaited")
    return {"number": number, "size": size}


class Shop:
    """An object whose cached methods are handlers."""

    def __cache_key__(self) -> str:
        return "shop"

    @blocking.cached(ttl=60)
    def item(self, number: int) -> dict[str, Any]:
        """Return an item."""
        calls.append("blocking")
        return {"number": number}

    @awaiting.cached(ttl=60)
    async def awaited_item(self, number: int) -> dict[str, Any]:
        """Return an item, when awaited."""
        calls.append("awaited")
        return {"number": number}


shop = Shop()
HANDLERS = {
    "blocking": item,
    "awaited": awaited_item,
    "blocking method": shop.item,
    "awaited method": shop.awaited_item,
}


@pytest.fixture(params=HANDLERS)
def handler(request):
    """Return each cached function, with nothing in its cache."""
    function = HANDLERS[request.param]
    done = function.invalidate_all()
    if not isinstance(done, bool):
        asyncio.run(done)
    return function


async def answers(app, path):
    """Return two answers of one question, which are to be equal."""
    first, second = await ask(app, path), await ask(app, path)
    assert first == second
    assert first[0] == 200
    assert len(calls) == 1
    return first


async def test_a_handler_of_fastapi(handler):
    """Its parameters are read, checked, and one call serves both requests."""
    app = fastapi.FastAPI()
    app.get("/items/{number}")(handler)
    status, answer = await answers(app, "/items/7")
    assert (status, answer["number"]) == (200, 7)
    assert (await ask(app, "/items/seven"))[0] == 422


async def test_a_dependency_of_fastapi(handler):
    """So it is where another handler depends on it."""
    app = fastapi.FastAPI()

    @app.get("/items/{number}")
    async def show(found=fastapi.Depends(handler)):  # noqa: B008 - as FastAPI has it
        return found

    status, answer = await answers(app, "/items/7")
    assert (status, answer["number"]) == (200, 7)


@litestar.get("/items/{number:int}", sync_to_thread=False)
@blocking.cached(ttl=60)
def litestar_item(number: FromPath[int]) -> dict[str, int]:
    """Return an item."""
    calls.append("blocking")
    return {"number": number}


@litestar.get("/awaited/{number:int}")
@awaiting.cached(ttl=60)
async def litestar_awaited_item(number: FromPath[int]) -> dict[str, int]:
    """Return an item, when awaited."""
    calls.append("awaited")
    return {"number": number}


class Items(litestar.Controller):
    """A class of handlers."""

    path = "/controller"

    @litestar.get("/{number:int}")
    @awaiting.cached(ttl=60, ignore="self")
    async def item(self, number: FromPath[int]) -> dict[str, int]:
        """Return an item, when awaited."""
        calls.append("awaited")
        return {"number": number}


@pytest.mark.parametrize("path", ["/items/7", "/awaited/7", "/controller/7"])
async def test_a_handler_of_litestar(path):
    """Its annotations are those of the function, in the function's own module."""
    app = litestar.Litestar([litestar_item, litestar_awaited_item, Items], openapi_config=None)
    assert await answers(app, path) == (200, {"number": 7})


@awaiting.cached(ttl=60, ignore="request", condition=lambda _: False)
async def page(request):
    """Return a response, which is not kept."""
    calls.append("awaited")
    return starlette.responses.JSONResponse({"path": request.url.path})


@blocking.cached(ttl=60, ignore="request", condition=lambda _: False)
def blocking_page(request):
    """Return a response, which is not kept."""
    calls.append("blocking")
    return starlette.responses.JSONResponse({"path": request.url.path})


class Pages:
    """An object whose cached methods are endpoints."""

    @awaiting.cached(ttl=60, ignore=("self", "request"), condition=lambda _: False)
    async def page(self, request):
        """Return a response, which is not kept."""
        return starlette.responses.JSONResponse({"path": request.url.path})


@pytest.mark.parametrize("endpoint", [page, blocking_page, Pages().page])
async def test_an_endpoint_of_starlette(endpoint):
    """It is called with the request, and is not taken for an ASGI application."""
    app = starlette.applications.Starlette(routes=[starlette.routing.Route("/page", endpoint)])
    assert await ask(app, "/page") == (200, {"path": "/page"})
    assert (await ask(app, "/other"))[0] == 404


def test_a_view_of_flask(handler):
    """Its name is the endpoint; the second request is a hit."""
    if handler.__name__.startswith("awaited"):
        pytest.importorskip("asgiref", reason="with which Flask awaits views")
    app = flask.Flask(__name__)
    app.get("/items/<int:number>")(handler)
    assert [*app.view_functions][-1] == handler.__name__
    for _ in range(2):
        assert app.test_client().get("/items/7").json["number"] == 7
    assert len(calls) == 1


def test_a_view_of_django():
    """A path leads to it; on a class-based view the method itself is decorated, not from outside."""
    if not django.conf.settings.configured:
        django.conf.settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="x")

    @blocking.cached(ttl=60, namespace="view", ignore="request", condition=lambda _: False)
    def view(request, number):  # noqa: ARG001 - as Django calls it
        return HttpResponse(f"{number}")

    found = path("items/<int:number>", view).resolve("items/7")
    assert found.func is view
    request = RequestFactory().get("/items/7")
    assert found.func(request, **found.kwargs).content == b"7"

    class Items(View):
        @blocking.cached(
            ttl=60, namespace="items", ignore=["self", "request"], condition=lambda _: False
        )
        def get(self, request):  # noqa: ARG002 - as above
            return HttpResponse("items")

    assert Items.as_view()(request).content == b"items"

    class Decorated(View):
        @method_decorator(blocking.cached(ttl=60, namespace="decorated"))
        def get(self, request):  # noqa: ARG002 - as above
            return HttpResponse("never")

    with pytest.raises(ConfigurationError, match=r"bound to one object.*decorate the method"):
        Decorated.as_view()(request)


def test_a_command_of_click():
    """Its parameters and help are the function's."""

    @click.command
    @click.argument("number", type=int)
    @blocking.cached(ttl=60, namespace="click")
    def show(number: int) -> None:
        """Show an item."""
        click.echo(f"item {number}")

    runner = CliRunner()
    assert runner.invoke(show, ["7"]).output == "item 7\n"
    assert "Show an item." in runner.invoke(show, ["--help"]).output
    assert show.name == "show"


def test_a_command_of_typer():
    """Its annotations are read."""
    app = typer.Typer()

    @blocking.cached(ttl=60, namespace="typer")
    def show(number: int, size: str = "M") -> None:
        """Show an item."""
        typer.echo(f"item {number + 1} {size}")

    app.command()(show)
    assert TyperRunner().invoke(app, ["7", "--size", "L"]).output == "item 8 L\n"


def test_a_method_of_a_pydantic_model():
    """It is a method there, and the call is checked by `validate_call` as a function's is."""

    class Article(pydantic.BaseModel):
        """A model with a cached method, which is no field."""

        number: int

        @property
        def __cache_key__(self) -> int:
            return self.number

        @blocking.cached(ttl=60, namespace="price")
        def price(self) -> int:
            """Return its price."""
            return 100 * self.number

    assert [*Article.model_fields] == ["number"]
    assert Article(number=3).price() == 300
    checked = pydantic.validate_call(item)
    assert checked("7") == {"number": 7, "size": "M"}
    with pytest.raises(pydantic.ValidationError):
        checked("seven")
