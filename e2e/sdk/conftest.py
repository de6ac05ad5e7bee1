"""The sandbox under test: its base URL comes from STOCKADE_SANDBOX_URL.

Several URLs, with spaces between them, are for as many workers of pytest-xdist: each has a sandbox
to itself, because some tests close all sessions of theirs.

Every test drives the synchronous and the asynchronous client of agent-sandbox alike. `api` is
either; the methods of the asynchronous one are run to completion, so that a test reads the same.
Files are made and looked at through the API only: the sandbox may be on another machine.
"""

import asyncio
import inspect
import os
import uuid

import httpx
import pytest
from agent_sandbox import AsyncSandbox, Sandbox


@pytest.fixture(scope="session")
def base_url():
    urls = os.environ.get("STOCKADE_SANDBOX_URL", "").split()
    if not urls:
        pytest.exit("STOCKADE_SANDBOX_URL is not set; it is the base URL of a running sandbox agent", 2)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    if worker >= len(urls):
        pytest.exit(f"more workers than the {len(urls)} sandboxes of STOCKADE_SANDBOX_URL; run with -n {len(urls)}", 2)
    return urls[worker].rstrip("/")


@pytest.fixture
def agent_port(base_url):
    """Where the agent listens in the sandbox; STOCKADE_SANDBOX_PORT says so where the URL has another port."""
    return os.environ.get("STOCKADE_SANDBOX_PORT") or base_url.rsplit(":", 1)[1]


class Blocking:
    """An asynchronous client, or a part of one, whose coroutines are awaited by the caller's thread."""

    def __init__(self, inner, loop):
        self._inner = inner
        self._loop = loop

    def __getattr__(self, name):
        value = getattr(self._inner, name)
        if inspect.isasyncgenfunction(value):
            return lambda *args, **kwargs: self._collect(value(*args, **kwargs))
        if callable(value):
            def call(*args, **kwargs):
                result = value(*args, **kwargs)
                if inspect.isasyncgen(result):
                    return self._collect(result)
                return self._loop.run_until_complete(result)
            return call
        return Blocking(value, self._loop)

    def _collect(self, generator):
        async def collect():
            return [item async for item in generator]
        return self._loop.run_until_complete(collect())


@pytest.fixture(params=["sync", "async"])
def api(request, base_url):
    if request.param == "sync":
        yield Sandbox(base_url=base_url)
        return
    loop = asyncio.new_event_loop()
    client = httpx.AsyncClient(timeout=60)
    yield Blocking(AsyncSandbox(base_url=base_url, httpx_client=client), loop)
    loop.run_until_complete(client.aclose())
    loop.close()


@pytest.fixture
def http(base_url):
    """Requests the SDK would not make."""
    with httpx.Client(base_url=base_url, timeout=60) as client:
        yield client


@pytest.fixture
def session(api):
    """A shell session of its own, closed afterwards."""
    identity = str(uuid.uuid4())
    api.shell.create_session(id=identity)
    yield identity
    try:
        api.shell.cleanup_session(identity)
    except Exception:  # noqa: BLE001 - the test may have closed it already
        pass


@pytest.fixture
def directory(api):
    """A fresh directory in the sandbox."""
    path = f"/tmp/sdk-{uuid.uuid4()}"
    api.bash.exec(command=f"mkdir -p {path}")
    yield path
    api.bash.exec(command=f"chmod -R u+rwx {path}; rm -rf {path}")
