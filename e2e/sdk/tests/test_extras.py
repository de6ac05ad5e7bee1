"""The smaller groups: editor, watch, MCP, packages, hooks, skills, Markdown, tickets, documents."""

import io
import json
import threading
import time
import uuid
import zipfile

import pydantic
import pytest
from agent_sandbox.core.api_error import ApiError
from agent_sandbox.errors.unprocessable_entity_error import UnprocessableEntityError
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

FAILED = pydantic.ValidationError


def test_editor_views_edits_and_undoes(api, directory):
    path = f"{directory}/e.txt"

    def edit(command, **options):
        return api.file.str_replace_editor(command=command, path=path, **options).data

    created = edit("create", file_text="one\ntwo\nthree\n")
    assert not created.prev_exist and created.new_content == "one\ntwo\nthree\n"
    with pytest.raises(FAILED):
        edit("create", file_text="again")
    assert "     2\ttwo\n     3\tthree" in edit("view", view_range=[2, -1]).output
    replaced = edit("str_replace", old_str="two", new_str="2")
    assert (replaced.old_content, replaced.new_content) == ("one\ntwo\nthree\n", "one\n2\nthree\n")
    assert edit("insert", insert_line=0, new_str="zero").new_content == "zero\none\n2\nthree\n"
    assert edit("insert", insert_line=4, new_str="four").new_content.endswith("three\nfour")
    for bad in ({"old_str": "absent", "new_str": ""}, {"old_str": "e", "new_str": ""}, {"new_str": "x"}):
        with pytest.raises(FAILED):
            edit("str_replace", **bad)
    assert edit("str_replace", old_str="o", new_str="O", replace_mode="LAST").new_content.endswith("fOur")
    assert edit("str_replace", old_str="o", new_str="O", replace_mode="ALL").new_content == "zerO\nOne\n2\nthree\nfOur"
    for _ in range(5):
        undone = edit("undo_edit")
    assert undone.new_content == "one\ntwo\nthree\n"
    edit("undo_edit")
    with pytest.raises(FAILED):
        edit("undo_edit")
    assert directory in api.file.str_replace_editor(command="view", path=directory).data.output
    for bad in ([0, 1], [3, 2], [1], [1, 2, 3]):
        api.file.write_file(file=path, content="a\nb\n")
        with pytest.raises(FAILED):
            edit("view", view_range=bad)


def test_watch_tells_of_changes(api, directory):
    watcher = api.file.watch_create(path=directory, debounce=50)["watcher_id"]
    api.bash.exec(exec_dir=directory, command="mkdir sub; sleep 0.3; echo x > sub/a; sleep 0.3; mv sub/a sub/b; sleep 0.3; rm sub/b")
    seen, cursor, end = [], 0, time.monotonic() + 10
    while time.monotonic() < end and ("remove", "sub/b") not in seen:
        answer = api.file.watch_poll(watcher, since=cursor, timeout=2, limit=100)
        cursor = answer["cursor"]
        seen += [(event["type"], event["relative_path"]) for event in answer["events"]]
    assert {("create", "sub"), ("create", "sub/a"), ("write", "sub/a"), ("rename", "sub/b"), ("remove", "sub/b")} <= set(seen), seen
    assert api.file.watch_poll(watcher, since=cursor)["events"] == []
    assert watcher in [known["watcher_id"] for known in api.file.watch_list()["watchers"]]
    api.file.watch_stop(watcher)
    with pytest.raises(ApiError):
        api.file.watch_poll(watcher)


def test_watch_wait_and_events(api, http, directory):
    api.file.write_file(file=f"{directory}/here", content="x")
    assert api.file.watch_wait(path=f"{directory}/here", event_types=["create"], timeout=5)["event"]["type"] == "create"
    threading.Timer(0.4, lambda: http.post("/v1/file/write", json={"file": f"{directory}/new", "content": "x"})).start()
    assert api.file.watch_wait(path=f"{directory}/new", timeout=10)["event"]["path"] == f"{directory}/new"
    with pytest.raises(ApiError):
        api.file.watch_wait(path=f"{directory}/never", timeout=1)
    watcher = api.file.watch_create(path=directory, debounce=50)["watcher_id"]
    with http.stream("GET", f"/v1/file/watch/{watcher}/events") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: watch_started"
        http.post("/v1/file/write", json={"file": f"{directory}/sent", "content": "x"})
        data = next(line for line in lines if line.startswith("data:") and "sent" in line)
        assert json.loads(data[5:])["path"] == f"{directory}/sent"
    api.file.watch_stop(watcher)


def test_mcp_tools_over_the_routes(api):
    assert api.mcp.list_mcp_servers().data == ["sandbox"]
    tools = {tool.name: tool for tool in api.mcp.list_mcp_tools("sandbox").data.tools}
    assert {"shell_exec", "file_read", "code_execute"} <= set(tools) and tools["shell_exec"].input_schema["required"] == ["command"]
    result = api.mcp.execute_mcp_tool("sandbox", "shell_exec", request={"command": "echo via mcp"}).data
    assert not result.is_error and result.structured_content["output"] == "via mcp\n" and "via mcp" in result.content[0].text
    failed = api.mcp.execute_mcp_tool("sandbox", "file_read", request={"file": "/no/such"}).data
    assert failed.is_error and "No such file" in failed.content[0].text
    for server, tool in (("nope", "shell_exec"), ("sandbox", "nope")):
        with pytest.raises(ApiError):
            api.mcp.execute_mcp_tool(server, tool, request={})


@pytest.mark.parametrize("path", ["/mcp", "/v1/mcp"])
def test_mcp_over_streamable_http(http, path):
    def ask(method, params=None, identity=1):
        body = {"jsonrpc": "2.0", "method": method, "params": params or {}} | ({"id": identity} if identity else {})
        return http.post(path, json=body, headers={"accept": "application/json, text/event-stream"})

    started = ask("initialize", {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}).json()
    assert started["result"]["protocolVersion"] == "2025-03-26" and started["result"]["serverInfo"]["name"]
    assert ask("notifications/initialized", identity=None).status_code == 202
    assert len(ask("tools/list").json()["result"]["tools"]) >= 10
    called = ask("tools/call", {"name": "file_list", "arguments": {"path": "/"}}).json()["result"]
    assert called["isError"] is False and called["structuredContent"]["total_count"] > 3
    assert ask("no/such").json()["error"]["code"] == -32601
    assert ask("tools/call", {"name": "no"}).json()["error"]["code"] == -32602


def test_packages_are_listed(api):
    assert "pip" in [package["name"] for package in api.sandbox.get_python_packages().data]
    assert isinstance(api.sandbox.get_nodejs_packages().data, list)


def test_hooks_are_registered_and_removed(api):
    name = f"h-{uuid.uuid4().hex[:8]}"
    hook = api.sandbox.register_hook(name=name, command="true", priority=5).data
    assert (hook.name, hook.event, hook.timeout, hook.priority, hook.source) == (name, "shutdown", 10, 5, "api")
    assert name in [hook.name for hook in api.sandbox.list_hooks(event="shutdown").data]
    api.sandbox.remove_hook(name)
    with pytest.raises(ApiError):
        api.sandbox.remove_hook(name)
    for bad in ({"name": "a b", "command": "x"}, {"name": "a", "command": ""}, {"name": "a", "command": "x" * 4097}):
        with pytest.raises(UnprocessableEntityError):
            api.sandbox.register_hook(**bad)


def test_skills_are_registered_read_and_forgotten(api, directory):
    name = f"skill-{uuid.uuid4().hex[:8]}"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("SKILL.md", f"---\nname: {name}\ndescription: a test\n---\n# How\n")
    result = api.skills.register_skills(file=("s.zip", archive.getvalue()), name=name).data
    assert result.count == 1 and result.registered[0].name == name
    assert name in [skill.name for skill in api.skills.list_metadata().data.skills]
    assert api.skills.list_metadata(names=name).data.skills[0].metadata["description"] == "a test"
    assert api.skills.get_content(name).data.content == "# How\n"
    assert api.skills.delete_skill(name).data.name == name
    for call in (api.skills.get_content, api.skills.delete_skill):
        with pytest.raises(ApiError):
            call(name)
    with pytest.raises(ApiError):
        api.skills.register_skills(file=("s.zip", b"not a zip"), name=name)
    api.skills.clear_skills()
    assert api.skills.list_metadata().data.skills == []


def test_documents_become_markdown(api, directory):
    api.file.write_file(file=f"{directory}/a.html", content="<html><body><h1>T</h1><p>x <b>y</b></p></body></html>")
    assert api.util.convert_to_markdown(uri=f"file://{directory}/a.html").data == "# T\n\nx **y**\n"
    api.file.write_file(file=f"{directory}/a.txt", content="as it is")
    assert api.util.convert_to_markdown(uri=f"{directory}/a.txt").data == "as it is"
    for bad in ("ftp://x", "relative"):
        with pytest.raises(UnprocessableEntityError):
            api.util.convert_to_markdown(uri=bad)


def test_tickets_and_authentication(api):
    assert api.auth.create_ticket()["expires_in"] > 0
    assert api.auth.authenticate()["status"] == "ok"


def test_the_api_describes_itself(http):
    document = http.get("/v1/openapi.json").json()
    assert document["openapi"].startswith("3.1.") and "/v1/shell/exec" in document["paths"]
    # Also that no operation has the name of another.
    OpenAPIV31SpecValidator(document).validate()
    for page in ("/v1/docs", "/index.html", "/llms.txt"):
        assert "/v1/shell/exec" in http.get(page).text
    # What is described is there: no route answers that it does not exist.
    for path, item in document["paths"].items():
        for method in item:
            url = path.replace("{", "").replace("}", "")
            if (method, path) in (("get", "/v1/shell/ws"), ("delete", "/v1/shell/sessions"), ("delete", "/v1/skills"), ("delete", "/v1/jupyter/sessions")):
                continue
            answer = http.request(method, url, content=b"" if method == "get" else b"[]", headers={"content-type": "application/json"})
            assert "there is no route" not in answer.text and answer.status_code != 405, (method, path)


def test_answers_are_as_described(http, directory):
    document = http.get("/v1/openapi.json").json()
    path = f"{directory}/a.txt"
    session = http.post("/v1/bash/exec", json={"command": "echo x"}).json()["data"]["session_id"]
    shell = http.post("/v1/shell/exec", json={"command": "echo x"}).json()["data"]["session_id"]
    calls = [
        ("/v1/shell/exec", {"command": "echo x; exit 3"}),
        ("/v1/shell/view", {"id": shell}),
        ("/v1/shell/wait", {"id": shell}),
        ("/v1/shell/kill", {"id": shell}),
        ("/v1/bash/exec", {"command": "echo x; sleep 5", "timeout": 0.1}),
        ("/v1/bash/output", {"session_id": session, "encoding": "base64"}),
        ("/v1/file/write", {"file": path, "content": "x\n"}),
        ("/v1/file/read", {"file": path}),
        ("/v1/file/read", {"file": f"{directory}/absent"}),
        ("/v1/file/find", {"path": directory, "glob": "*"}),
        ("/v1/file/grep", {"path": directory, "pattern": "x"}),
        ("/v1/file/grep", {"path": directory, "pattern": "("}),
        ("/v1/file/glob", {"path": directory, "pattern": "*"}),
        ("/v1/file/list", {"path": directory, "include_permissions": True}),
        ("/v1/file/search", {"file": path, "regex": "x"}),
        ("/v1/file/replace", {"file": path, "old_str": "x", "new_str": "y"}),
        ("/v1/file/str_replace_editor", {"command": "view", "path": path}),
        ("/v1/code/execute", {"language": "python", "code": "1/0"}),
        ("/v1/sandbox/hooks", {"name": "described", "command": "true"}),
        ("/v1/shell/exec", {}),
        ("/v1/shell/exec", {"id": "no-such", "command": "true"}),
    ]
    for route, body in calls:
        answer = http.post(route, json=body)
        responses = document["paths"][route]["post"]["responses"]
        response = responses[str(answer.status_code)]
        if "$ref" in response:
            response = document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
        schema = response["content"]["application/json"]["schema"] | {"components": document["components"]}
        problems = [error.message for error in OAS31Validator(schema).iter_errors(answer.json())]
        assert not problems, (route, body, problems)
        data = answer.json()["data"]
        if answer.status_code == 200 and answer.json()["success"]:
            described = schema["oneOf"][0] if "oneOf" in schema else schema["allOf"][1]
            assert set(data) == set(described["properties"]["data"]["properties"]), route
    http.delete("/v1/sandbox/hooks/described")
