"""/v1/file: what a write keeps, what it says, and what it leaves when it fails."""

import base64
import socket
import threading
from urllib.parse import urlsplit

import pytest


def post(http, call, **body):
    return http.post(f"/v1/file/{call}", json=body).json()


def run(http, command, directory):
    """A command of bash, whose output must not need to be read in time."""
    data = http.post("/v1/bash/exec", json={"command": command, "exec_dir": directory}).json()["data"]
    assert data["exit_code"] == 0, data
    return data["stdout"]


def upload(http, path, content):
    return http.post("/v1/file/upload", data={"path": path}, files={"file": ("x", content)}).json()


def changes(http, path):
    """Every way to change a file that holds "old", each of which makes it "new"."""
    return {
        "write": lambda: post(http, "write", file=path, content="new"),
        "replace": lambda: post(http, "replace", file=path, old_str="old", new_str="new"),
        "editor": lambda: post(http, "str_replace_editor", command="str_replace", path=path, old_str="old", new_str="new"),
        "upload": lambda: upload(http, path, b"new"),
        "base64": lambda: post(http, "write", file=path, content=base64.b64encode(b"new").decode(), encoding="base64"),
    }


WAYS = ["write", "replace", "editor", "upload", "base64"]


@pytest.mark.parametrize("way", WAYS)
def test_what_a_file_is_besides_its_content_is_kept(http, directory, way):
    path = f"{directory}/file"
    attribute = "python3 -c 'import os; os.setxattr(\"file\", \"user.kept\", b\"yes\")'"
    run(http, f"printf old > file; chmod 0751 file; {attribute}; ln -s file link; ln -s link other", directory)
    answer = changes(http, f"{directory}/other")[way]()
    assert answer["success"] and answer["hint"] is None, answer
    assert run(http, "cat file; stat -c ' %a' file; readlink link other", directory) == "new 751\nfile\nlink\n"
    read = "python3 -c 'import os; print(os.getxattr(\"file\", \"user.kept\"))'"
    assert run(http, read, directory) == "b'yes'\n"
    assert run(http, "ls -A", directory).split() == ["file", "link", "other"]


@pytest.mark.parametrize("way", WAYS)
def test_other_names_of_a_file_see_the_change_and_the_answer_says_that_it_was_in_place(http, directory, way):
    run(http, "printf old > file; ln file other", directory)
    answer = changes(http, f"{directory}/file")[way]()
    assert answer["success"] and answer["message"].endswith("in place") and "hard links" in answer["hint"], answer
    assert run(http, "cat other; stat -c ' %h' other", directory) == "new 2\n"


def test_a_link_to_nothing_makes_what_it_names(http, directory):
    run(http, "ln -s below/file link; mkdir below", directory)
    assert post(http, "write", file=f"{directory}/link", content="x")["success"]
    assert run(http, "cat below/file; readlink link", directory) == "xbelow/file\n"


def test_a_program_that_runs_is_replaced(http, directory):
    # It runs from the moment it has its own name, and not yet when it is started.
    begun = "timeout 10 sh -c 'until grep -q program /proc/$(cat pid)/comm; do :; done'"
    run(http, f"cp $(command -v sleep) program; (./program 300 & echo $! > pid); {begun}", directory)
    answer = post(http, "write", file=f"{directory}/program", content="#!/bin/sh\necho new\n")
    assert answer["success"], answer
    assert run(http, "./program; kill $(cat pid)", directory) == "new\n"


def test_rights_of_new_files_are_those_of_the_umask_and_the_directory(http, directory):
    post(http, "write", file=f"{directory}/written", content="x")
    upload(http, f"{directory}/uploaded", b"x")
    post(http, "str_replace_editor", command="create", path=f"{directory}/created", file_text="x")
    modes = run(http, "stat -c %a written uploaded created", directory).split()
    assert modes == ["644"] * 3


def test_readers_in_a_loop_never_see_a_part(http, directory):
    path = f"{directory}/file"
    post(http, "write", file=path, content="a" * 300_000)
    # It ends with the first content that is none of the two.
    script = (
        "import os\n"
        "seen = set()\n"
        "while not os.path.exists('stop'):\n"
        "    text = open('file').read()\n"
        "    assert text in ('a' * 300_000, 'b' * 300_000), (len(text), text[:1], text[-1:])\n"
        "    seen.add(text[0])\n"
        "print(''.join(sorted(seen)))\n"
    )
    post(http, "write", file=f"{directory}/reader.py", content=script)
    outcome = []
    reader = threading.Thread(target=lambda: outcome.append(run(http, "python3 reader.py", directory)))
    reader.start()
    try:
        for number in range(60):
            letter = "ab"[number % 2]
            if number % 3:
                assert post(http, "write", file=path, content=letter * 300_000)["success"]
            else:
                assert upload(http, path, letter.encode() * 300_000)["success"]
    finally:
        post(http, "write", file=f"{directory}/stop", content="")
        reader.join()
    assert outcome, "the reader saw a part of a file"


def test_an_upload_whose_client_goes_away_changes_nothing(http, directory, base_url):
    path = f"{directory}/file"
    post(http, "write", file=path, content="old")
    url = urlsplit(base_url)
    for there in (path, f"{directory}/new"):
        with socket.create_connection((url.hostname, url.port), timeout=30) as connection:
            form = (
                '--b\r\ncontent-disposition: form-data; name="path"\r\n\r\n' + there +
                '\r\n--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n'
            )
            head = (
                f"POST {url.path}/v1/file/upload HTTP/1.1\r\nhost: {url.netloc}\r\n"
                "content-type: multipart/form-data; boundary=b\r\ncontent-length: 50000000\r\n\r\n"
            )
            connection.sendall((head + form).encode() + b"x" * 3_000_000)
    # The end of the connection is noticed by the agent in its own time; what is there is the old content throughout.
    for _ in range(20):
        assert run(http, "cat file; ls -A", directory) == "oldfile\n"


def test_appends_of_callers_and_commands_are_all_there(http, directory):
    path = f"{directory}/log"
    command = threading.Thread(target=lambda: run(http, "for i in $(seq 300); do echo shell >> log; done", directory))
    command.start()
    for _ in range(100):
        assert post(http, "write", file=path, content="call\n", append=True)["success"]
    command.join()
    lines = run(http, "sort log | uniq -c", directory).split()
    assert lines == ["100", "call", "300", "shell"]


def test_a_directory_in_place_of_a_file_is_said(http, directory):
    run(http, "mkdir d; ln -s d link; mkfifo pipe", directory)
    for name in ("d", "d/", "link", "pipe", "."):
        for answer in (post(http, "write", file=f"{directory}/{name}", content="x"), post(http, "write", file=f"{directory}/{name}", content="x", append=True)):
            assert answer["success"] is False and answer["data"]["error_type"] == "invalid_target", (name, answer)


def test_watchers_hear_of_a_write_as_a_write(http, directory):
    post(http, "write", file=f"{directory}/old", content="old")
    watcher = http.post("/v1/file/watch", json={"path": directory, "debounce": 50}).json()["watcher_id"]
    alone = http.post("/v1/file/watch", json={"path": f"{directory}/old", "debounce": 50}).json()["watcher_id"]
    post(http, "write", file=f"{directory}/old", content="new")
    post(http, "write", file=f"{directory}/new", content="new")
    post(http, "write", file=f"{directory}/old", content="newer")
    post(http, "write", file=f"{directory}/end", content="")

    def heard(identity, last):
        cursor, events = 0, []
        while not any(event["relative_path"] == last for event in events):
            answer = http.post(f"/v1/file/watch/{identity}/poll", json={"cursor": cursor, "timeout": 20}).json()
            assert answer["events"], events
            cursor, events = answer["cursor"], events + answer["events"]
        return events

    events = heard(watcher, "end")
    assert {event["relative_path"] for event in events} == {"old", "new", "end"}
    assert {event["type"] for event in events if event["relative_path"] == "old"} == {"write"}
    assert "create" in {event["type"] for event in events if event["relative_path"] == "new"}
    # A file that is watched by itself is heard of although it is another one after a write.
    events = heard(alone, "")
    assert {event["path"] for event in events} == {f"{directory}/old"}
    for identity in (watcher, alone):
        http.delete(f"/v1/file/watch/{identity}")


@pytest.mark.parametrize("named", ["file", "directory"])
def test_an_upload_may_name_its_place_behind_the_file(http, directory, named):
    content = bytes(range(256)) * 4096
    place = f"{directory}/there" if named == "file" else f"{directory}/"
    form = (
        '--b\r\ncontent-disposition: form-data; name="file"; filename="local.bin"\r\n\r\n'.encode() + content +
        f'\r\n--b\r\ncontent-disposition: form-data; name="path"\r\n\r\n{place}\r\n--b--\r\n'.encode()
    )
    answer = http.post("/v1/file/upload", content=form, headers={"content-type": "multipart/form-data; boundary=b"}).json()
    expected = f"{directory}/there" if named == "file" else f"{directory}/local.bin"
    assert answer["data"] == {"file_path": expected, "file_size": len(content), "success": True}
    assert http.get("/v1/file/download", params={"path": expected}).content == content
    # Without a place it goes to the home, and a form that is cut leaves nothing there either.
    home = http.get("/v1/sandbox").json()["home_dir"]
    assert run(http, f"ls -A {home} | grep -c local.bin || true", directory) == "0\n"
