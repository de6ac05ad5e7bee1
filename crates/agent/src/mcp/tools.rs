//! The tools: which of our routes they are, and what they take.

use serde_json::{Map, Value, json};

/// A route as a tool.
pub(super) struct Tool {
    pub(super) name: &'static str,
    description: &'static str,
    pub(super) route: &'static str,
    /// Name, JSON type, description, whether it is required.
    arguments: &'static [(&'static str, &'static str, &'static str, bool)],
}

pub(super) const TOOLS: &[Tool] = &[
    Tool {
        name: "shell_exec",
        description: "Run a command in a terminal session that keeps its state",
        route: "/v1/shell/exec",
        arguments: &[
            ("command", "string", "the command", true),
            ("id", "string", "a session; none makes a new one", false),
            ("exec_dir", "string", "where to run it", false),
            ("timeout", "number", "seconds to wait", false),
            ("hard_timeout", "number", "seconds until it is ended", false),
            ("async_mode", "boolean", "do not wait", false),
        ],
    },
    Tool {
        name: "shell_view",
        description: "What a terminal session shows",
        route: "/v1/shell/view",
        arguments: &[("id", "string", "the session", true)],
    },
    Tool {
        name: "shell_kill",
        description: "End the command running in a terminal session",
        route: "/v1/shell/kill",
        arguments: &[("id", "string", "the session", true)],
    },
    Tool {
        name: "shell_write",
        description: "Type into the command running in a terminal session",
        route: "/v1/shell/write",
        arguments: &[
            ("id", "string", "the session", true),
            ("input", "string", "what to type", true),
            ("press_enter", "boolean", "end with a line feed", false),
        ],
    },
    Tool {
        name: "file_read",
        description: "Read a text file or some of its lines",
        route: "/v1/file/read",
        arguments: &[
            ("file", "string", "absolute path", true),
            ("start_line", "integer", "first line, from 0", false),
            ("end_line", "integer", "line to stop before", false),
        ],
    },
    Tool {
        name: "file_write",
        description: "Write or append to a file",
        route: "/v1/file/write",
        arguments: &[
            ("file", "string", "absolute path", true),
            ("content", "string", "what to write", true),
            ("append", "boolean", "keep what is there", false),
        ],
    },
    Tool {
        name: "file_replace",
        description: "Replace text in a file",
        route: "/v1/file/replace",
        arguments: &[
            ("file", "string", "absolute path", true),
            ("old_str", "string", "text to replace", true),
            ("new_str", "string", "text to put there", true),
        ],
    },
    Tool {
        name: "file_find",
        description: "Find files by glob",
        route: "/v1/file/find",
        arguments: &[("path", "string", "directory", true), ("glob", "string", "pattern", true)],
    },
    Tool {
        name: "file_grep",
        description: "Search files with a regular expression",
        route: "/v1/file/grep",
        arguments: &[
            ("path", "string", "directory or file", true),
            ("pattern", "string", "regular expression", true),
            ("case_insensitive", "boolean", "ignore case", false),
            ("max_results", "integer", "matches at most", false),
        ],
    },
    Tool {
        name: "file_list",
        description: "List a directory",
        route: "/v1/file/list",
        arguments: &[
            ("path", "string", "directory", true),
            ("recursive", "boolean", "with all below", false),
        ],
    },
    Tool {
        name: "str_replace_editor",
        description: "View and edit a file, with undo",
        route: "/v1/file/str_replace_editor",
        arguments: &[
            ("command", "string", "view, create, str_replace, insert or undo_edit", true),
            ("path", "string", "absolute path", true),
            ("file_text", "string", "for create", false),
            ("old_str", "string", "for str_replace", false),
            ("new_str", "string", "for str_replace and insert", false),
            ("insert_line", "integer", "for insert", false),
            ("view_range", "array", "for view: first and last line", false),
        ],
    },
    Tool {
        name: "code_execute",
        description: "Run Python or JavaScript",
        route: "/v1/code/execute",
        arguments: &[
            ("language", "string", "python or javascript", true),
            ("code", "string", "the code", true),
            ("stateful", "boolean", "keep its state", false),
            ("session_id", "string", "a session to go on in", false),
            ("timeout", "number", "seconds", false),
        ],
    },
];

/// As `tools/list` tells it.
pub(super) fn describe(tool: &Tool) -> Value {
    let properties: Map<String, Value> = tool
        .arguments
        .iter()
        .map(|(name, kind, description, _)| {
            ((*name).to_owned(), json!({ "type": kind, "description": description }))
        })
        .collect();
    let required: Vec<_> =
        tool.arguments.iter().filter(|argument| argument.3).map(|argument| argument.0).collect();
    let schema = json!({ "type": "object", "properties": properties, "required": required });
    json!({ "name": tool.name, "description": tool.description, "inputSchema": schema })
}
