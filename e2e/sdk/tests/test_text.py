"""/v1/file: line ends, byte-order marks and encodings mean the same to every call."""

import codecs

import pytest

FORMS = {
    "crlf": ("utf-8", b""),
    "bom": ("utf-8", codecs.BOM_UTF8),
    "utf-16le": ("utf-16-le", codecs.BOM_UTF16_LE),
    "utf-16be": ("utf-16-be", codecs.BOM_UTF16_BE),
}


def post(http, call, **body):
    return http.post(f"/v1/file/{call}", json=body).json()


@pytest.fixture
def file(http, directory):
    """Writes bytes, and reads them back."""

    class File:
        path = f"{directory}/file.txt"

        def put(self, content):
            answer = http.post("/v1/file/upload", data={"path": self.path}, files={"file": ("x", content)}).json()
            assert answer["success"], answer

        def get(self):
            return http.get("/v1/file/download", params={"path": self.path}).content

    return File()


def view(http, path, **options):
    output = post(http, "str_replace_editor", command="view", path=path, **options)["data"]["output"]
    return [line.split("\t", 1)[1] for line in output.splitlines()[1:]]


@pytest.mark.parametrize("form", FORMS)
def test_every_call_sees_the_same_lines_and_edits_keep_what_the_file_is(http, file, form):
    encoding, mark = FORMS[form]
    lines = ["alpha ä", "beta", "gamma", "delta"]
    text = "".join(line + "\r\n" for line in lines)
    file.put(mark + text.encode(encoding))

    read = post(http, "read", file=file.path)
    assert read["data"]["content"].splitlines() == lines and (read["hint"] is None) == (not mark)
    assert post(http, "read", file=file.path, start_line=1, end_line=3)["data"]["content"].splitlines() == lines[1:3]
    assert post(http, "read", file=file.path, end_line=1)["data"]["content"].splitlines() == lines[:1]
    assert view(http, file.path) == lines and view(http, file.path, view_range=[2, 3]) == lines[1:3]
    for pattern, line in (("^alpha", 1), ("beta$", 2), ("^gamma$", 3)):
        assert post(http, "search", file=file.path, regex=pattern)["data"]["line_numbers"] == [line]
        match, = post(http, "grep", path=file.path, pattern=pattern)["data"]["matches"]
        assert (match["line_number"], match["line_content"]) == (line, lines[line - 1])

    # What was shown is found, and what is put in has the line ends that are there.
    edit = post(http, "str_replace_editor", command="str_replace", path=file.path, old_str="beta\ngamma", new_str="B\nC\nD")
    assert edit["success"], edit
    assert post(http, "replace", file=file.path, old_str="D\ndelta", new_str="E\nF")["data"]["replaced_count"] == 1
    assert post(http, "str_replace_editor", command="insert", path=file.path, insert_line=1, new_str="one\ntwo")["success"]
    after = ["alpha ä", "one", "two", "B", "C", "E", "F"]
    assert file.get() == mark + "".join(line + "\r\n" for line in after).encode(encoding)
    assert post(http, "str_replace_editor", command="undo_edit", path=file.path)["success"]
    assert "one" not in post(http, "read", file=file.path)["data"]["content"]
    assert file.get().startswith(mark + "alpha ä\r\n".encode(encoding))


def test_line_ends_can_be_changed_and_mixed_ones_stay(http, file):
    file.put(b"a\r\nb\nc\r\nd")
    assert post(http, "replace", file=file.path, old_str="b\nc", new_str="b\nx\nc")["success"]
    assert file.get() == b"a\r\nb\nx\nc\r\nd"
    assert post(http, "replace", file=file.path, old_str="d", new_str="d\ne")["success"]
    assert file.get() == b"a\r\nb\nx\nc\r\nd\r\ne"
    assert post(http, "replace", file=file.path, old_str="\r\n", new_str="\n")["data"]["replaced_count"] == 3
    assert file.get() == b"a\nb\nx\nc\nd\ne"
    # A text with CRLF is found in a file without, and leaves it so.
    assert post(http, "replace", file=file.path, old_str="a\r\nb", new_str="A\r\nB")["data"]["replaced_count"] == 1
    assert file.get() == b"A\nB\nx\nc\nd\ne"
    assert post(http, "replace", file=file.path, old_str="\n", new_str="\r\n")["data"]["replaced_count"] == 5
    assert file.get() == b"A\r\nB\r\nx\r\nc\r\nd\r\ne"


def test_the_mark_may_be_given_or_left_out_and_is_found_at_the_beginning(http, file):
    file.put(codecs.BOM_UTF8 + b"first\nsecond\n")
    for old, new in (("\ufefffirst", "1st"), ("1st\nsecond", "one\ntwo")):
        assert post(http, "str_replace_editor", command="str_replace", path=file.path, old_str=old, new_str=new)["success"]
    assert file.get() == codecs.BOM_UTF8 + b"one\ntwo\n"


def test_what_is_no_text_is_said_to_be_none_and_replaced_by_bytes(http, file):
    for content in (b"\xff\xfe", b"\xff\xfeab\x00", b"caf\xe9 one\n", b"\xff\xfe\x00\x00a\x00\x00\x00"):
        file.put(content)
        assert post(http, "read", file=file.path)["data"]["error_type"] == "decode_error", content
        edit = post(http, "str_replace_editor", command="str_replace", path=file.path, old_str="one", new_str="two")
        assert edit["data"]["error_type"] == "decode_error" and file.get() == content
    file.put(b"caf\xe9 one\r\n")
    assert post(http, "replace", file=file.path, old_str="one", new_str="two")["success"]
    assert file.get() == b"caf\xe9 two\r\n"


def test_an_edit_that_does_nothing_says_so(http, file):
    file.put(b"one\n")
    nothing = post(http, "replace", file=file.path, old_str="absent", new_str="x")
    assert nothing["success"] and nothing["message"].startswith("Nothing was replaced") and nothing["hint"]
    done = post(http, "replace", file=file.path, old_str="one", new_str="two")
    assert (done["message"], done["hint"]) == ("Replacement done", None)
    same = post(http, "str_replace_editor", command="str_replace", path=file.path, old_str="two", new_str="two")
    assert "Nothing was changed" in same["data"]["output"]
    unchanged = post(http, "replace", file=file.path, old_str="two", new_str="two")
    assert unchanged["data"]["replaced_count"] == 1 and unchanged["message"].startswith("Nothing was changed")
    absent = post(http, "str_replace_editor", command="str_replace", path=file.path, old_str="absent", new_str="x")
    assert absent["success"] is False
    # Nothing was done that could be undone.
    assert post(http, "str_replace_editor", command="undo_edit", path=file.path)["success"] is False
    assert file.get() == b"two\n"


def test_dollar_and_lines_in_multiline_search(http, file):
    file.put(b"x\r\nalpha beta\r\ngamma\r\n")
    match, = post(http, "grep", path=file.path, pattern="beta$", multiline=True)["data"]["matches"]
    assert (match["line_number"], match["line_content"]) == (2, "alpha beta")
    context, = post(http, "grep", path=file.path, pattern="^alpha", context_before=1, context_after=1)["data"]["matches"]
    assert (context["context_before"], context["context_after"]) == (["x"], ["gamma"])
