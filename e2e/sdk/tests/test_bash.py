"""/v1/bash: one process a command, over pipes."""

import time
import uuid

import pytest
from agent_sandbox.core.api_error import ApiError


def poll(api, session, predicate, seconds=10):
    stdout, offset, end = "", 0, time.monotonic() + seconds
    while time.monotonic() < end:
        data = api.bash.output(session_id=session, offset=offset, wait=True, wait_timeout=1).data
        stdout, offset = stdout + data.stdout, data.offset
        if predicate(stdout, data):
            return stdout, data
    raise AssertionError(f"not within {seconds} s: {stdout!r}")


def test_streams_code_and_environment(api):
    result = api.bash.exec(command="echo out $SECRET; echo err >&2; exit 3", env={"SECRET": "s3"}, hard_timeout=600.0).data
    assert (result.status, result.stdout, result.stderr, result.exit_code) == ("completed", "out s3\n", "err\n", 3)
    assert result.offset == 7 and result.stderr_offset == 4
    again = api.bash.exec(command="echo [$SECRET]", session_id=result.session_id).data
    assert again.stdout == "[]\n"


def test_the_way_deerflow_runs_commands_with_secrets(api):
    session = str(uuid.uuid4())
    api.bash.create_session(session_id=session)
    command = "exec < /dev/null\nread x; echo read=$?; cd /usr; export GONE=1"
    result = api.bash.exec(session_id=session, command=command, env={"A": "b"}, hard_timeout=600.0).data
    assert (result.status, result.stdout) == ("completed", "read=1\n")
    assert api.bash.exec(session_id=session, command="echo [$GONE]; pwd").data.stdout.startswith("[]\n")
    api.bash.close_session(session)
    with pytest.raises(ApiError) as error:
        api.bash.exec(session_id=session, command="true")
    assert error.value.status_code == 404 and "session not found" in error.value.body["message"].lower()


def test_exec_dir_becomes_the_directory_of_the_session(api):
    first = api.bash.exec(command="pwd", exec_dir="/usr").data
    assert first.stdout == "/usr\n"
    assert api.bash.exec(command="pwd", session_id=first.session_id).data.stdout == "/usr\n"
    with pytest.raises(ApiError):
        api.bash.exec(command="pwd", exec_dir="/no/such/dir")


def test_hard_timeout_and_timeout(api):
    timed_out = api.bash.exec(command="echo a; sleep 60", hard_timeout=0.4).data
    assert (timed_out.status, timed_out.stdout) == ("timed_out", "a\n")
    stubborn = api.bash.exec(command="trap '' TERM; while :; do sleep 1; done", hard_timeout=0.3).data
    assert stubborn.status == "timed_out"
    running = api.bash.exec(command="sleep 0.6; echo late", timeout=0.1).data
    assert running.status == "running"
    stdout, data = poll(api, running.session_id, lambda text, data: data.command.status == "completed")
    assert stdout == "late\n" and data.command.exit_code == 0


def test_offsets_never_split_a_character(api):
    session = str(uuid.uuid4())
    api.bash.create_session(session_id=session)
    api.bash.exec(session_id=session, async_mode=True, command=r"for i in 1 2 3; do printf '\xe2\x82'; sleep 0.15; printf '\xac'; done")
    stdout, _ = poll(api, session, lambda text, data: data.command.status == "completed")
    assert stdout == "€€€"
    api.bash.close_session(session)


def test_input_reaches_the_command(api):
    started = api.bash.exec(command="read a; echo got $a; cat", async_mode=True).data
    api.bash.write(session_id=started.session_id, input="one\n")
    poll(api, started.session_id, lambda text, data: text == "got one\n")
    api.bash.write(session_id=started.session_id, input="two\n", command_id=started.command_id)
    poll(api, started.session_id, lambda text, data: text == "got one\ntwo\n")
    api.bash.kill(session_id=started.session_id)
    _, data = poll(api, started.session_id, lambda text, data: data.command.status != "running")
    assert data.command.status == "killed"


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGKILL", "SIGINT"])
def test_signals_reach_the_whole_group(api, signal):
    marker = f"m{uuid.uuid4().hex}"
    started = api.bash.exec(command=f"(exec -a {marker} sleep 300) | cat; echo no", async_mode=True).data
    api.bash.exec(command=f"until pgrep -f '^{marker}'; do sleep 0.05; done", hard_timeout=10)
    api.bash.kill(session_id=started.session_id, signal=signal)
    _, data = poll(api, started.session_id, lambda text, data: data.command.status != "running")
    assert data.command.status == "killed"
    # Each of the group ends by itself: the last need not be gone when the first is.
    gone = api.bash.exec(command=f"while pgrep -f '^{marker}'; do sleep 0.05; done", hard_timeout=10).data
    assert (gone.status, gone.exit_code) == ("completed", 0)


def test_long_output_is_cut_in_sync_mode_only(api):
    result = api.bash.exec(command="seq 1 100000", max_output_length=1000).data
    assert len(result.stdout) < 1100 and result.stdout.startswith("1\n") and result.stdout.endswith("100000\n")
    whole = api.bash.exec(command="seq 1 100000", max_output_length=0).data
    assert whole.stdout == "".join(f"{n}\n" for n in range(1, 100_001))
    binary = api.bash.exec(command="head -c 100000 /dev/urandom").data
    assert binary.status == "completed"


def test_a_command_longer_than_an_argument(api):
    text = "x" * 300_000
    result = api.bash.exec(command=f"exec < /dev/null\nprintf %s {text} | wc -c").data
    assert result.stdout.strip() == "300000"


def test_snapshot_is_sourced(api, directory):
    api.file.write_file(file=f"{directory}/snap.sh", content="hello() { echo hi from snapshot; }\n")
    session = api.bash.create_session(snapshot_path=f"{directory}/snap.sh").data.session_id
    assert api.bash.exec(session_id=session, command="hello").data.stdout == "hi from snapshot\n"


def test_sessions_are_listed(api):
    session = api.bash.create_session(exec_dir="/usr").data
    assert (session.status, session.working_dir, session.command_count) == ("ready", "/usr", 0)
    api.bash.exec(session_id=session.session_id, command="true")
    listed = {info.session_id: info for info in api.bash.sessions().data}
    assert listed[session.session_id].command_count == 1
    api.bash.close_session(session.session_id)
    assert session.session_id not in {info.session_id for info in api.bash.sessions().data}


def test_many_unnamed_sessions_do_not_pile_up(api):
    for _ in range(40):
        api.bash.exec(command="true")
    assert len(api.bash.sessions().data) < 64


def test_a_background_process_does_not_hold_the_answer(api):
    began = time.monotonic()
    result = api.bash.exec(command="sleep 30 & echo $!").data
    assert result.status == "completed" and time.monotonic() - began < 5
    api.bash.exec(command=f"kill {result.stdout.strip()}")
