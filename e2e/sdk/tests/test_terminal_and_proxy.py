"""The WebSocket terminal and the port preview, which the SDK reaches through URLs only."""

import contextlib
import hashlib
import json
import random
import re
import time
import uuid

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


def receive_until(socket, wanted, kind="output"):
    text = ""
    while wanted not in text:
        message = json.loads(socket.recv(timeout=10))
        if message["type"] == kind:
            text += str(message["data"])
    return text


def test_terminal_over_a_websocket(base_url):
    with connect(base_url.replace("http", "ws", 1) + "/v1/shell/ws") as socket:
        assert json.loads(socket.recv(timeout=10))["type"] == "session_id"
        assert json.loads(socket.recv(timeout=10))["type"] == "ready"
        socket.send(json.dumps({"type": "resize", "data": {"cols": 123, "rows": 45}}))
        socket.send(json.dumps({"type": "pong", "data": {"timestamp": 1}}))
        socket.send("not json")
        socket.send(json.dumps({"type": "input", "data": "stty size; echo a$((1+1))ü\n"}))
        assert "45 123" in receive_until(socket, "a2ü")
        socket.send(json.dumps({"type": "input", "data": "exit\n"}))
        receive_until(socket, "None", kind="exit")


@pytest.fixture
def terminal(base_url):
    with connect(base_url.replace("http", "ws", 1) + "/v1/shell/ws", max_size=None) as socket:
        yield socket


def type_in(socket, text):
    socket.send(json.dumps({"type": "input", "data": text}))


# Raw, so that the kernel's own limit of a line does not count.
COUNT = "stty raw -echo; echo ready$((1+1)); head -c {} | sha256sum; stty sane\n"


@pytest.mark.parametrize("lengths", [[3_000_000], [300_000] * 20, [1, 1_000_000, 7]])
def test_a_long_paste_passes_whole(terminal, lengths):
    pieces = ["".join(random.choices("abcdefgh\n", k=1000)) * (length // 1000) or "x" * length for length in lengths]
    whole = "".join(pieces).encode()
    type_in(terminal, COUNT.format(len(whole)))
    receive_until(terminal, "ready2")
    for piece in pieces:
        type_in(terminal, piece)
    assert hashlib.sha256(whole).hexdigest() in receive_until(terminal, "  -")


def test_a_paste_that_is_echoed_neither_stops_nor_loses(terminal):
    """What comes back has to be read while more goes in: both ways hold only so much."""
    type_in(terminal, "stty raw -echo; echo ready$((1+1)); head -c 2000000; echo; echo end$((1+1)); stty sane\n")
    receive_until(terminal, "ready2")
    type_in(terminal, "y" * 2_000_000)
    assert receive_until(terminal, "end2").count("y") == 2_000_000


def test_a_paste_that_nobody_reads_leaves_the_terminal_usable(terminal):
    type_in(terminal, "stty raw -echo isig; echo ready$((1+1)); sleep 600; stty sane; echo after$((1+1))\n")
    receive_until(terminal, "ready2")
    type_in(terminal, "z" * 900_000)
    terminal.send(json.dumps({"type": "resize", "data": {"cols": 99, "rows": 33}}))
    type_in(terminal, "\x03")
    # What is typed while bash is on its way back to its prompt may be thrown away with the interrupt.
    text, deadline = "", time.monotonic() + 20
    while "33 99" not in text:
        assert time.monotonic() < deadline, text[-200:]
        type_in(terminal, "\nstty sane; stty size\n")
        with contextlib.suppress(TimeoutError):
            while "33 99" not in text:
                text += str(json.loads(terminal.recv(timeout=0.5)).get("data"))


def test_a_message_that_is_too_long_is_said(terminal):
    with pytest.raises(ConnectionClosed) as closed:
        type_in(terminal, "w" * 5_000_000)
        while True:
            terminal.recv(timeout=10)
    assert closed.value.rcvd.code == 1009 and "4194304 bytes" in closed.value.rcvd.reason


def test_the_terminal_page_comes_with_all_it_needs(http):
    page = http.get("/terminal")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(assets) == 2 and not any("//" in asset for asset in assets)
    for asset, mark in zip(sorted(assets), (".xterm", "FitAddon"), strict=True):
        answer = http.get(f"/{asset}")
        assert answer.status_code == 200 and mark in answer.text, asset


def test_a_foreign_page_gets_no_terminal(base_url):
    with pytest.raises(Exception, match="403"):
        connect(base_url.replace("http", "ws", 1) + "/v1/shell/ws", origin="http://evil.example.com").close()


@pytest.fixture
def port(http, api):
    """A small server in the sandbox that answers with the path it was asked for."""
    script = (
        "import http.server as h\n"
        "class S(h.BaseHTTPRequestHandler):\n"
        "  def answer(self):\n"
        "    body = self.rfile.read(int(self.headers.get('content-length', 0)))\n"
        "    out = f'{self.command} {self.path} {body.decode()} {self.headers.get(\"x-mine\")}'.encode()\n"
        "    self.send_response(201); self.send_header('content-length', str(len(out))); self.end_headers(); self.wfile.write(out)\n"
        "  do_GET = do_POST = answer\n"
        "  def log_message(self, *a): pass\n"
        "s = h.HTTPServer(('127.0.0.1', 0), S); print(s.server_port, flush=True); s.serve_forever()\n"
    )
    session = f"proxy-{uuid.uuid4()}"
    api.bash.create_session(session_id=session)
    api.bash.exec(session_id=session, command=f"exec python3 -c \"$SERVER\"", env={"SERVER": script}, async_mode=True)
    yield api.bash.output(session_id=session, wait=True, wait_timeout=20).data.stdout.strip()
    api.bash.close_session(session)


def test_ports_are_seen_from_outside(http, port):
    answer = http.get(f"/proxy/{port}/a/b?q=1", headers={"x-mine": "yes"})
    assert (answer.status_code, answer.text) == (201, "GET /a/b?q=1  yes")
    assert http.post(f"/proxy/{port}", content=b"body").text == "POST / body None"
    assert http.get(f"/absproxy/{port}/a").text == f"GET /absproxy/{port}/a  None"
    assert http.get("/proxy/1/").status_code == 502
    assert http.get("/proxy/99999/").status_code == 400


def test_websockets_pass_through(base_url, agent_port):
    """The agent's own terminal, seen through its own port preview."""
    with connect(base_url.replace("http", "ws", 1) + f"/proxy/{agent_port}/v1/shell/ws") as socket:
        assert json.loads(socket.recv(timeout=10))["type"] == "session_id"
        socket.send(json.dumps({"type": "input", "data": "echo b$((1+1))\n"}))
        receive_until(socket, "b2")


def test_a_header_or_a_name_sends_the_whole_request_to_a_port(http, port):
    answer = http.get("/v1/sandbox?q=1", headers={"x-aio-proxy-port": port, "x-mine": "yes"})
    assert (answer.status_code, answer.text) == (201, "GET /v1/sandbox?q=1  yes")
    assert http.post("/a/b", content=b"body", headers={"host": f"{port}-localhost"}).text == "POST /a/b body None"
    for wrong in ("http", "0", "-1", "+80", "99999", ""):
        assert http.get("/", headers={"x-aio-proxy-port": wrong}).status_code == 400
    assert http.get("/", headers={"host": f"{port}-evil.example.com"}).status_code == 403


# A developer's server as Vite is: on one loopback address, and with one name of its own.
STRICT = """
import http.server as h, json, socket, sys
class S(h.BaseHTTPRequestHandler):
    def do_GET(self):
        own = f'localhost:{self.server.server_port}'
        if self.headers.get('host') != own:
            return self.send_error(403, 'Blocked request. This host is not allowed.')
        if self.path.startswith('/to'):
            self.send_response(302); self.send_header('location', self.path[3:] or f'http://{own}/there'); self.send_header('content-length', '0'); return self.end_headers()
        out = json.dumps({'path': self.path, **{k.lower(): v for k, v in self.headers.items()}}).encode()
        self.send_response(200); self.send_header('content-length', str(len(out))); self.end_headers(); self.wfile.write(out)
    def log_message(self, *a): pass
class H(h.HTTPServer): address_family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
s = H((sys.argv[1], 0), S); print(s.server_port, flush=True); s.serve_forever()
"""


@pytest.fixture(params=["127.0.0.1", "::1", "0.0.0.0", "::"])
def strict(request, api):
    session = f"strict-{uuid.uuid4()}"
    api.bash.create_session(session_id=session)
    api.bash.exec(session_id=session, command=f"exec python3 -c \"$SERVER\" {request.param}", env={"SERVER": STRICT}, async_mode=True)
    yield api.bash.output(session_id=session, wait=True, wait_timeout=20).data.stdout.strip()
    api.bash.close_session(session)


def test_a_server_that_knows_one_name_is_reached_on_either_loopback(http, strict):
    answer = http.get(f"/proxy/{strict}/a?b=c", headers={"origin": str(http.base_url).rstrip("/")})
    assert answer.status_code == 200, answer.text
    seen, host = answer.json(), http.base_url.netloc.decode()
    assert (seen["path"], seen["host"], seen["x-forwarded-host"]) == ("/a?b=c", f"localhost:{strict}", host)
    assert (seen["x-forwarded-proto"], seen["x-forwarded-prefix"], seen["origin"]) == ("http", f"/proxy/{strict}", f"http://localhost:{strict}")
    assert seen["x-forwarded-for"]
    kept = http.get(f"/absproxy/{strict}/a").json()
    assert kept["path"] == f"/absproxy/{strict}/a" and "x-forwarded-prefix" not in kept
    assert http.get("/a", headers={"x-aio-proxy-port": strict}).json()["host"] == f"localhost:{strict}"
    assert http.get("/a", headers={"host": f"{strict}-localhost"}).json()["x-forwarded-host"] == f"{strict}-localhost"
    outer = {"x-forwarded-proto": "https", "x-forwarded-host": "app.example.org", "x-forwarded-for": "192.0.2.1"}
    seen = http.get(f"/proxy/{strict}/", headers=outer).json()
    assert (seen["x-forwarded-proto"], seen["x-forwarded-host"]) == ("https", "app.example.org")
    assert seen["x-forwarded-for"].startswith("192.0.2.1, ")


def test_redirects_lead_back_to_where_the_caller_is(http, strict):
    for asked, expect in ((f"/proxy/{strict}/to", f"/proxy/{strict}/there"), (f"/proxy/{strict}/to/login", f"/proxy/{strict}/login"), (f"/proxy/{strict}/tohttps://example.org/x", "https://example.org/x")):
        assert http.get(asked, follow_redirects=False).headers["location"] == expect
    assert http.get("/to", headers={"x-aio-proxy-port": strict}, follow_redirects=False).headers["location"] == "/there"
