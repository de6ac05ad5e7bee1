"""The WebSocket terminal and the port preview, which the SDK reaches through URLs only."""

import json
import re
import uuid

import pytest
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
