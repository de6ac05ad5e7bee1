//! The tools: which of our routes they are. What they do and take is what the description of the API says of the route.

use serde_json::{Value, json};

use crate::extras::docs::routes::find_route;
use crate::extras::docs::schema;

/// A route as a tool.
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) route: &'static str,
}

const fn tool(name: &'static str, route: &'static str) -> Tool {
    Tool { name, route }
}

pub(super) const TOOLS: &[Tool] = &[
    tool("shell_exec", "/v1/shell/exec"),
    tool("shell_view", "/v1/shell/view"),
    tool("shell_kill", "/v1/shell/kill"),
    tool("shell_write", "/v1/shell/write"),
    tool("file_read", "/v1/file/read"),
    tool("file_write", "/v1/file/write"),
    tool("file_replace", "/v1/file/replace"),
    tool("file_find", "/v1/file/find"),
    tool("file_grep", "/v1/file/grep"),
    tool("file_list", "/v1/file/list"),
    tool("str_replace_editor", "/v1/file/str_replace_editor"),
    tool("code_execute", "/v1/code/execute"),
];

/// As `tools/list` tells it.
pub(super) fn describe(tool: &Tool) -> Option<Value> {
    let route = find_route("post", tool.route)?;
    let schema = schema::without_nulls(route.request()?);
    Some(json!({ "name": tool.name, "description": route.summary, "inputSchema": schema }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_a_route_with_named_arguments() {
        for tool in TOOLS {
            let described = describe(tool).unwrap();
            let schema = &described["inputSchema"];
            assert_eq!(schema["type"], "object", "{}", tool.name);
            assert!(!schema["required"].as_array().unwrap().is_empty(), "{}", tool.name);
        }
    }
}
