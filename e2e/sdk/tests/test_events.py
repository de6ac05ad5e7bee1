"""Output as it comes: server-sent events on exec and view."""

import json
import uuid

import pytest

CALLS = [("/v1/shell/exec", "output"), ("/v1/bash/exec", "stdout")]


def follow(http, route, body):
    """The events of an answer, each a name and its data, as they come."""
    with http.stream("POST", route, json=body, headers={"accept": "text/event-stream"}) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        name = None
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


@pytest.mark.parametrize("route, stream", CALLS)
def test_output_comes_while_the_command_runs(http, directory, route, stream):
    command = f"echo \u00e4rste; until [ -e {directory}/go ]; do sleep 0.02; done; echo letzte; exit 3"
    events = follow(http, route, {"command": command})
    assert next(events) == ("output", {stream: "\u00e4rste\n"})
    http.post("/v1/file/write", json={"file": f"{directory}/go", "content": ""})
    assert next(events) == ("output", {stream: "letzte\n"})
    name, result = next(events)
    assert name == "result" and set(result) == {"success", "message", "data", "hint"}
    assert (result["data"][stream], result["data"]["exit_code"]) == ("\u00e4rste\nletzte\n", 3)
    assert list(events) == []


@pytest.mark.parametrize("route, stream", CALLS)
def test_nothing_is_lost_of_a_megabyte(http, route, stream):
    events = list(follow(http, route, {"command": "seq 150000"}))
    told = "".join(data.get(stream, "") for name, data in events if name == "output")
    assert told == "".join(f"{number}\n" for number in range(1, 150001))


def test_the_two_streams_are_told_apart(http):
    events = list(follow(http, "/v1/bash/exec", {"command": "echo out; echo err >&2"}))
    assert [data["stdout"] for _, data in events if "stdout" in data] == ["out\n"]
    assert [data["stderr"] for _, data in events if "stderr" in data] == ["err\n"]


def test_a_view_follows_the_command_in_progress(http):
    session = str(uuid.uuid4())
    http.post("/v1/shell/sessions/create", json={"id": session})
    http.post("/v1/shell/exec", json={"id": session, "command": "echo one; sleep 0.5; echo two", "async_mode": True})
    events = list(follow(http, "/v1/shell/view", {"id": session}))
    assert "".join(data["output"] for name, data in events if name == "output") == "one\ntwo\n"
    assert events[-1] == ("result", http.post("/v1/shell/view", json={"id": session}).json())
    http.delete(f"/v1/shell/sessions/{session}")


def test_who_also_takes_json_gets_json(http):
    answer = http.post("/v1/shell/exec", json={"command": "echo x"}, headers={"accept": "application/json, text/event-stream"})
    assert answer.json()["data"]["output"] == "x\n"
    unknown = http.post("/v1/shell/exec", json={"command": "true", "id": "no-such"}, headers={"accept": "text/event-stream"})
    assert unknown.status_code == 404 and unknown.json()["success"] is False
