"""What running code prints is answered, whoever prints it and however the code ends; and sessions do not vanish in silence."""

import uuid

import pytest

PRINTERS = {
    "fork": "import os\nif os.fork() == 0:\n    print('below')\n    os._exit(0)\nos.wait()",
    "fork and on to its end": "import os\nchild = os.fork()\nprint('below' if child == 0 else 'above')\nif child: os.wait()",
    "multiprocessing by fork": "import multiprocessing as m\np = m.get_context('fork').Process(target=print, args=('below',)); p.start(); p.join()",
    "multiprocessing by spawn": "import multiprocessing as m\np = m.get_context('spawn').Process(target=print, args=('below',)); p.start(); p.join()",
    "a pool of processes": "import concurrent.futures as c, multiprocessing as m\nwith c.ProcessPoolExecutor(1, m.get_context('fork')) as p: list(p.map(print, ['below']))",
    "a subprocess": "import subprocess\nsubprocess.run(['echo', 'below']); None",
    "a shell": "import os\nos.system('echo below'); None",
    "a descriptor": "import os\nos.write(1, b'below\\n'); None",
    "C": "import ctypes\nctypes.CDLL(None).puts(b'below'); None",
    "the first standard output": "import sys\nprint('below', file=sys.__stdout__)",
    "a thread": "import threading\nt = threading.Thread(target=print, args=('below',)); t.start(); t.join()",
}


@pytest.mark.parametrize("printer", PRINTERS)
def test_what_python_prints_in_any_way_is_answered(api, printer):
    result = api.code.execute_code(language="python", code=PRINTERS[printer]).data
    assert (result.status, result.stderr) == ("ok", ""), result
    assert "below\n" in result.stdout


def test_what_a_jupyter_session_prints_in_any_way_is_answered(api):
    session = api.jupyter.create_session().data.session_id
    for printer, code in PRINTERS.items():
        if printer == "fork and on to its end":
            continue
        result = api.jupyter.execute_code(session_id=session, code=code).data
        said = "".join(output.text for output in result.outputs if output.output_type == "stream")
        assert result.status == "ok" and "below\n" in said, (printer, result)
    api.jupyter.delete_session(session)


def test_a_forked_childs_failure_is_printed_and_answers_nothing(api):
    code = "import os\nif os.fork() == 0: raise ValueError('in the child')\nprint(os.waitstatus_to_exitcode(os.wait()[1]))"
    result = api.code.execute_code(language="python", code=code).data
    assert (result.status, result.stdout) == ("ok", "1\n") and "ValueError: in the child" in result.stderr


def test_what_node_starts_prints_is_answered(api):
    code = "const c = require('child_process'); c.spawnSync('echo', ['spawned'], {stdio: 'inherit'}); require('fs').writeSync(1, 'written\\n')"
    result = api.code.execute_code(language="javascript", code=f"{code}; undefined").data
    assert (result.status, result.stdout) == ("ok", "spawned\nwritten\n")


CHARACTERS = {
    "python bytes": ("python", "import sys\nfor b in 'ä€😀'.encode(): sys.stdout.buffer.write(bytes([b]))"),
    "python errors": ("python", "import sys\nfor b in 'ä€😀'.encode(): sys.stderr.buffer.write(bytes([b]))"),
    "python descriptor": ("python", "import os\nfor b in 'ä€😀'.encode(): os.write(1, bytes([b]))"),
    "python forked": ("python", "import os, sys\nif os.fork() == 0:\n    for b in 'ä€😀'.encode(): sys.stdout.buffer.write(bytes([b]))\n    os._exit(0)\nos.wait(); None"),
    "node bytes": ("javascript", "for (const b of Buffer.from('ä€😀')) process.stdout.write(Buffer.from([b])); undefined"),
    "node views": ("javascript", "for (const b of Buffer.from('ä€😀')) process.stderr.write(new Uint8Array([b])); undefined"),
    "node encodings": ("javascript", "process.stdout.write(Buffer.from('ä€😀').toString('hex'), 'hex'); undefined"),
}


@pytest.mark.parametrize("way", CHARACTERS)
def test_a_character_in_several_writes_is_one(api, way):
    language, code = CHARACTERS[way]
    result = api.code.execute_code(language=language, code=code).data
    assert result.stdout + result.stderr == "ä€😀", result


def test_half_a_character_does_not_end_the_session(api):
    for language, code in (("python", "import sys; sys.stdout.buffer.write(b'a\\xc3'); print('b\\ud800')"), ("javascript", "process.stdout.write(Buffer.from([0x61, 0xc3])); console.log('b\\ud800')")):
        result = api.code.execute_code(language=language, code=code).data
        assert result.status == "ok" and result.stdout.startswith("a") and "b\ufffd" in result.stdout, result


def test_standard_output_of_python_is_what_programs_expect(api):
    code = "import sys\nsys.stdout.reconfigure(line_buffering=True); sys.stdout.buffer.raw.write(b'raw '); sys.stdout.writelines(['a', 'b'])\nassert sys.stdout.writable() and not sys.stdout.closed and sys.stdout.errors"
    result = api.code.execute_code(language="python", code=code).data
    assert (result.status, result.stdout) == ("ok", "raw ab")


ENDS = {
    "python exit": ("python", "import os\nprint('before')\nos._exit(3)", 1, 3),
    "python killed": ("python", "import os\nprint('before')\nos.kill(os.getpid(), 9)", 1, 137),
    "python interrupted": ("python", "import time\nprint('before')\nwhile True: time.sleep(1)", 1, 124),
    "python deaf": ("python", "import signal\nsignal.signal(2, signal.SIG_IGN)\nprint('before')\nwhile True: pass", 1, 124),
    "node exit": ("javascript", "console.log('before'); process.exit(3)", 1, 3),
    "node killed": ("javascript", "console.log('before'); process.kill(process.pid, 'SIGKILL'); while (true);", 5, 137),
    "node late": ("javascript", "console.log('before'); while (true);", 1, 124),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_was_printed_before_the_end_is_answered(api, end):
    language, code, timeout, exit_code = ENDS[end]
    session = f"end-{uuid.uuid4()}"
    result = api.code.execute_code(language=language, code=code, timeout=timeout, session_id=session).data
    assert (result.stdout, result.exit_code) == ("before\n", exit_code), result
    again = api.code.execute_code(language=language, code="1 + 1", session_id=session).data
    assert again.status == "ok" and again.outputs[-1]["data"]["text/plain"] == "2"


def test_the_end_of_an_interpreter_is_seen_while_its_children_live(api):
    code = "const c = require('child_process').spawn('sleep', ['60'], {detached: true, stdio: 'inherit'}); console.log(c.pid); process.exit(4)"
    result = api.code.execute_code(language="javascript", code=code, timeout=20).data
    api.bash.exec(command=f"kill -9 {result.stdout.split()[0]}")
    assert (result.exit_code, result.status) == (4, "error")


def test_an_interrupted_print_loop_keeps_its_session(api):
    session = f"loop-{uuid.uuid4()}"
    late = api.code.execute_code(language="python", code="n = 0\nwhile True:\n    n += 1\n    print(n)", timeout=1, session_id=session).data
    lines = late.stdout.splitlines()
    assert late.status == "timeout" and lines[:3] == ["1", "2", "3"]
    kept = api.code.execute_code(language="python", code="n", session_id=session).data
    assert int(kept.outputs[-1]["data"]["text/plain"]) >= len(lines)


def test_threads_that_print_later_are_heard_with_the_next_code(api):
    session = f"later-{uuid.uuid4()}"
    start = "import threading, time\nended = threading.Event()\ndef later():\n    time.sleep(0.2); print('later'); ended.set()\nthreading.Thread(target=later).start()"
    api.code.execute_code(language="python", code=start, session_id=session)
    assert api.code.execute_code(language="python", code="ended.wait(10); None", session_id=session).data.stdout == "later\n"


def test_what_is_left_out_is_said(api):
    result = api.code.execute_code(language="python", code="print('x' * 3_000_000)").data
    assert len(result.stdout) == 2 * 1024 * 1024 and "more characters omitted" in result.stderr
    below = api.code.execute_code(language="python", code="import os; os.system('head -c 5000000 /dev/zero | tr \"\\\\0\" y'); None").data
    assert "bytes omitted" in below.stdout


@pytest.mark.parametrize("language, code", [("python", "import subprocess\nprint(subprocess.Popen(['sleep', '60']).pid)"), ("javascript", "console.log(require('child_process').spawn('sleep', ['60'], {stdio: 'ignore'}).pid)"), ("python", "import os\nprint(os.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '60'))")])
def test_code_without_state_leaves_what_it_started(api, language, code):
    started = api.code.execute_code(language=language, code=code).data
    pid = int(started.stdout)
    # It has the interpreter's name until it executes its own program.
    begun = f"timeout 10 sh -c 'until grep -q sleep /proc/{pid}/comm; do :; done'"
    alive = api.bash.exec(command=f"{begun}; cat /proc/{pid}/comm; kill -9 {pid}").data
    assert alive.stdout == "sleep\n"


def hint_of(http, route, **request):
    answer = http.post(route, json=request)
    assert answer.status_code == 200, answer.text
    return answer.json()["hint"] or ""


CALLS = [("/v1/code/execute", {"language": "python", "code": "1"}), ("/v1/code/execute", {"language": "javascript", "code": "1"}), ("/v1/jupyter/execute", {"code": "1"}), ("/v1/nodejs/execute", {"code": "1"})]


@pytest.mark.parametrize("route, request_", CALLS)
def test_a_time_out_that_is_cut_is_said(http, route, request_):
    assert "600 s was cut to 300 s" in hint_of(http, route, **request_, timeout=600)
    assert "cut" not in hint_of(http, route, **request_, timeout=300)


def test_a_session_that_gave_way_says_so_and_busy_and_named_ones_stay(http):
    """Others run beside this test, in the same sandbox at most one at a time: the suite has a sandbox for each worker."""
    for kept in ("jupyter/sessions",):
        http.delete(f"/v1/{kept}")
    for identity in http.get("/v1/nodejs/sessions").json()["data"]["sessions"]:
        http.delete(f"/v1/nodejs/sessions/{identity}")
    first = f"first-{uuid.uuid4()}"
    http.post("/v1/code/execute", json={"language": "python", "code": "x = 1", "session_id": first})
    unnamed = http.post("/v1/code/execute", json={"language": "python", "code": "x = 2", "stateful": True}).json()["data"]["session_id"]
    others = [f"other-{number}-{uuid.uuid4()}" for number in range(15)]
    for identity in others[:14]:
        assert http.post("/v1/nodejs/sessions", json={"session_id": identity}).status_code == 200
    counts = http.get("/v1/jupyter/info").json()["data"]["all_sessions"]
    assert (counts["sessions"], counts["idle"], counts["busy"]) == (16, 16, 0)
    # Code without state takes nobody's place.
    assert http.post("/v1/code/execute", json={"language": "python", "code": "1"}).json()["data"]["status"] == "ok"
    http.post("/v1/nodejs/sessions", json={"session_id": others[14]})
    lost = http.post("/v1/code/execute", json={"language": "python", "code": "x", "session_id": unnamed}).json()
    assert lost["data"]["status"] == "error" and "make room" in lost["hint"]
    # That took a place again: of the named ones the oldest gave way.
    gone = http.post("/v1/code/execute", json={"language": "python", "code": "x", "session_id": first}).json()
    assert "make room" in gone["hint"] and gone["data"]["status"] == "error"
    missing = http.get(f"/v1/nodejs/sessions/{others[0]}")
    assert missing.status_code == 404 and "Session not found" in missing.json()["message"] and "make room" in missing.json()["hint"]
    assert http.get("/v1/jupyter/info").json()["data"]["all_sessions"]["ended_to_make_room"] >= counts["ended_to_make_room"] + 3
    for identity in others:
        http.delete(f"/v1/nodejs/sessions/{identity}")
    http.delete("/v1/jupyter/sessions")


def gone(api, pids):
    """Waits until none of the processes is there; those that are, at the end."""
    check = f"for i in $(seq 100); do left=; for p in {pids}; do kill -0 $p 2>/dev/null && ! grep -q '^State:.Z' /proc/$p/status && left=\"$left $p\"; done; [ -z \"$left\" ] && break; sleep 0.05; done; echo $left"
    return api.bash.exec(command=check).data.stdout.strip()


# Each prints the ids of what it leaves behind, one that has left session, group and parent among them.
LATE = {
    "python": ("python", "import subprocess, time\nprint(subprocess.Popen(['sleep', '300']).pid, subprocess.Popen(['sleep', '301'], start_new_session=True).pid, flush=True)\nsubprocess.run(['bash', '-c', 'setsid bash -c \"sleep 302 & echo $!\" &'])\ntime.sleep(60)"),
    "python deaf": ("python", "import subprocess, signal\nsignal.signal(2, signal.SIG_IGN)\nprint(subprocess.Popen(['sleep', '303'], start_new_session=True).pid, flush=True)\nwhile True: pass"),
    "python forked": ("python", "import os, time\nchild = os.fork()\nif not child:\n    os.setsid(); time.sleep(300)\nprint(child)\ntime.sleep(60)"),
    "node": ("javascript", "const c = require('child_process'); console.log(c.spawn('sleep', ['304'], {detached: true, stdio: 'ignore'}).pid, c.spawn('sleep', ['305']).pid); while (true);"),
}


@pytest.mark.parametrize("way", LATE)
def test_a_time_out_ends_all_that_the_code_has_started(api, way):
    language, code = LATE[way]
    session = f"late-{uuid.uuid4()}"
    late = api.code.execute_code(language=language, code=code, timeout=2, session_id=session).data
    assert late.status == "timeout" and late.stdout.split(), late
    assert gone(api, " ".join(late.stdout.split())) == ""


def test_a_time_out_of_jupyter_ends_what_the_code_has_started_and_keeps_the_rest(api):
    session = api.jupyter.create_session().data.session_id
    before = api.jupyter.execute_code(session_id=session, code="import subprocess, time\nkept = 5\nprint(subprocess.Popen(['sleep', '306']).pid)").data
    earlier = before.outputs[0].text.strip()
    late = api.jupyter.execute_code(session_id=session, code="print(subprocess.Popen(['sleep', '307'], start_new_session=True).pid)\ntime.sleep(60)", timeout=1).data
    assert late.status == "timeout"
    assert gone(api, late.outputs[0].text.strip()) == ""
    assert api.bash.exec(command=f"kill -0 {earlier} && echo there").data.stdout == "there\n"
    assert api.jupyter.execute_code(session_id=session, code="kept").data.outputs[0].data["text/plain"] == "5"
    api.jupyter.delete_session(session)
    assert gone(api, earlier) == "", "the end of a session ends its jobs"
