"""/v1/file: searches choose files as ripgrep does, and say what they left out."""

import pytest


def post(http, call, **body):
    return http.post(f"/v1/file/{call}", json=body).json()


@pytest.fixture
def tree(http, directory):
    """A repository with what is ignored, hidden and deep. `rg -g` started in it finds what the tests expect."""
    script = (
        "mkdir -p .git src/deep node_modules/dep/lib src/node_modules .github build 'odd[1]'; echo '*.log' > .gitignore; echo build/ >> .gitignore\n"
        "for file in a.py b.log src/c.py src/deep/d.py src/e.log node_modules/dep/lib/i.js node_modules/j.js src/node_modules/k.js"
        " .github/w.yml .hidden.py build/out.py 'odd[1]/o.py' '#m.py'; do echo needle > \"$file\"; done"
    )
    assert http.post("/v1/bash/exec", json={"command": script, "exec_dir": directory}).json()["data"]["exit_code"] == 0
    return directory


PLAIN = ["#m.py", "a.py", "node_modules/dep/lib/i.js", "node_modules/j.js", "odd[1]/o.py", "src/c.py", "src/deep/d.py", "src/node_modules/k.js"]


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, PLAIN),
        ({"exclude": ["node_modules"]}, [path for path in PLAIN if "node_modules" not in path]),
        ({"exclude": ["node_modules/"]}, [path for path in PLAIN if "node_modules" not in path]),
        ({"exclude": ["!node_modules"]}, [path for path in PLAIN if "node_modules" not in path]),
        ({"exclude": ["/node_modules"]}, [path for path in PLAIN if not path.startswith("node_modules")]),
        ({"exclude": ["**/node_modules/**"]}, [path for path in PLAIN if "node_modules" not in path]),
        ({"exclude": ["src/*"]}, [path for path in PLAIN if not path.startswith("src")]),
        ({"exclude": ["src/deep", "*.js"]}, ["#m.py", "a.py", "odd[1]/o.py", "src/c.py"]),
        ({"include": ["*.log"]}, ["b.log", "src/e.log"]),
        ({"include": ["*.log"], "exclude": ["src"]}, ["b.log"]),
        ({"include": ["src/*.py"]}, ["src/c.py"]),
        ({"include": ["src/**/*.py"]}, ["src/c.py", "src/deep/d.py"]),
        ({"include": ["*.py", "!src"]}, ["#m.py", ".hidden.py", "a.py", "odd[1]/o.py"]),
        ({"include": ["build/*.py"]}, []),
        ({"include": [".github/*.yml"]}, [".github/w.yml"]),
        ({"include": ["#m.py"]}, ["#m.py"]),
        ({"include": ["{root}/src/*.py"]}, ["src/c.py"]),
        ({"include": ["**/{name}/src/*.py"]}, ["src/c.py"]),
        ({"type": "js"}, ["node_modules/dep/lib/i.js", "node_modules/j.js", "src/node_modules/k.js"]),
    ],
)
def test_grep_chooses_files_as_ripgrep_does(http, tree, options, expected):
    filled = {
        key: value if isinstance(value, str) else [glob.format(root=tree, name=tree.rsplit("/", 1)[1]) if "{root}" in glob or "{name}" in glob else glob for glob in value]
        for key, value in options.items()
    }
    data = post(http, "grep", path=tree, pattern="needle", **filled)["data"]
    assert sorted(match["file"].removeprefix(tree + "/") for match in data["matches"]) == expected


def test_the_root_is_taken_as_it_is_written(http, tree):
    for root, path in ((f"{tree}/odd[1]", f"{tree}/odd[1]/o.py"), (f"{tree}/src/../odd[1]/", f"{tree}/src/../odd[1]/o.py")):
        for include in ("*.py", "/*.py", f"{root.rstrip('/')}/*.py"):
            data = post(http, "grep", path=root, pattern="needle", include=[include])["data"]
            assert [match["file"] for match in data["matches"]] == [path], (root, include)


def test_glob_and_watch_leave_out_directories_as_grep_does(http, tree):
    for exclude in (["node_modules"], ["node_modules/"], ["**/node_modules"], [f"{tree}/node_modules", "src/node_modules"]):
        data = post(http, "glob", path=tree, pattern="**/*.js", exclude=exclude)["data"]
        assert data["files"] == [] and data["total_count"] == 0, exclude
    data = post(http, "glob", path=tree, pattern="**/*.js", exclude=["/node_modules"])["data"]
    assert [file["path"].removeprefix(tree) for file in data["files"]] == ["/src/node_modules/k.js"]
    watch = {"path": tree, "exclude": ["node_modules"], "debounce": 50}
    watcher = http.post("/v1/file/watch", json=watch).json()["watcher_id"]
    for path in ("node_modules/dep/new.js", "node_modules/new.js", "src/end"):
        post(http, "write", file=f"{tree}/{path}", content="x")
    cursor, paths = 0, []
    while f"{tree}/src/end" not in paths:
        answer = http.post(f"/v1/file/watch/{watcher}/poll", json={"cursor": cursor, "timeout": 20}).json()
        assert answer["events"], paths
        cursor, paths = answer["cursor"], paths + [event["path"] for event in answer["events"]]
    assert not any("node_modules" in path for path in paths), paths
    http.delete(f"/v1/file/watch/{watcher}")


def test_what_was_not_searched_is_counted_and_said(http, directory):
    nothing = {"too_large": 0, "binary": 0, "unreadable": 0, "line_too_long": 0}
    post(http, "write", file=f"{directory}/text", content="needle\n")
    answer = post(http, "grep", path=directory, pattern="needle")
    assert answer["data"]["skipped"] == nothing and answer["hint"] is None
    http.post("/v1/bash/exec", json={"command": "printf 'needle\\0' > binary; (echo needle; head -c 1100000 /dev/zero | tr '\\0' x) > large", "exec_dir": directory})
    answer = post(http, "grep", path=directory, pattern="needle")
    assert answer["data"]["skipped"] == nothing | {"too_large": 1, "binary": 1} and answer["data"]["match_count"] == 1
    assert answer["hint"] == "not searched: 1 larger than max_file_size, 1 binary"
    assert post(http, "grep", path=directory, pattern="needle", max_file_size="2M")["data"]["skipped"] == nothing | {"binary": 1}
    # A line that is larger than what one line may take.
    http.post("/v1/bash/exec", json={"command": "rm binary; head -c 70000000 /dev/zero | tr '\\0' x > large", "exec_dir": directory})
    answer = post(http, "grep", path=directory, pattern="needle", max_file_size="1G")
    assert answer["data"]["skipped"] == nothing | {"line_too_long": 1} and "too long" in answer["hint"]


@pytest.mark.parametrize("glob", ["[", "{a"])
def test_a_glob_that_is_not_understood_is_a_failure(http, directory, glob):
    for call, body in (("grep", {"pattern": "x", "include": [glob]}), ("grep", {"pattern": "x", "exclude": [glob]}), ("glob", {"pattern": "*", "exclude": [glob]})):
        answer = post(http, call, path=directory, **body)
        assert answer["success"] is False and answer["data"]["error_type"] == "invalid_path", (call, answer)
