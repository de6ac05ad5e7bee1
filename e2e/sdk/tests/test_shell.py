"""/v1/shell: sessions on terminals."""

import concurrent.futures
import time
import uuid

import pytest
from agent_sandbox.core.api_error import ApiError
from agent_sandbox.errors.unprocessable_entity_error import UnprocessableEntityError


def run(api, session, command, **options):
    return api.shell.exec_command(id=session, command=command, **options).data


def wait_until_done(api, session, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if api.shell.wait_for_process(id=session, max_wait_seconds=1).data.status != "running":
            return api.shell.view(id=session).data
    raise AssertionError(f"still running after {seconds} s")


def wait_until_printed(api, session, text, seconds=20):
    end = time.monotonic() + seconds
    while text not in api.shell.view(id=session).data.console[-1].output:
        assert time.monotonic() < end, f"no {text!r} within {seconds} s"
        time.sleep(0.02)


def test_a_command_without_a_session_gets_one_that_can_be_used_again(api):
    first = api.shell.exec_command(command="cd /tmp; X=5; echo one", no_change_timeout=600)
    assert first.success and first.data.output == "one\n" and first.data.exit_code == 0
    again = run(api, first.data.session_id, "echo $X $PWD")
    assert again.output == "5 /tmp\n"
    api.shell.cleanup_session(first.data.session_id)


def test_state_persists_between_commands(api, session):
    run(api, session, "cd /usr; export A=1; f() { echo fn $A; }; false")
    result = run(api, session, 'echo $?; f; pwd; echo "$$" > /tmp/sdk-pid; grep -c bash /proc/$$/comm')
    assert result.output == "1\nfn 1\n/usr\n1\n"


def test_output_is_free_of_echo_prompt_and_escape_codes(api, session):
    result = run(api, session, r"printf '\033[31mred\033[0m\r\nplain\n'; echo a | cat")
    assert result.output == "red\nplain\na\n"
    assert result.console[-1].output == result.output


def test_stderr_is_part_of_the_output_and_a_failing_cd_does_not_stop_the_rest(api, session):
    result = run(api, session, "cd /no/such/place; echo still; echo err >&2; exit_code=3; (exit 3)")
    assert "No such file" in result.output and result.output.endswith("still\nerr\n")
    assert result.exit_code == 3


def test_the_newer_way_async_then_wait_and_view(api, session):
    started = run(api, session, "sleep 0.5; echo done; (exit 4)", async_mode=True, no_change_timeout=605, hard_timeout=600.0)
    assert started.status == "running"
    view = wait_until_done(api, session)
    assert (view.status, view.exit_code, view.console[-1].output) == ("completed", 4, "done\n")
    assert view.command.startswith("sleep 0.5") and "done\n" in view.output


def test_wait_returns_within_its_time(api, session):
    run(api, session, "sleep 30", async_mode=True)
    began = time.monotonic()
    assert api.shell.wait_for_process(id=session, max_wait_seconds=1).data.status == "running"
    assert time.monotonic() - began < 5
    api.shell.kill_process(id=session)


def test_timeout_leaves_the_command_running(api, session):
    result = run(api, session, "echo early; sleep 1.2; echo late", timeout=0.4)
    assert (result.status, result.output, result.exit_code) == ("running", "early\n", None)
    assert wait_until_done(api, session).console[-1].output == "early\nlate\n"


def test_hard_timeout_ends_the_command_and_keeps_the_session(api, session):
    run(api, session, "KEPT=yes")
    result = run(api, session, "echo before; sleep 60; echo after", hard_timeout=0.5)
    assert result.status == "hard_timeout" and result.output.startswith("before\n")
    assert "after" not in result.output
    assert run(api, session, "echo $KEPT").output == "yes\n"


def test_hard_timeout_ends_what_ignores_signals(api, session):
    result = run(api, session, "trap '' INT TERM; while :; do sleep 1; done", hard_timeout=0.3)
    assert result.status == "hard_timeout"
    assert run(api, session, "echo alive").output == "alive\n"


def test_no_change_timeout_leaves_the_command_running(api, session):
    result = run(api, session, "echo x; sleep 30", no_change_timeout=1)
    assert (result.status, result.output) == ("no_change_timeout", "x\n")
    assert api.shell.kill_process(id=session).data.status == "terminated"
    assert run(api, session, "echo alive").output == "alive\n"


def test_output_puts_off_the_no_change_timeout(api, session):
    result = run(api, session, "for i in 1 2 3 4; do echo $i; sleep 0.5; done", no_change_timeout=1)
    assert (result.status, result.output) == ("completed", "1\n2\n3\n4\n")


def test_update_shortens_a_wait_in_progress(api, session):
    run(api, session, "sleep 60", async_mode=True, no_change_timeout=605)
    api.shell.update_session(id=session, no_change_timeout=1)
    assert wait_until_done(api, session, seconds=8).status == "no_change_timeout"


def test_cancel_in_the_order_of_newer_deerflow(api, session):
    pid = run(api, session, "echo $$").output.strip()
    run(api, session, "export TOKEN_X=abc; sleep 300", async_mode=True, no_change_timeout=605)
    other = str(uuid.uuid4())
    api.shell.create_session(id=other)
    # The answer to an asynchronous exec may come before what was started has begun.
    look = "for i in $(seq 200); do grep -qz TOKEN_X=abc /proc/[0-9]*/environ 2> /dev/null && echo found && break; sleep 0.05; done"
    assert run(api, other, look).output == "found\n"
    api.shell.update_session(id=session, no_change_timeout=1)
    run(api, other, f"kill -9 {pid}")
    assert api.shell.kill_process(id=session).data.status == "terminated"
    assert api.shell.view(id=session).data.status == "terminated"
    api.shell.cleanup_session(session)
    api.shell.cleanup_session(other)


def test_a_pending_exec_ends_when_its_shell_is_killed(api, session):
    result = run(api, session, "kill -9 $$")
    assert result.status == "terminated"
    assert run(api, session, "echo fresh").output == "fresh\n"


def test_exit_answers_with_its_code_and_the_session_goes_on(api, session):
    assert run(api, session, "echo bye; exit 7").exit_code == 7
    assert run(api, session, "echo $?").exit_code == 0
    script = "(\n  echo inner\n  exit 3\n)\nstatus=$?\nprintf '__DF_FIND_STATUS__:%s\\n' \"$status\"\n"
    assert run(api, session, script).output == "inner\n__DF_FIND_STATUS__:3\n"


@pytest.mark.parametrize(
    "command, code",
    [
        ("if true; then", 2),
        ("echo 'open", 2),
        ("set -e; false; echo no", 1),
        ("set -u; echo $no_such_variable; echo no", 1),
        ("break 9", 0),
        ("continue 3", 0),
        ("return 3", 2),
        ("exec true", 0),
        ("exec sh -c 'exit 5'", 5),
        ("trap 'true' DEBUG; false", 1),
        ("PROMPT_COMMAND=; PS1='% '; false", 1),
        ("PROMPT_COMMAND='echo mine'; kill -INT $$; sleep 9", 130),
        ("PROMPT_COMMAND=x; set -u; echo $nope", 1),
        ("exec 100>&- 101>&- 102>&-", 0),
        ("stty raw -echo; stty sane", 0),
        ("no_such_program_at_all", 127),
        ("sh -c 'kill -9 $$'", 137),
    ],
)
def test_awkward_commands_are_answered_and_the_session_goes_on(api, session, command, code):
    result = run(api, session, command, hard_timeout=10)
    assert (result.status, result.exit_code) == ("completed", code), result.output
    assert run(api, session, "set +eu; trap - DEBUG; echo next", hard_timeout=10).output.endswith("next\n")


def test_write_reaches_the_running_program(api, session):
    run(api, session, "read name; echo hello $name", async_mode=True)
    api.shell.write_to_process(id=session, input="wor", press_enter=False)
    api.shell.write_to_process(id=session, input="ld", press_enter=True)
    assert wait_until_done(api, session).console[-1].output == "hello world\n"


def test_ctrl_c_interrupts_and_keeps_the_session(api, session):
    run(api, session, "Y=1; echo ready; while :; do :; done", async_mode=True)
    wait_until_printed(api, session, "ready")
    api.shell.write_to_process(id=session, input="\x03", press_enter=False)
    assert wait_until_done(api, session).exit_code == 130
    assert run(api, session, "echo $Y").output == "1\n"


def test_background_jobs_do_not_hold_the_answer(api, session):
    began = time.monotonic()
    result = run(api, session, "sleep 20 & (while :; do echo noise; sleep 0.01; done) > /dev/null & echo started")
    assert result.output == "started\n" and time.monotonic() - began < 5
    run(api, session, "kill %1 %2; wait")


def test_megabytes_of_output_are_cut_in_the_middle(api, session):
    result = run(api, session, "seq 1 400000")
    assert result.status == "completed" and len(result.output) < 31_000
    assert result.output.startswith("1\n2\n") and result.output.endswith("399999\n400000\n")
    whole = run(api, session, "seq 1 100000", truncate=False)
    assert whole.output == "".join(f"{n}\n" for n in range(1, 100_001))


def test_binary_output_is_answered(api, session):
    result = run(api, session, "head -c 300000 /dev/urandom; printf 'a\\0b'")
    assert result.status == "completed" and result.output.endswith("ab")


def test_an_exec_on_a_busy_session_waits_for_its_turn(base_url):
    from agent_sandbox import Sandbox

    api, identity = Sandbox(base_url=base_url), str(uuid.uuid4())
    api.shell.create_session(id=identity)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        jobs = [threads.submit(run, Sandbox(base_url=base_url), identity, f"sleep 0.05; echo n{n}") for n in range(8)]
        assert sorted(job.result().output for job in jobs) == [f"n{n}\n" for n in range(8)]
    run(api, identity, "sleep 60", async_mode=True)
    with pytest.raises(ApiError) as busy:
        run(api, identity, "echo x", async_mode=True)
    assert busy.value.status_code == 400 and "busy" in busy.value.body["message"]
    api.shell.cleanup_session(identity)


def test_64_sessions_at_once_keep_their_output_apart(base_url):
    from agent_sandbox import Sandbox

    def work(number):
        api, identity = Sandbox(base_url=base_url), str(uuid.uuid4())
        api.shell.create_session(id=identity)
        for turn in range(3):
            output = run(api, identity, f"for i in 1 2 3; do echo {number}-{turn}-$i; done").output
            assert output == "".join(f"{number}-{turn}-{i}\n" for i in (1, 2, 3))
        return identity

    api = Sandbox(base_url=base_url)
    with concurrent.futures.ThreadPoolExecutor(64) as threads:
        identities = list(threads.map(work, range(64)))
    assert set(identities) <= set(api.shell.list_sessions().data.sessions)
    for identity in identities:
        api.shell.cleanup_session(identity)


def test_64_callers_at_once_that_name_no_session_all_get_their_output(base_url):
    from agent_sandbox import Sandbox

    def work(number):
        data = Sandbox(base_url=base_url).shell.exec_command(command=f"echo {number}; sleep 0.2; echo {number}").data
        assert (data.status, data.output) == ("completed", f"{number}\n{number}\n")

    with concurrent.futures.ThreadPoolExecutor(64) as threads:
        list(threads.map(work, range(64)))


def test_exec_dir_and_strict(api, session):
    assert run(api, session, "pwd", exec_dir="/usr/bin").output.strip().endswith("bin")
    assert run(api, session, "echo ok", exec_dir="/no/such/dir").output == "ok\n"
    with pytest.raises(ApiError) as error:
        run(api, session, "echo no", exec_dir="/no/such/dir", strict=True)
    assert error.value.status_code == 400


def test_sessions_are_listed_counted_and_closed(api, session):
    info = api.shell.list_sessions().data.sessions[session]
    assert info.working_dir.startswith("/") and info.age_seconds >= 0 and info.created_at <= info.last_used_at
    stats = api.shell.get_session_stats().data
    assert stats.total_sessions >= 1 and stats.max_sessions >= 64 and 0 <= stats.usage_ratio <= 1
    assert api.shell.create_session(id=session).data.session_id == session
    api.shell.cleanup_session(session)
    assert session not in api.shell.list_sessions().data.sessions
    assert api.shell.create_session().data.session_id


def test_an_unknown_session_is_a_404_that_says_so(api):
    for call in (
        lambda: run(api, "no-such", "true"),
        lambda: api.shell.view(id="no-such"),
        lambda: api.shell.wait_for_process(id="no-such"),
        lambda: api.shell.kill_process(id="no-such"),
        lambda: api.shell.write_to_process(id="no-such", input="x", press_enter=True),
        lambda: api.shell.update_session(id="no-such", no_change_timeout=1),
        lambda: api.shell.cleanup_session("no-such"),
    ):
        with pytest.raises(ApiError) as error:
            call()
        assert error.value.status_code == 404 and "session not found" in error.value.body["message"].lower()


def test_closing_a_session_ends_its_processes(api, session):
    marker = f"marker_{uuid.uuid4().hex}"
    run(api, session, f"sleep 321 & exec -a {marker} sleep 300", async_mode=True)
    api.shell.cleanup_session(session)
    left = api.bash.exec(command=f"for i in $(seq 50); do pgrep -f '^{marker}' > /dev/null || break; sleep 0.1; done; pgrep -fc '^{marker}'")
    assert left.data.stdout.strip() == "0"


def test_terminal_url_is_a_url(api):
    url = api.shell.get_terminal_url().data
    assert url.startswith("http") and "terminal" in url


def test_a_nul_in_a_command_is_a_validation_error(api):
    with pytest.raises(UnprocessableEntityError):
        api.shell.exec_command(command="echo a\0b")


def test_cleanup_of_all_sessions(api, session):
    api.shell.cleanup_all_sessions()
    assert api.shell.list_sessions().data.sessions == {}


def test_an_interrupted_command_that_took_the_prompt_away_costs_no_session(api, session):
    assert run(api, session, "mine=1; unset PROMPT_COMMAND; sleep 60", hard_timeout=0.5).status == "hard_timeout"
    assert run(api, session, "echo $mine", hard_timeout=10).output == "1\n"


@pytest.mark.parametrize("lost", ["unset PROMPT_COMMAND; break 9", "unset PROMPT_COMMAND; set -u; echo $nope"])
def test_a_session_whose_prompt_leads_nowhere_is_called_back(api, session, lost):
    assert run(api, session, f"mine=1; {lost}", timeout=10).status == "completed"
    assert run(api, session, "echo $mine", hard_timeout=10).output == "1\n"


def test_a_typed_interrupt_ends_a_command_that_took_the_prompt_away(api, session):
    # What is interrupted says itself that it is ready: an interrupt between a command of bash's own and the
    # program after it is lost on every terminal.
    run(api, session, "mine=1; unset PROMPT_COMMAND; bash -c 'echo ready; exec sleep 60'", async_mode=True)
    wait_until_printed(api, session, "ready")
    api.shell.write_to_process(id=session, input="\x03", press_enter=False)
    assert api.shell.wait_for_process(id=session, max_wait_seconds=10).data.status == "completed"
    assert api.shell.view(id=session).data.exit_code == 130
    assert run(api, session, "echo $mine", hard_timeout=10).output == "1\n"


def test_what_reads_the_terminal_is_not_disturbed(api, session):
    run(api, session, "trap 'echo caught' INT; read line; read line; echo got $line", async_mode=True)
    time.sleep(1)
    api.shell.write_to_process(id=session, input="one", press_enter=True)
    time.sleep(1)
    api.shell.write_to_process(id=session, input="two", press_enter=True)
    assert api.shell.wait_for_process(id=session, max_wait_seconds=10).data.status == "completed"
    assert api.shell.view(id=session).data.console[-1].output == "got two\n"


def test_error_traps_fire_for_the_users_errors_only(api, session):
    run(api, session, "trap 'echo caught' ERR")
    assert run(api, session, "true").output == ""
    assert run(api, session, "false; echo $?").output == "caught\n1\n"
    failed = run(api, session, "f() { return 3; }; f")
    assert (failed.output, failed.exit_code) == ("caught\n", 3)
    assert run(api, session, "echo $?; trap -p ERR").output == "3\ntrap -- 'echo caught' ERR\n"
    run(api, session, "trap - ERR")
    assert run(api, session, "false").output == ""


def test_debug_traps_see_the_users_commands_only(api, session):
    run(api, session, "trap 'echo \"<$BASH_COMMAND>\"' DEBUG")
    assert run(api, session, "true; false").output == "<true>\n<false>\n"
    assert run(api, session, "echo $?").output == "<echo $?>\n1\n"
    assert run(api, session, "trap - DEBUG").output == "<trap - DEBUG>\n"
    assert run(api, session, "echo x").output == "x\n"


def test_git_works_in_directories_of_another_owner(api, session, directory):
    """As root the repository is somebody else's; elsewhere what is said of it is looked at."""
    made = api.bash.exec(command=f"git init -q {directory}/repo && {{ chown -R 12345 {directory}/repo 2>/dev/null; true; }}").data
    assert made.exit_code == 0, made.stderr
    command = f"cd {directory}/repo && git status --short && git config --get-all safe.directory"
    assert api.shell.exec_command(id=session, command=command).data.output.strip() == "*"
    assert api.bash.exec(command=command).data.stdout == "*\n"
    assert api.code.execute_code(language="python", code=f"import subprocess; print(subprocess.check_output({command!r}, shell=True, text=True))").data.stdout == "*\n\n"
    assert api.code.execute_code(language="javascript", code=f"console.log(require('child_process').execSync({command!r}).toString())").data.stdout == "*\n\n"


def test_gits_settings_of_a_request_hold(api):
    environment = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "Somebody"}
    assert api.bash.exec(command="git config user.name", env=environment).data.stdout == "Somebody\n"
    asked = api.bash.exec(command="GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=a.b GIT_CONFIG_VALUE_0=c git config a.b; git -c d.e=f config d.e").data
    assert asked.stdout == "c\nf\n"
