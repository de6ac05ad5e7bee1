"""/v1/code, /v1/jupyter, /v1/nodejs: running Python and JavaScript."""

import uuid

import pytest
from agent_sandbox.core.api_error import ApiError


def test_python_answers_with_streams_and_the_last_value(api):
    result = api.code.execute_code(language="python", code="import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7").data
    assert (result.status, result.exit_code, result.stdout, result.stderr) == ("ok", 0, "out\n", "err\n")
    assert result.outputs[-1]["data"]["text/plain"] == "42" and result.session_id is None


def test_an_exception_fills_stderr_and_traceback(api):
    result = api.code.execute_code(language="python", code="def f():\n    return 1 / 0\nf()").data
    assert (result.status, result.exit_code) == ("error", 1)
    assert "ZeroDivisionError: division by zero" in result.stderr
    assert any("return 1 / 0" in line for line in result.traceback) and not any("driver" in line for line in result.traceback)


@pytest.mark.parametrize("language, first, second", [("python", "x = 20\nasync def f(): return x", "await f() + 1"), ("javascript", "const x = 20; async function f() { return x }", "await f() + 1")])
def test_state_is_kept_when_asked_for(api, language, first, second):
    session = api.code.execute_code(language=language, code=first, stateful=True).data.session_id
    result = api.code.execute_code(language=language, code=second, session_id=session, stateful=True).data
    assert result.outputs[-1]["data"]["text/plain"] == "21", result
    fresh = api.code.execute_code(language=language, code="x").data
    assert fresh.status == "error"


def test_javascript_answers_with_streams_and_errors(api):
    result = api.code.execute_code(language="javascript", code="console.log('out'); console.error('err'); [1, {a: 2}]").data
    assert (result.status, result.stdout, result.stderr) == ("ok", "out\n", "err\n")
    assert result.outputs[-1]["data"]["text/plain"] == "[ 1, { a: 2 } ]"
    failed = api.code.execute_code(language="javascript", code="throw new TypeError('no')").data
    assert (failed.status, failed.exit_code) == ("error", 1) and "TypeError: no" in failed.stderr


@pytest.mark.parametrize("language, code", [("python", "while True: pass"), ("javascript", "while (true) {}")])
def test_code_that_runs_too_long_is_stopped(api, language, code):
    result = api.code.execute_code(language=language, code=code, timeout=1).data
    assert (result.status, result.exit_code) == ("timeout", 124)


def test_languages_are_described(api):
    info = {language.language: language for language in api.code.get_info().data.languages}
    assert set(info) == {"python", "javascript"} and info["python"].max_timeout == 300


def test_jupyter_sessions_keep_state_and_count(api):
    session = api.jupyter.create_session(session_id=f"j-{uuid.uuid4()}", kernel_name="python3").data.session_id
    first = api.jupyter.execute_code(session_id=session, code="y = 1").data
    second = api.jupyter.execute_code(session_id=session, code="y + 1").data
    assert (first.status, first.execution_count, second.execution_count) == ("ok", 1, 2)
    assert second.outputs[0].output_type == "execute_result" and second.outputs[0].data["text/plain"] == "2"
    assert session in api.jupyter.list_sessions().data.sessions
    api.jupyter.delete_session(session)
    with pytest.raises(ApiError):
        api.jupyter.delete_session(session)
    assert api.jupyter.get_info().data.default_kernel == "python3"
    api.jupyter.delete_sessions()
    assert api.jupyter.list_sessions().data.sessions == {}


def test_jupyter_has_rich_outputs(api):
    code = "class R:\n    def _repr_html_(self): return '<b>x</b>'\n    def _repr_png_(self): return b'png'\ndisplay(R())\nR()"
    outputs = api.jupyter.execute_code(code=code).data.outputs
    assert [output.output_type for output in outputs] == ["display_data", "execute_result"]
    assert outputs[0].data["text/html"] == "<b>x</b>" and outputs[1].data["image/png"] == "cG5n"


def test_an_interpreter_that_dies_is_replaced(api):
    session = api.jupyter.create_session().data.session_id
    dead = api.jupyter.execute_code(session_id=session, code="import os; os._exit(3)").data
    assert dead.status == "error" and dead.outputs[0].ename == "InterpreterDied"
    assert api.jupyter.execute_code(session_id=session, code="1 + 1").data.outputs[0].data["text/plain"] == "2"


def test_output_of_subprocesses_is_answered(api):
    result = api.code.execute_code(language="python", code="import subprocess; subprocess.run(['echo', 'from below']); None").data
    assert result.stdout == "from below\n"


def test_nodejs_runs_programs_with_files_and_input(api, directory):
    code = "const fs = require('fs'); console.log(fs.readFileSync('a/x.txt', 'utf8') + fs.readFileSync(0, 'utf8')); process.exit(5)"
    result = api.nodejs.execute_code(code=code, cwd=directory, files={"a/x.txt": "file "}, stdin="input").data
    assert (result.language, result.status, result.exit_code, result.stdout) == ("javascript", "error", 5, "file input\n")
    late = api.nodejs.execute_code(code="setInterval(() => {}, 1000)", timeout=1).data
    assert late.status == "timeout"


def test_nodejs_sessions(api, directory):
    created = api.nodejs.create_session(cwd=directory, max_idle_time=60_000).data
    assert created.created and created.session.state == "IDLE" and created.session.max_idle_time == 60_000
    identity = created.session_id
    assert not api.nodejs.create_session(session_id=identity).data.created
    api.nodejs.execute_code(code="let n = 1", session_id=identity, stateful=True)
    assert api.nodejs.execute_code(code="++n", session_id=identity, stateful=True).data.outputs[-1].data["text/plain"] == "2"
    assert api.nodejs.update_session(identity, max_idle_time=5_000, cwd="/tmp").data.session.max_idle_time == 5_000
    cwd = api.nodejs.execute_code(code="process.cwd()", session_id=identity, stateful=True).data
    assert cwd.outputs[-1].data["text/plain"] == "'/tmp'"
    assert identity in api.nodejs.list_sessions().data.sessions
    assert api.nodejs.get_session(identity).data.session.session_id == identity
    assert api.nodejs.delete_session(identity).data.deleted
    with pytest.raises(ApiError):
        api.nodejs.get_session(identity)


def test_nodejs_info(api):
    info = api.nodejs.get_info().data
    assert info.node_version.startswith("v") and "javascript" in info.supported_languages


@pytest.fixture
def kernel(api):
    """A Jupyter session that ipykernel answers; not every image has it."""
    probe = "from importlib.util import find_spec; print(bool(find_spec('ipykernel')))"
    if api.code.execute_code(language="python", code=probe).data.stdout != "True\n":
        pytest.skip("the sandbox's python3 has no ipykernel")
    session = api.jupyter.create_session().data.session_id
    yield lambda code, **kwargs: api.jupyter.execute_code(session_id=session, code=code, **kwargs).data
    api.jupyter.delete_session(session)


def test_ipykernel_answers_where_it_is_installed(kernel):
    assert kernel("get_ipython().kernel.__class__.__name__").outputs[0].data["text/plain"] == "'IPythonKernel'"
    assert kernel("!echo from the shell").outputs[0].text.split() == ["from", "the", "shell"]
    assert kernel("%%bash\necho cell").outputs[0].text == "cell\n"
    assert kernel("import asyncio\nawait asyncio.sleep(0, 7)").outputs[0].data["text/plain"] == "7"
    # What subprocesses write without Python is not looked for: ipykernel tells of it when it likes, also after the cell.


def test_ipykernels_displays_are_updated_and_cleared(kernel):
    code = "from IPython.display import *\nshown = display(HTML('<b>1</b>'), display_id=True)\nshown.update(HTML('<b>2</b>'))"
    outputs = kernel(code).outputs
    assert [output.data["text/html"] for output in outputs] == ["<b>2</b>"]
    assert [output.text for output in kernel("print(1); clear_output(); print(2)").outputs] == ["2\n"]


def test_ipykernel_is_interrupted_and_keeps_its_state(kernel):
    kernel("mine = 5")
    late = kernel("while True: pass", timeout=1)
    assert late.status == "timeout" and late.outputs[-1].ename == "KeyboardInterrupt"
    assert kernel("mine").outputs[0].data["text/plain"] == "5"


def test_ipykernels_errors_are_plain_text(kernel):
    failed = kernel("1 / 0")
    assert failed.status == "error" and failed.outputs[0].ename == "ZeroDivisionError"
    assert "\x1b" not in "".join(failed.outputs[0].traceback)
