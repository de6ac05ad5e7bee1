"""/v1/file: content, search, upload, download."""

import base64
import io
import os

import pydantic
import pytest
from agent_sandbox.core.api_error import ApiError
from agent_sandbox.errors.unprocessable_entity_error import UnprocessableEntityError

FAILED = pydantic.ValidationError


def put(api, path, content, **options):
    return api.file.write_file(file=path, content=content, **options).data


def test_write_then_read_ranges(api, directory):
    path = f"{directory}/new/deep/a.txt"
    assert put(api, path, "l0\nl1\nl2\nl3").bytes_written == 11
    read = lambda **options: api.file.read_file(file=path, **options).data.content
    assert read() == "l0\nl1\nl2\nl3"
    assert read(start_line=1, end_line=3) == "l1\nl2\n"
    assert read(start_line=3) == "l3"
    assert read(start_line=9) == "" and read(end_line=0) == "" and read(start_line=2, end_line=2) == ""
    check = api.shell.exec_command(command=f"test -s {path} && echo OK || echo MISSING").data.output
    assert check.strip() == "OK"


def test_append_newlines_and_encodings(api, directory):
    path = f"{directory}/a"
    put(api, path, "a", trailing_newline=True)
    put(api, path, "b", append=True, leading_newline=True)
    assert api.file.read_file(file=path).data.content == "a\n\nb"
    data = bytes(range(256)) * 3
    put(api, path, base64.b64encode(data).decode(), encoding="base64")
    assert b"".join(api.file.download_file(path=path)) == data
    put(api, path, data.decode("latin-1"), encoding="raw")
    assert b"".join(api.file.download_file(path=path)) == data
    with pytest.raises(FAILED):
        put(api, path, "***", encoding="base64")


@pytest.mark.parametrize(
    "make, path",
    [
        ("true", "missing"),
        ("mkdir d", "d"),
        ("printf '\\377\\376' > binary", "binary"),
        ("mkfifo pipe", "pipe"),
        ("ln -s loop loop", "loop"),
        ("true", "x" * 300),
        ("touch f", "f/below"),
        ("true", "nul\0byte"),
    ],
)
def test_reads_that_fail_raise(api, directory, make, path):
    api.bash.exec(command=make, exec_dir=directory)
    with pytest.raises(FAILED):
        api.file.read_file(file=f"{directory}/{path}")


def test_the_failure_object_says_what_failed(http, directory):
    body = http.post("/v1/file/read", json={"file": f"{directory}/no"}).json()
    assert body["success"] is False
    failure = body["data"]
    assert (failure["operation"], failure["error_type"], failure["errno"], failure["errno_name"]) == ("read", "not_found", 2, "ENOENT")
    assert failure["path"] == f"{directory}/no" and failure["exception_type"] == "FileNotFoundError"


@pytest.mark.parametrize("path", ["/proc/nope/x", "/", "/dev/full/x"])
def test_writes_that_fail_raise(api, path):
    with pytest.raises(FAILED):
        put(api, path, "x")


def test_a_newline_in_a_name_is_a_name(api, directory):
    path = f"{directory}/two\nlines ü.txt"
    put(api, path, "x")
    assert api.file.read_file(file=path).data.content == "x"
    assert api.file.find_files(path=directory, glob="*.txt").data.files == [path]


def test_replace_and_search(api, directory):
    path = f"{directory}/a"
    put(api, path, "one two one\nthree\none\n")
    assert api.file.replace_in_file(file=path, old_str="one", new_str="1").data.replaced_count == 3
    assert api.file.replace_in_file(file=path, old_str="absent", new_str="1").data.replaced_count == 0
    found = api.file.search_in_file(file=path, regex=r"^\d").data
    assert (found.matches, found.line_numbers) == (["1 two 1", "1"], [1, 3])
    for bad in ("(", r"(?<=a)b"):
        with pytest.raises(FAILED):
            api.file.search_in_file(file=path, regex=bad)
    with pytest.raises(UnprocessableEntityError):
        api.file.replace_in_file(file=path, old_str="", new_str="1")


@pytest.fixture
def tree(api, directory):
    api.bash.exec(
        exec_dir=directory,
        command="mkdir -p src/x/y .hidden .git; touch a.md src/b.md src/x/test_a.py src/test_b.py src/x/y/c.py .hidden/h.py"
        "; ln -s a.md link.md; ln -s . loop; echo 'needle one' > a.md; printf 'x\\nNeedle two\\nz\\n' > src/x/y/c.py"
        "; echo needle > .hidden/h.py; printf 'needle\\0' > bin",
    )
    return directory


def test_find_matches_globs_relative_to_the_root(api, tree):
    def find(glob):
        return [path.removeprefix(tree + "/") for path in api.file.find_files(path=tree, glob=glob).data.files]

    assert find("*.md") == ["a.md", "link.md"]
    assert find("**/*.py") == [".hidden/h.py", "src/test_b.py", "src/x/test_a.py", "src/x/y/c.py"]
    assert find("src/**/test_*.py") == ["src/test_b.py", "src/x/test_a.py"]
    assert find("src") == [] and find("none*") == []
    assert find(f"{tree}/*.md") == ["a.md", "link.md"]


def test_glob_has_metadata_order_and_limits(api, tree):
    result = api.file.glob_files(path=tree, pattern="**/*.py").data
    assert [file.name for file in result.files] == ["test_b.py", "test_a.py", "c.py"] and result.total_count == 3
    assert result.files[2].size == 15 and result.files[2].modified_time and not result.truncated
    limited = api.file.glob_files(path=tree, pattern="**/*.py", max_results=1, sort_by="name", sort_desc=True).data
    assert [file.name for file in limited.files] == ["test_b.py"] and limited.truncated and limited.total_count == 3
    hidden = api.file.glob_files(path=tree, pattern="**/*.py", include_hidden=True, exclude=["**/test_*"], include_metadata=False).data
    assert [file.name for file in hidden.files] == ["h.py", "c.py"] and hidden.files[0].size is None
    dirs = api.file.glob_files(path=tree, pattern="src/*", files_only=False).data
    assert {file.name: file.is_directory for file in dirs.files} == {"b.md": False, "test_b.py": False, "x": True}


def test_grep_is_ripgrep(api, tree):
    def grep(pattern, **options):
        return api.file.grep_files(path=tree, pattern=pattern, **options).data

    result = grep("needle")
    assert [(match.file, match.line_number, match.line_content) for match in result.matches] == [(f"{tree}/a.md", 1, "needle one")]
    assert result.match_count == 1 and result.files_matched == 1 and not result.truncated
    assert len(grep("needle", case_insensitive=True).matches) == 2
    context = grep("needle two", case_insensitive=True, context_before=1, context_after=1).matches[0]
    assert (context.context_before, context.context_after, context.line_number) == (["x"], ["z"], 2)
    assert [m.file for m in grep("needle", include=["**/.hidden/*"]).matches] == [f"{tree}/.hidden/h.py"]
    assert grep("needle", exclude=["*.md"]).matches == []
    assert [m.file for m in grep("eedle", type="py").matches] == [f"{tree}/src/x/y/c.py"]
    assert grep("eedle", recursive=False).match_count == 1
    assert grep("needle.one", fixed_strings=True).matches == []
    assert grep("x\nNeedle", multiline=True).match_count == 1
    one = api.file.grep_files(path=f"{tree}/a.md", pattern="one").data
    assert one.matches[0].file == f"{tree}/a.md"


def test_grep_limits_and_long_lines(api, directory):
    put(api, f"{directory}/many", "hit\n" * 600)
    default = api.file.grep_files(path=directory, pattern="hit").data
    assert len(default.matches) == 500 and default.truncated
    more = api.file.grep_files(path=directory, pattern="hit", max_results=501).data
    assert len(more.matches) == 501 and more.truncated
    rest = api.file.grep_files(path=directory, pattern="hit", offset=590).data
    assert [match.line_number for match in rest.matches] == list(range(591, 601)) and not rest.truncated
    put(api, f"{directory}/many", "needle" + "x" * 31_000)
    assert len(api.file.grep_files(path=directory, pattern="needle").data.matches[0].line_content) == 31_006
    put(api, f"{directory}/large", "needle\n" + "y" * 2_000_000)
    assert api.file.grep_files(path=directory, pattern="needle").data.files_matched == 1
    assert api.file.grep_files(path=directory, pattern="needle", max_file_size="3M").data.files_matched == 2


@pytest.mark.parametrize("pattern", ["(", r"(?<=a)b", r"(a)\1"])
def test_a_pattern_that_is_not_understood_raises(api, directory, pattern):
    with pytest.raises(FAILED):
        api.file.grep_files(path=directory, pattern=pattern)


def test_a_missing_root_is_a_failure(api, http):
    with pytest.raises(FAILED):
        api.file.grep_files(path="/no/such", pattern="x")
    with pytest.raises(FAILED):
        api.file.glob_files(path="/no/such", pattern="*")
    for route, body in (("find", {"glob": "*"}), ("list", {})):
        answer = http.post(f"/v1/file/{route}", json={"path": "/no/such", **body}).json()
        assert answer["success"] is False and answer["data"]["error_type"] == "not_found"


def test_list(api, tree):
    flat = api.file.list_path(path=tree).data
    assert [file.name for file in flat.files] == [".git", ".hidden", "a.md", "bin", "link.md", "loop", "src"]
    assert flat.total_count == 7 and flat.directory_count + flat.file_count == 7
    deep = api.file.list_path(path=tree, recursive=True, show_hidden=False).data
    paths = [file.path.removeprefix(tree + "/") for file in deep.files]
    assert "src/x/y/c.py" in paths and "src/x" in paths and not any(".hidden" in path for path in paths)
    typed = api.file.list_path(path=tree, recursive=True, file_types=[".py"], include_permissions=True, sort_by="size", sort_desc=True).data
    files = [file for file in typed.files if not file.is_directory]
    assert all(file.extension == ".py" for file in files) and files[0].size >= files[-1].size
    assert files[0].permissions.startswith("-rw")
    assert {file.name for file in api.file.list_path(path=tree, recursive=True, max_depth=1, show_hidden=False).data.files} == {"a.md", "bin", "link.md", "loop", "src"}


def test_upload_and_download_stream_any_bytes(api, directory):
    data = os.urandom(3_000_000)
    path = f"{directory}/t/a b#?.bin"
    result = api.file.upload_file(file=("local.bin", io.BytesIO(data)), path=path).data
    assert (result.file_path, result.file_size, result.success) == (path, len(data), True)
    assert b"".join(api.file.download_file(path=path)) == data
    into = api.file.upload_file(file=("name.txt", b"x"), path=f"{directory}/").data
    assert into.file_path == f"{directory}/name.txt"
    nameless = api.file.upload_file(file=io.BytesIO(b"")).data
    assert nameless.file_size == 0 and nameless.file_path.endswith("/upload")
    api.bash.exec(command=f"rm -f '{nameless.file_path}'")


def test_upload_failures_raise(api, directory):
    api.bash.exec(command=f"touch {directory}/file")
    with pytest.raises(FAILED):
        api.file.upload_file(file=("a", b"x"), path=f"{directory}/file/below")


@pytest.mark.parametrize("path, status", [("/no/such", 404), ("/tmp", 400), ("rel\0ative", 400)])
def test_a_failed_download_is_an_http_error(api, path, status):
    with pytest.raises(ApiError) as error:
        b"".join(api.file.download_file(path=path))
    assert error.value.status_code == status


def test_download_answers_form_encoded_paths_with_a_length(http, directory, api):
    put(api, f"{directory}/a b#?.txt", "content")
    answer = http.get("/v1/file/download?path=" + f"{directory}/a+b%23%3F.txt".replace("/", "%2F"))
    assert answer.content == b"content" and answer.headers["content-length"] == "7"


def test_full_disk_is_no_space_left(http):
    answer = http.post("/v1/file/write", json={"file": "/dev/full", "content": "x"}).json()
    assert answer["success"] is False and answer["data"]["error_type"] == "invalid_target"
