"""What the SDK cannot ask: malformed requests, foreign pages, unknown routes."""

import re

import pytest


def test_context_parses(api):
    context = api.sandbox.get_context()
    assert context.success and context.home_dir.startswith("/") and context.version
    assert context.detail.system.os == "Linux" and context.detail.system.occupied_ports


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"host": "evil.example.com"}, 403),
        ({"origin": "http://evil.example.com"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 403),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, 200),
        ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, 200),
        ({"host": "localhost:8080"}, 200),
        ({"x-anything": "1"}, 200),
    ],
)
def test_foreign_pages_are_refused(http, headers, status):
    answer = http.get("/v1/sandbox", headers=headers)
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["success"] is False and answer.json()["data"] is None


@pytest.mark.parametrize("path", ["/terminal", "/proxy/9/"])
def test_documents_are_opened_from_other_sites_and_not_fetched(http, path):
    foreign = {"sec-fetch-site": "cross-site"}
    for place in ("document", "iframe"):
        assert http.get(path, headers={**foreign, "sec-fetch-mode": "navigate", "sec-fetch-dest": place}).status_code != 403
    assert http.get(path, headers={**foreign, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}).status_code == 403
    assert http.get(path, headers={"sec-fetch-site": "same-origin", "sec-fetch-mode": "no-cors"}).status_code != 403


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_other_content_types_are_refused_on_json_routes(http, content_type):
    answer = http.post("/v1/shell/exec", content=b'{"command": "true"}', headers={"content-type": content_type})
    assert answer.status_code == 415 and answer.json()["success"] is False


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'"x"', b"{}", b'{"command": 1}', b'{"command": null}', b'{"command": "x", "timeout": -1}', b"\xff\xfe", b"[" * 5000],
)
def test_malformed_bodies_are_422_with_a_list(http, body):
    answer = http.post("/v1/shell/exec", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    detail = answer.json()["detail"]
    assert isinstance(detail, list) and {"loc", "msg", "type"} <= set(detail[0])


def test_a_wrong_field_is_named(http):
    answer = http.post("/v1/shell/exec", json={"command": "x", "hard_timeout": "soon"})
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"] == ["body", "hard_timeout"]
    answer = http.get("/v1/file/download")
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"] == ["query"]
    assert "path" in answer.json()["message"]


JUNK = [b"{", b"[]", b"null", b"3", b'{"a": 1}', b'["/etc/hosts", null, null]', b"\xff\xfe\x00", b'{"path": {}}', b'{"id": ["x"]}', b'{"file": 1e400}']


def test_junk_on_every_route_is_the_callers_mistake(http):
    """No route answers junk with a server error, with something else than the envelope, or not at all."""
    described = http.get("/v1/openapi.json").json()["paths"]
    calls = [(method, path) for path, methods in described.items() for method in methods]
    assert len(calls) > 60
    for method, path in calls:
        if (method, path) in {("delete", "/v1/shell/sessions"), ("delete", "/v1/jupyter/sessions"), ("delete", "/v1/skills")}:
            continue  # they take nothing that could be wrong, and end what other tests use
        path = re.sub(r"\{\w+\}", "no-such-thing", path)
        for junk in JUNK if method in ("post", "put", "patch") else [b""]:
            answer = http.request(method, path, content=junk, headers={"content-type": "application/json"})
            assert answer.status_code < 500, (method, path, junk, answer.text)
            if answer.status_code >= 400:
                assert answer.json()["success"] is False and answer.json()["message"], (method, path, junk, answer.text)
    assert http.get("/v1/sandbox").status_code == 200


def test_an_empty_body_is_no_arguments(http):
    answer = http.post("/v1/shell/sessions/create", headers={"content-type": "application/json"})
    assert answer.status_code == 200
    http.delete(f"/v1/shell/sessions/{answer.json()['data']['session_id']}")


def test_null_means_default_and_unknown_keys_are_ignored(http):
    body = {"command": "echo x", "id": None, "timeout": None, "hard_timeout": None, "strict": None, "new_key": 1}
    assert http.post("/v1/shell/exec", json=body).json()["data"]["output"] == "x\n"


def test_unknown_routes_and_methods_answer_in_the_envelope(http):
    for answer, status in (
        (http.get("/v1/nothing"), 404),
        (http.get("/v1/shell/exec"), 405),
        (http.post("/v1/browser/screenshot", json={}), 501),
        (http.get("/v1/browser_page/list"), 501),
    ):
        assert answer.status_code == status
        assert answer.json()["success"] is False and answer.json()["message"]
    assert "full image" in http.get("/v1/browser/info").json()["hint"]


def test_a_body_that_is_too_large_is_413(http):
    answer = http.post("/v1/shell/exec", content=b"x" * (9 << 20), headers={"content-type": "application/json"})
    assert answer.status_code == 413
