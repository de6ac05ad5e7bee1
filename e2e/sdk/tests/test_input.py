"""Commands that wait for input, and variables."""

import time
import uuid

import pytest

ASKED = "waits for input"


def post(http, path, **body):
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def name(http):
    name = str(uuid.uuid4())
    post(http, "/v1/shell/sessions/create", id=name)
    yield name
    http.delete(f"/v1/shell/sessions/{name}")


# How programs wait for a terminal, each with an answer that ends it.
QUESTIONS = {
    "bash reads": ("read -p 'name? ' name", "x"),
    "a program asks": ("f=$(mktemp); rm -i $f", "y"),
    "a program reads": ("head -n 1", "x"),
    "its own terminal": ("bash -c 'read x < /dev/tty' < /dev/null", "x"),
    "the middle of a pipe": ("echo x | cat - <(head -n 1 < /dev/tty) | cat", "x"),
    "a substitution": ("answer=$(head -n 1)", "x"),
    "below a program that waits": ("timeout --foreground 1000 sh -c 'sleep 1000 & read x; kill $!'", "x"),
    "select": ("python3 -c 'import select, sys; select.select([sys.stdin], [], []); input()'", "x"),
    "poll": ("python3 -c 'import select; p = select.poll(); p.register(0, select.POLLIN); p.poll(); input()'", "x"),
    "epoll": ("python3 -c 'import select; p = select.epoll(); p.register(0, select.EPOLLIN); p.poll(); input()'", "x"),
}


@pytest.mark.parametrize("kind", QUESTIONS)
def test_a_command_that_waits_for_input_says_so_and_takes_it(http, name, kind):
    command, answer = QUESTIONS[kind]
    post(http, "/v1/shell/exec", id=name, command=command, async_mode=True, hard_timeout=120)
    end = time.monotonic() + 60
    while True:
        waited = post(http, "/v1/shell/wait", id=name, max_wait_seconds=1)
        assert waited["data"]["status"] == "running", waited
        if ASKED in (waited["hint"] or ""):
            break
        assert time.monotonic() < end, waited
    assert ASKED in waited["message"] and "/v1/shell/write" in waited["hint"]
    viewed = post(http, "/v1/shell/view", id=name)
    assert viewed["data"]["status"] == "running" and ASKED in viewed["message"] and "/v1/shell/write" in viewed["hint"]
    post(http, "/v1/shell/write", id=name, input=answer, press_enter=True)
    ended = post(http, "/v1/shell/wait", id=name, max_wait_seconds=60)
    assert ended["data"]["status"] == "completed" and ended["hint"] is None
    assert ASKED not in post(http, "/v1/shell/view", id=name)["message"]


def test_a_caller_who_waits_for_the_end_is_told_of_the_question_and_not_kept(http, name):
    told = post(http, "/v1/shell/exec", id=name, command="read -p 'go on? ' x; echo $x", hard_timeout=300)
    assert told["data"]["status"] == "running" and told["data"]["exit_code"] is None
    assert told["data"]["output"] == "go on? " and ASKED in told["message"] and "/v1/shell/write" in told["hint"]
    post(http, "/v1/shell/write", id=name, input="yes", press_enter=True)
    assert post(http, "/v1/shell/wait", id=name, max_wait_seconds=60)["data"]["status"] == "completed"
    assert post(http, "/v1/shell/view", id=name)["data"]["console"][-1]["output"] == "go on? yes\n"


# None of them waits for anybody who types.
SILENT = {
    "sleep": "sleep 9",
    "a pipe": "sleep 9 | cat",
    "bash waits": "sleep 9 & wait",
    "a server": "python3 -c 'import socket; s = socket.create_server((\"127.0.0.1\", 0)); s.settimeout(9); s.accept()'",
    "a server that listens to keys": "python3 -c 'import select, socket; s = socket.create_server((\"127.0.0.1\", 0)); "
    "select.select([0, s], [], [], 9)'",
    "a job that reads": "{ read x; } & sleep 9",
    "work": "python3 -c 'import time; e = time.monotonic() + 9\nwhile time.monotonic() < e: pass'",
}


def test_silence_is_no_question(http):
    names = {kind: str(uuid.uuid4()) for kind in SILENT}
    for kind, identity in names.items():
        post(http, "/v1/shell/sessions/create", id=identity)
        post(http, "/v1/shell/exec", id=identity, command=SILENT[kind], async_mode=True)
    left = set(SILENT)
    end = time.monotonic() + 60
    while left:
        for kind in list(left):
            viewed = post(http, "/v1/shell/view", id=names[kind])
            assert ASKED not in viewed["message"], kind
            if viewed["data"]["status"] != "running":
                left.discard(kind)
        assert time.monotonic() < end, left
        time.sleep(0.2)
    for identity in names.values():
        http.delete(f"/v1/shell/sessions/{identity}")


QUIET = {"GIT_TERMINAL_PROMPT": "0", "DEBIAN_FRONTEND": "noninteractive", "PIP_NO_INPUT": "1", "npm_config_yes": "true"}


def test_programs_are_told_that_nobody_can_be_asked(http, name):
    command = "echo " + " ".join(f"${variable}" for variable in QUIET)
    expect = " ".join(QUIET.values()) + "\n"
    assert post(http, "/v1/shell/exec", id=name, command=command)["data"]["output"] == expect
    assert post(http, "/v1/bash/exec", command=command)["data"]["stdout"] == expect
    code = f"import os; print(*[os.environ[name] for name in {list(QUIET)}])"
    assert post(http, "/v1/code/execute", language="python", code=code)["data"]["stdout"] == expect
    own = {"GIT_TERMINAL_PROMPT": "1"}
    assert post(http, "/v1/bash/exec", command="echo $GIT_TERMINAL_PROMPT", env=own)["data"]["stdout"] == "1\n"


@pytest.mark.parametrize(
    "variable", ["HOME", "PS1", "PS2", "PS4", "IFS", "PROMPT_COMMAND", "TERM", "PATH", "LANG", "npm_config_yes", "a-b", "1x", "x.y"]
)
def test_variables_of_a_request_reach_its_command(http, variable):
    value = "/tmp/it's a value"
    command = f"exec /usr/bin/env | /usr/bin/grep -Fx -- \"{variable}={value}\""
    answer = post(http, "/v1/bash/exec", command=command, env={variable: value})
    assert answer["data"]["exit_code"] == 0 and answer["hint"] is None, answer


def test_a_script_for_bash_s_beginning_is_sourced(http, directory):
    post(http, "/v1/file/write", file=f"{directory}/begin", content="greeting=hello")
    answer = post(http, "/v1/bash/exec", command="echo $greeting", env={"BASH_ENV": f"{directory}/begin"})
    assert answer["data"]["stdout"] == "hello\n"


def test_lines_are_numbered_as_written_whatever_variables_are_set(http):
    answer = post(http, "/v1/bash/exec", command="true\nno_such_program_at_all", env={"PS1": "> "})
    assert "line 2: no_such_program_at_all" in answer["data"]["stderr"]


def test_variables_that_cannot_be_are_said(http):
    answer = post(http, "/v1/bash/exec", command="echo $PPID", env={"RANDOM": "4711", "PPID": "4711"})
    assert answer["data"]["stdout"] != "4711\n" and "PPID, RANDOM" in answer["hint"]
    for env, what in [
        ({"BIG": "x" * 140_000}, "BIG"),
        ({f"N{number}": "x" * 100_000 for number in range(12)}, "together"),
        ({"a=b": "x"}, "a=b"),
        ({"": "x"}, "variable"),
        ({"nul": "a\0b"}, "nul"),
    ]:
        refused = http.post("/v1/bash/exec", json={"command": "true", "env": env})
        assert refused.status_code == 422 and what in refused.text, refused.text
