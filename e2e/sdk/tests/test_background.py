"""What commands leave running, and the sessions they ran in."""

import time
import uuid

import pytest

ROUTES = ["shell", "bash"]
# More calls that name no session than idle sessions are kept.
CALLS = 24


def post(http, path, **body):
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def push_out(http, route):
    """Calls without a session, each with one of its own, until the earlier ones had to go."""
    for _ in range(CALLS):
        assert post(http, f"/v1/{route}/exec", command="true")["status"] == "completed"


def until(http, test, seconds=30):
    """Waits until a command of the sandbox succeeds."""
    end = time.monotonic() + seconds
    while post(http, "/v1/bash/exec", command=test)["exit_code"] != 0:
        assert time.monotonic() < end, f"not within {seconds} s: {test}"


@pytest.fixture
def place(http):
    path = f"/tmp/background-{uuid.uuid4()}"
    post(http, "/v1/bash/exec", command=f"mkdir {path}")
    yield path
    # What counts lines ends without its directory.
    post(http, "/v1/bash/exec", command=f"rm -rf {path}")


# Each prints a line again and again, where it stands and into a file: one that is hung up or cannot print ends. It ends
# as well when its directory is gone.
PRINTER = "while echo alive; do echo x >> PLACE/lines || exit; sleep 0.05; done 2> /dev/null"
STARTS = {
    "a job": "{ PRINTER; } &",
    "a job of a subshell": "( { PRINTER; } & )",
    "from a substitution": "X=$( { PRINTER; } > /dev/null & )",
    "a session of its own": "setsid bash -c 'PRINTER' &",
    "as the last act of a shell": "{ PRINTER; } & exit 0",
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("start", STARTS)
def test_a_server_that_was_started_without_a_session_outlives_the_session(http, place, route, start):
    command = STARTS[start].replace("PRINTER", PRINTER).replace("PLACE", place)
    started = post(http, f"/v1/{route}/exec", command=command, timeout=20)
    assert started["status"] == "completed", started
    until(http, f"test -s {place}/lines")
    push_out(http, route)
    gone = {"id": started["session_id"], "session_id": started["session_id"], "command": "true"}
    answer = http.post(f"/v1/{route}/exec", json=gone)
    assert answer.status_code == 404
    message = answer.json()["message"]
    assert message.startswith("Session not found") and "s idle, to make room for another" in message
    # It still prints.
    post(http, "/v1/bash/exec", command=f"rm {place}/lines")
    until(http, f"test -s {place}/lines")


def test_a_session_with_a_name_of_its_own_is_not_pushed_out(http):
    name = str(uuid.uuid4())
    post(http, "/v1/shell/sessions/create", id=name)
    push_out(http, "shell")
    assert post(http, "/v1/shell/exec", id=name, command="echo here")["output"] == "here\n"
    http.delete(f"/v1/shell/sessions/{name}")


def test_what_floods_its_terminal_enters_no_other_call_s_answer(http):
    flood = post(http, "/v1/shell/exec", command="yes flood & echo $!")
    pid = next(line for line in flood["output"].splitlines() if line.isdigit())
    for _ in range(CALLS):
        assert post(http, "/v1/shell/exec", command="echo mine")["output"] == "mine\n"
    assert post(http, "/v1/bash/exec", command=f"kill {pid}")["exit_code"] == 0


def test_sessions_in_which_something_runs_are_counted_apart_from_idle_ones(http):
    assert http.delete("/v1/shell/sessions").status_code == 200
    names = [str(uuid.uuid4()) for _ in range(3)]
    for name in names:
        post(http, "/v1/shell/sessions/create", id=name)
    before = http.get("/v1/shell/sessions/stats").json()["data"]
    post(http, "/v1/shell/exec", id=names[0], command="sleep 1000 &")
    post(http, "/v1/shell/exec", id=names[1], command="sleep 1000", async_mode=True)
    after = http.get("/v1/shell/sessions/stats").json()["data"]
    assert (before["active_sessions"], before["idle_sessions"]) == (0, 3)
    assert (after["active_sessions"], after["idle_sessions"], after["total_sessions"]) == (2, 1, 3)
    for name in names:
        http.delete(f"/v1/shell/sessions/{name}")


@pytest.mark.parametrize("route", ROUTES)
def test_a_session_that_never_was_is_not_said_to_have_ended(http, route):
    answer = http.post(f"/v1/{route}/exec", json={"id": "never", "session_id": "never", "command": "true"})
    assert (answer.status_code, answer.json()["message"]) == (404, "Session not found: never")
