"""The calls of DeerFlow's sandbox class in the order it makes them, in its older and its newer way."""

import base64
import concurrent.futures
import time
import uuid

import pytest
from agent_sandbox.core.api_error import ApiError


def follow(api, session, command, hard_timeout=600.0):
    """The newer way: start, wait a second at a time, then view."""
    silence = max(600, int(hard_timeout + 5))
    api.shell.exec_command(id=session, command=command, no_change_timeout=silence, hard_timeout=hard_timeout, async_mode=True)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        api.shell.wait_for_process(id=session, max_wait_seconds=1)
        view = api.shell.view(id=session).data
        if view.status != "running":
            return view
    raise AssertionError("still running after 30 s")


def test_the_older_way_runs_commands_without_a_session(api, directory):
    def bash(command):
        return api.shell.exec_command(command=command, no_change_timeout=600).data.output

    assert bash(f"cd {directory}; export DEERFLOW_CHANNEL_USER_ID=u1; echo $DEERFLOW_CHANNEL_USER_ID $PWD") == f"u1 {directory}\n"
    assert bash("cd /no/such/place; unset DEERFLOW_CHANNEL_USER_ID; echo [$DEERFLOW_CHANNEL_USER_ID]").endswith("[]\n")
    assert bash("true") == ""
    bash(f"mkdir -p {directory}/a/b/c; touch {directory}/a/f")
    listed = bash(f"find {directory} -maxdepth 2 -type f -o -type d 2>/dev/null | head -500")
    assert {line.strip() for line in listed.split("\n") if line.strip()} >= {directory, f"{directory}/a", f"{directory}/a/b", f"{directory}/a/f"}
    # Its way out of a session it believes broken.
    identity = str(uuid.uuid4())
    api.shell.create_session(id=identity)
    assert api.shell.exec_command(id=identity, command="echo again", no_change_timeout=600).data.output == "again\n"
    api.shell.cleanup_session(identity)


def test_the_older_way_reads_writes_and_searches(api, directory):
    path, home = f"{directory}/notes.txt", api.sandbox.get_context().home_dir
    assert home.startswith("/") and api.bash.exec(command=f"test -d {home} && echo yes").data.stdout == "yes\n"
    api.file.write_file(file=path, content="one\ntwo\n")
    # Appending is reading, joining and writing.
    api.file.write_file(file=path, content=api.file.read_file(file=path).data.content + "three\n")
    assert api.file.read_file(file=path, start_line=1, end_line=3).data.content == "two\nthree\n"
    data = bytes(range(256))
    api.file.write_file(file=f"{directory}/upload.bin", content=base64.b64encode(data).decode(), encoding="base64")
    assert b"".join(api.file.download_file(path=f"{directory}/upload.bin")) == data
    api.bash.exec(exec_dir=directory, command="mkdir -p src/deep; echo needle > src/deep/x.py; echo no > .hidden")
    assert api.file.find_files(path=directory, glob="**/*.py").data.files == [f"{directory}/src/deep/x.py"]
    listed = [file.path for file in api.file.list_path(path=directory, recursive=True, show_hidden=False).data.files]
    assert f"{directory}/src" in listed and f"{directory}/.hidden" not in listed
    grep = {"case_insensitive": True, "fixed_strings": True, "max_results": 2000, "max_file_size": "1M", "recursive": True}
    found = api.file.grep_files(path=directory, pattern="NEEDLE", **grep).data
    assert [(match.file, match.line_number, match.line_content) for match in found.matches] == [(f"{directory}/src/deep/x.py", 1, "needle")]
    assert found.truncated is False


def test_answers_have_the_prefix_that_was_asked_for(api, directory):
    api.bash.exec(exec_dir=directory, command="mkdir real; echo needle > real/a.txt; ln -s real link")
    root = f"{directory}/link"
    expect = [f"{root}/a.txt"]
    assert api.file.find_files(path=root, glob="*.txt").data.files == expect
    assert [file.path for file in api.file.list_path(path=root, recursive=True).data.files] == expect
    assert [match.file for match in api.file.grep_files(path=root, pattern="needle").data.matches] == expect
    assert [file.path for file in api.file.glob_files(path=root, pattern="*").data.files] == expect


def test_a_command_with_secrets_is_never_a_404_without_a_session(api):
    assert api.bash.exec(command="exit 3", env={"KEY": "v"}, hard_timeout=600.0).data.exit_code == 3
    with pytest.raises(ApiError) as error:
        api.bash.exec(command="true", env={"KEY": "v"}, exec_dir="/no/such/dir")
    assert error.value.status_code != 404


def test_the_newer_way_marks_finds_and_follows_its_commands(api):
    owner, other, token = str(uuid.uuid4()), str(uuid.uuid4()), f"DF_{uuid.uuid4().hex}"
    record = f"/tmp/{token}.pid"
    for session in (owner, other):
        assert api.shell.create_session(id=session).data.session_id == session
    mark = f"export {token}=1; (umask 077; read -r s < /proc/$$/stat; printf '%s' \"$s\" > {record}); "
    first = follow(api, owner, mark + "echo first; exit_status() { return 5; }; exit_status")
    assert (first.status, first.exit_code, first.console[-1].output) == ("completed", 5, "first\n")
    # Another session finds the shell by its token, and knows it by the time it was started.
    scan = (
        f"for p in /proc/[0-9]*; do tr '\\0' '\\n' < $p/environ 2> /dev/null | grep -q '^{token}=1$' && echo ${{p#/proc/}}; done"
        f"; read -r pid rest < {record}; read -r stat < /proc/$pid/stat; set -- ${{stat##*) }}; echo \"$pid ${{20}}\""
    )
    api.shell.exec_command(id=owner, command="sleep 300", async_mode=True, no_change_timeout=605)
    deadline, lines = time.monotonic() + 10, []
    while len(lines) < 2 and time.monotonic() < deadline:
        lines = follow(api, other, scan).console[-1].output.splitlines()
    shell, started = lines[-1].split()
    assert started.isdigit() and shell not in lines[:-1], "the child has the token in its environment, the shell does not"
    # Cancel: shorten the wait, kill the shell, ask, kill what carries the token, close.
    api.shell.update_session(id=owner, no_change_timeout=1)
    follow(api, other, f"kill -9 {shell}")
    assert api.shell.kill_process(id=owner).data.status == "terminated"
    follow(api, other, "kill -9 " + " ".join(lines[:-1]) + f" 2> /dev/null; rm -f {record}")
    for session in (owner, other):
        api.shell.cleanup_session(session)
    with pytest.raises(ApiError) as gone:
        api.shell.view(id=owner)
    assert gone.value.status_code == 404 and "session not found" in gone.value.body["message"].lower()


def test_the_newer_way_tells_how_commands_end(api, session):
    assert follow(api, session, "echo x; sleep 60", hard_timeout=0.5).status == "hard_timeout"
    script = "(\n  printf '%s\\n' ' a file' 'b'\n  exit 4\n)\nstatus=$?\nprintf '__DF_FIND_STATUS__:%s\\n' \"$status\"\n"
    assert follow(api, session, script).console[-1].output == " a file\nb\n__DF_FIND_STATUS__:4\n"
    ended = follow(api, session, "echo bye; exit 7")
    assert (ended.status, ended.exit_code, ended.console[-1].output) == ("completed", 7, "bye\n")


def test_files_answer_while_a_command_runs(api, base_url, directory):
    from agent_sandbox import Sandbox

    def run():
        return Sandbox(base_url=base_url).shell.exec_command(command="sleep 1.5; echo done", no_change_timeout=600).data.output

    with concurrent.futures.ThreadPoolExecutor() as threads:
        running = threads.submit(run)
        api.file.write_file(file=f"{directory}/a", content="x", append=True)
        assert api.file.read_file(file=f"{directory}/a").data.content == "x"
        assert api.file.find_files(path=directory, glob="*").data.files == [f"{directory}/a"]
        assert api.file.grep_files(path=directory, pattern="x").data.match_count == 1
        assert not running.done()
        assert running.result() == "done\n"
