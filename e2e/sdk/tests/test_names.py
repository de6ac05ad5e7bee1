"""Names that are no UTF-8: every file route shows them by the same text, and takes it."""


def post(http, call, **body):
    return http.post(f"/v1/file/{call}", json=body).json()


def test_a_name_of_any_bytes_can_be_listed_read_and_changed(http, directory):
    script = (
        "import os\n"
        "os.mkdir(b'd\\xff')\n"
        "for name in (b'caf\\xe9.txt', b'caf\\\\xe9.txt', b'd\\xff/in', 'caf\u00e9.txt'.encode()):\n"
        "    open(name, 'wb').write(b'needle ' + name.hex().encode())\n"
    )
    post(http, "write", file=f"{directory}/make.py", content=script)
    made = http.post("/v1/bash/exec", json={"command": "python3 make.py; rm make.py", "exec_dir": directory}).json()["data"]
    assert made["exit_code"] == 0, made
    expected = {
        f"{directory}/caf\\xe9.txt": b"caf\xe9.txt",
        f"{directory}/caf\\x5cxe9.txt": b"caf\\xe9.txt",
        f"{directory}/d\\xff/in": b"d\xff/in",
        f"{directory}/café.txt": "café.txt".encode(),
    }
    found = {
        "find": post(http, "find", path=directory, glob="**")["data"]["files"],
        "glob": [file["path"] for file in post(http, "glob", path=directory, pattern="**")["data"]["files"]],
        "list": [file["path"] for file in post(http, "list", path=directory, recursive=True)["data"]["files"] if not file["is_directory"]],
        "grep": [match["file"] for match in post(http, "grep", path=directory, pattern="needle")["data"]["matches"]],
    }
    for call, paths in found.items():
        assert sorted(paths) == sorted(expected), call
    for path, name in expected.items():
        content = "needle " + name.hex()
        assert post(http, "read", file=path)["data"] == {"content": content, "file": path, "line_count": 1, "encoding": "utf-8"}
        assert http.get("/v1/file/download", params={"path": path}).text == content
        assert post(http, "replace", file=path, old_str="needle", new_str="changed")["success"]
        assert post(http, "search", file=path, regex="^changed")["data"]["line_numbers"] == [1]
        assert content[7:] in post(http, "str_replace_editor", command="view", path=path)["data"]["output"]
        assert post(http, "write", file=path, content="+", append=True)["data"]["file"] == path
        uploaded = http.post("/v1/file/upload", data={"path": path}, files={"file": ("x", name.hex())}).json()
        assert uploaded["data"]["file_path"] == path
    # Nothing was made beside, and each has what was sent for it.
    check = (
        "import os\n"
        "names = [name for name in os.listdir(b'.') if name != b'check.py']\n"
        "files = [b'd\\xff/in' if name == b'd\\xff' else name for name in names]\n"
        "print(len(files), all(open(name, 'rb').read() == name.hex().encode() for name in files))\n"
    )
    post(http, "write", file=f"{directory}/check.py", content=check)
    output = http.post("/v1/bash/exec", json={"command": "python3 check.py", "exec_dir": directory}).json()["data"]
    assert output["stdout"] == "4 True\n", output


def test_new_names_failures_roots_and_watchers_use_the_same_text(http, directory):
    watcher = http.post("/v1/file/watch", json={"path": directory, "debounce": 50}).json()["watcher_id"]
    path = f"{directory}/n\\xfe\\xfd"
    assert post(http, "write", file=path, content="x")["data"]["file"] == path
    shown = http.post("/v1/bash/exec", json={"command": "ls -A | od -An -c", "exec_dir": directory}).json()["data"]["stdout"]
    assert shown.split() == ["n", "376", "375", "\\n"]
    answer = http.post(f"/v1/file/watch/{watcher}/poll", json={"cursor": 0, "timeout": 20}).json()
    assert {event["path"] for event in answer["events"]} == {path}
    missing = post(http, "read", file=f"{directory}/gone\\xff")
    assert missing["data"]["error_type"] == "not_found" and missing["data"]["path"] == f"{directory}/gone\\xff"
    post(http, "write", file=f"{directory}/r\\xff/a.py", content="needle")
    for exclude, count in (([], 1), (["*.py"], 0)):
        data = post(http, "grep", path=f"{directory}/r\\xff", pattern="needle", exclude=exclude, include=["*"])["data"]
        assert data["match_count"] == count and data["path"] == f"{directory}/r\\xff"
    below = http.post("/v1/file/watch", json={"path": f"{directory}/r\\xff"}).json()
    assert below["path"] == f"{directory}/r\\xff"
    for identity in (watcher, below["watcher_id"]):
        http.delete(f"/v1/file/watch/{identity}")
