"""The MCP server, with the protocol's own Python client and with what that client would not send."""

import asyncio
import uuid

import pytest
from mcp import Client, ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError


@pytest.fixture(params=["/mcp", "/v1/mcp"])
def url(request, base_url):
    return base_url + request.param


def test_the_real_client_lists_and_calls_tools(url):
    async def talk():
        async with streamable_http_client(url) as (read, write, *_):
            async with ClientSession(read, write) as session:
                hello = await session.initialize()
                assert hello.server_info.name == "stockade-agent" and hello.capabilities.tools is not None
                assert hello.protocol_version == "2025-11-25"
                await session.send_ping()
                tools = {tool.name: tool for tool in (await session.list_tools()).tools}
                assert tools["shell_exec"].input_schema["required"] == ["command"]
                path = f"/tmp/mcp-{uuid.uuid4()}"
                written = await session.call_tool("file_write", {"file": path, "content": "ü"})
                assert not written.is_error and written.structured_content["bytes_written"] == 2
                ran = await session.call_tool("shell_exec", {"command": f"cat {path}; rm {path}"})
                assert ran.structured_content["output"] == "ü" and ran.content[0].type == "text"
                failed = await session.call_tool("file_read", {"file": path})
                assert failed.is_error and "No such file" in failed.content[0].text
                with pytest.raises(MCPError, match="no tool"):
                    await session.call_tool("nothing", {})

    asyncio.run(talk())


def test_a_client_that_probes_for_newer_protocols_falls_back(url):
    async def talk():
        async with Client(url) as client:
            result = await client.call_tool("code_execute", {"language": "python", "code": "print(6 * 7)"})
            assert result.structured_content["stdout"] == "42\n"

    asyncio.run(talk())


def call(http, body, **headers):
    return http.post("/mcp", json=body, headers={"accept": "application/json, text/event-stream", **headers})


@pytest.mark.parametrize("asked, told", [("2024-11-05",) * 2, ("2025-03-26",) * 2, ("2025-06-18",) * 2, ("1999-01-01", "2025-11-25")])
def test_the_version_is_the_clients_when_it_is_known(http, asked, told):
    body = {"jsonrpc": "2.0", "id": "a", "method": "initialize", "params": {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}}
    answer = call(http, body)
    assert answer.json()["result"]["protocolVersion"] == told and answer.json()["id"] == "a"
    assert "mcp-session-id" not in answer.headers


def test_notifications_are_accepted_without_an_answer(http):
    for body in ({"jsonrpc": "2.0", "method": "notifications/initialized"}, {"jsonrpc": "2.0", "id": 1, "result": {}}):
        answer = call(http, body)
        assert (answer.status_code, answer.content) == (202, b"")


def test_there_is_no_stream_and_no_session(http):
    for answer in (http.get("/mcp", headers={"accept": "text/event-stream"}), http.delete("/mcp", headers={"mcp-session-id": "x"})):
        assert answer.status_code == 405 and answer.headers["allow"] == "POST"


def test_the_version_header_is_checked(http):
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    assert call(http, ping, **{"mcp-protocol-version": "2025-06-18"}).json()["result"] == {}
    assert call(http, ping, **{"mcp-protocol-version": "2031-01-01"}).status_code == 400


@pytest.mark.parametrize(
    "body, code",
    [
        ({"jsonrpc": "2.0", "id": 1, "method": "resources/list"}, -32601),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/call"}, -32602),
        ({"jsonrpc": "1.0", "id": 1, "method": "ping"}, -32600),
        ({"jsonrpc": "2.0", "id": None, "method": "ping"}, -32600),
        ({"jsonrpc": "2.0", "id": {"a": 1}, "method": "ping"}, -32600),
        ("text", -32600),
        ([{"jsonrpc": "2.0", "id": 1, "method": "ping"}] * 65, -32600),
    ],
)
def test_bad_messages_are_json_rpc_errors(http, body, code):
    assert call(http, body).json()["error"]["code"] == code


def test_a_batch_is_answered_in_order(http):
    batch = [{"jsonrpc": "2.0", "id": 1, "method": "ping"}, {"jsonrpc": "2.0", "method": "x"}, {"jsonrpc": "2.0", "id": 2, "method": "ping"}]
    assert [answer["id"] for answer in call(http, batch).json()] == [1, 2]
