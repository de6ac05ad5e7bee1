"""What ends with a command, by every route that ends one, and what does not."""

import time
import uuid

import httpx
import pytest

# Each leaves processes that sleep as long as the test's mark says, in a way in which processes get away from signals to
# a group, a session, or the children of whoever is killed.
SHAPES = {
    "a process group": 'timeout 1000 sh -c "sleep MARK & sleep MARK"',
    "a session": "sh -c 'setsid sleep MARK & sleep MARK'",
    "a double fork": "sh -c \"(setsid sh -c 'sleep MARK & sleep MARK' &); sleep MARK\"",
    "nohup": "nohup sh -c 'sleep MARK & sleep MARK' > /dev/null 2>&1",
    "deaf": "sh -c \"trap '' HUP INT TERM; sleep MARK; sleep MARK\"",
    "stopped": "sh -c 'sleep MARK & until grep -q sleep /proc/$!/comm; do :; done; kill -STOP $!; sleep MARK'",
    "no environment": "env -i setsid -w sleep MARK",
    "ever more": "sh -c 'while :; do (setsid sleep MARK &); sleep 0.02; done'",
}
ROUTES = ["shell", "bash"]


class Box:
    def __init__(self, http):
        self.http = http
        # Fractions of a second tell them apart.
        self.mark = f"1000.{uuid.uuid4().int % 10**12:012}"

    def post(self, path, **body):
        answer = self.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def session(self, route):
        identity = str(uuid.uuid4())
        self.post(f"/v1/{route}/sessions/create", id=identity, session_id=identity)
        return identity

    def run(self, route, session, command, **options):
        command = command.replace("MARK", self.mark)
        return self.post(f"/v1/{route}/exec", id=session, session_id=session, command=command, **options)

    def count(self, mark=None):
        """How many sleep."""
        found = self.post("/v1/bash/exec", command=f"pgrep -fc '^sleep {mark or self.mark}$'")
        return int(found["stdout"])

    def until_there_are(self, number):
        end = time.monotonic() + 30
        while self.count() < number:
            assert time.monotonic() < end, f"{self.count()} of {number} processes were started"

    def status(self, route, session):
        if route == "shell":
            return self.post("/v1/shell/view", id=session)["status"]
        return self.post("/v1/bash/output", session_id=session)["command"]["status"]

    def until_ended(self, route, session):
        end = time.monotonic() + 30
        while self.status(route, session) == "running":
            assert time.monotonic() < end, "the command runs on"
        return self.status(route, session)

    def close(self, route, session):
        if route == "shell":
            assert self.http.delete(f"/v1/shell/sessions/{session}").status_code == 200
        else:
            self.post(f"/v1/bash/sessions/{session}/close")


@pytest.fixture
def box(http):
    box = Box(http)
    yield box
    box.post("/v1/bash/exec", command=f"pkill -KILL -f '^sleep {box.mark}'")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_kill_ends_all_that_the_command_has_started(box, route, shape):
    session = box.session(route)
    box.run(route, session, SHAPES[shape], async_mode=True)
    box.until_there_are(1 if shape in ("no environment", "deaf") else 2)
    box.post(f"/v1/{route}/kill", id=session, session_id=session, signal="SIGKILL")
    assert box.until_ended(route, session) == ("terminated" if route == "shell" else "killed")
    assert box.count() == 0
    box.close(route, session)


@pytest.mark.parametrize("route", ROUTES)
def test_a_hard_timeout_ends_all_that_the_command_has_started(box, route):
    session = box.session(route)
    # In the front: top-level jobs of a session's shell would stay.
    everything = "( " + " & ".join(SHAPES.values()) + " & wait )"
    box.run(route, session, everything, async_mode=True, hard_timeout=3)
    box.until_there_are(8)
    assert box.until_ended(route, session) == ("hard_timeout" if route == "shell" else "timed_out")
    assert box.count() == 0
    box.close(route, session)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("has_ended", [False, True])
def test_the_end_of_a_session_ends_what_its_commands_have_started(box, route, has_ended):
    session = box.session(route)
    last = "true" if has_ended else "sleep MARK"
    box.run(route, session, f"sleep MARK & (setsid nohup sleep MARK > /dev/null 2>&1 &); {last}", async_mode=True)
    box.until_there_are(2 if has_ended else 3)
    box.close(route, session)
    assert box.count() == 0


@pytest.mark.parametrize("route", ROUTES)
def test_a_normal_end_ends_nothing(box, route):
    session = box.session(route)
    command = "sleep MARK > /dev/null 2>&1 & (setsid sleep MARK > /dev/null 2>&1 &)"
    assert box.run(route, session, command)["status"] == "completed"
    box.until_there_are(2)
    assert box.run(route, session, "true")["status"] == "completed"
    assert box.count() == 2
    box.close(route, session)


def test_jobs_of_the_shell_and_what_was_there_before_outlive_the_timeout_of_another_command(box):
    session = box.session("shell")
    box.run("shell", session, "sleep MARK & (setsid sleep MARK &); sh -c 'sleep MARK & wait' &")
    box.until_there_are(3)
    ended = box.run("shell", session, "sh -c 'sleep MARK1 & sleep MARK1'", hard_timeout=0.5)
    assert ended["status"] == "hard_timeout"
    assert (box.count(), box.count(box.mark + "1")) == (3, 0)
    assert box.run("shell", session, "jobs -r | wc -l")["output"].strip() == "2"
    box.close("shell", session)


def test_jobs_that_the_command_itself_gave_the_shell_outlive_its_end(box):
    session = box.session("shell")
    box.run("shell", session, "sleep MARK & sleep MARK1", async_mode=True)
    box.until_there_are(1)
    box.post("/v1/shell/kill", id=session)
    assert box.until_ended("shell", session) == "terminated"
    assert (box.count(), box.count(box.mark + "1")) == (1, 0)
    assert box.run("shell", session, "kill %1; wait; echo alive")["output"].endswith("alive\n")
    box.close("shell", session)


def test_a_command_that_heeds_a_signal_by_ending_takes_along_what_it_started(box):
    session = box.session("bash")
    box.run("bash", session, "trap 'exit 3' TERM; (setsid sleep MARK &); sleep MARK & wait", async_mode=True)
    box.until_there_are(2)
    box.post("/v1/bash/kill", session_id=session)
    box.until_ended("bash", session)
    assert box.post("/v1/bash/output", session_id=session)["command"]["exit_code"] == 3
    assert box.count() == 0
    box.close("bash", session)


def test_a_reader_whose_connection_breaks_takes_along_all_that_the_command_has_started(box):
    session = box.session("bash")
    box.run("bash", session, SHAPES["a double fork"], async_mode=True, backpressure=True)
    box.until_there_are(2)
    with pytest.raises(httpx.ReadTimeout):
        box.http.post("/v1/bash/output", json={"session_id": session, "wait_for_end": True}, timeout=1)
    broken = time.monotonic()
    # Not asked for its output meanwhile: that would be a reader again.
    while box.count() > 0:
        pass
    # Without a broken connection it takes fifteen seconds.
    assert time.monotonic() - broken < 10
    assert box.status("bash", session) == "killed"
    box.close("bash", session)
