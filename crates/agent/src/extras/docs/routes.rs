//! What every route is, takes and gives. A test asks a running agent for all that is said here.

use serde_json::Value;
use utoipa::ToSchema;

use super::schema::{self, SchemaOf};
use crate::extras::{hooks, markdown, skills};
use crate::file::{content, download, editor, failure, find, grep, list, replace, upload};
use crate::{bash, code, file, mcp, shell};

/// One method of one path.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) takes: Takes,
    pub(crate) query: Option<SchemaOf>,
    pub(crate) gives: Gives,
    /// What it fails with, besides what follows from what it takes.
    pub(crate) fails: &'static [u16],
}

/// The body of a request.
pub(crate) enum Takes {
    Nothing,
    Json(SchemaOf),
    Form(SchemaOf),
}

/// The body of an answer with status 200.
pub(crate) enum Gives {
    /// The envelope, with data that is not described.
    Envelope,
    /// The envelope, with this as data.
    Data(SchemaOf),
    /// The same, or the envelope with `success: false` and a file's failure as data.
    FileData(SchemaOf),
    /// The same as [`Gives::Data`], or as server-sent events where these are asked for.
    Stream(SchemaOf),
    /// JSON without the envelope.
    Plain,
    Bytes,
    Events,
    /// No answer but a WebSocket.
    WebSocket,
}

impl Route {
    const fn new(method: &'static str, path: &'static str, summary: &'static str) -> Self {
        let (takes, gives) = (Takes::Nothing, Gives::Envelope);
        Self { method, path, summary, takes, query: None, gives, fails: &[] }
    }

    const fn json<T: ToSchema>(mut self) -> Self {
        self.takes = Takes::Json(schema::of::<T>);
        self
    }

    const fn form(mut self, form: SchemaOf) -> Self {
        self.takes = Takes::Form(form);
        self
    }

    const fn query<T: ToSchema>(mut self) -> Self {
        self.query = Some(schema::of::<T>);
        self
    }

    const fn data<T: ToSchema>(mut self) -> Self {
        self.gives = Gives::Data(schema::of::<T>);
        self
    }

    const fn file<T: ToSchema>(mut self) -> Self {
        self.gives = Gives::FileData(schema::of::<T>);
        self
    }

    const fn stream<T: ToSchema>(mut self) -> Self {
        self.gives = Gives::Stream(schema::of::<T>);
        self
    }

    const fn gives(mut self, gives: Gives) -> Self {
        self.gives = gives;
        self
    }

    const fn fails(mut self, fails: &'static [u16]) -> Self {
        self.fails = fails;
        self
    }

    /// The schema of the JSON body it takes.
    pub(crate) fn request(&self) -> Option<Value> {
        match self.takes {
            Takes::Json(schema) => Some(schema()),
            Takes::Nothing | Takes::Form(_) => None,
        }
    }
}

/// The route of that method and path.
pub(crate) fn find_route(method: &str, path: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.method == method && route.path == path)
}

const fn get(path: &'static str, summary: &'static str) -> Route {
    Route::new("get", path, summary)
}

const fn post(path: &'static str, summary: &'static str) -> Route {
    Route::new("post", path, summary)
}

const fn patch(path: &'static str, summary: &'static str) -> Route {
    Route::new("patch", path, summary)
}

const fn delete(path: &'static str, summary: &'static str) -> Route {
    Route::new("delete", path, summary)
}

/// The description of a failed file call.
pub(super) fn file_failure() -> Value {
    schema::of::<failure::Facts>()
}

pub(crate) const ROUTES: &[Route] = &[
    get("/v1/sandbox", "What the sandbox is; the health check").gives(Gives::Plain),
    get("/v1/sandbox/packages/python", "Installed Python packages"),
    get("/v1/sandbox/packages/nodejs", "Installed Node.js packages"),
    get("/v1/sandbox/hooks", "Commands that run before the end")
        .query::<hooks::Filter>()
        .data::<Vec<hooks::Hook>>(),
    post("/v1/sandbox/hooks", "Register such a command")
        .json::<hooks::RegisterRequest>()
        .data::<hooks::Hook>(),
    delete("/v1/sandbox/hooks/{name}", "Remove one").fails(&[400, 404]),
    post("/v1/shell/exec", "Run a command in a terminal session that keeps its state")
        .json::<shell::routes::ExecRequest>()
        .stream::<shell::routes::CommandResult>()
        .fails(&[404]),
    post("/v1/shell/view", "What a terminal session shows")
        .json::<shell::routes::IdRequest>()
        .stream::<shell::routes::ViewResult>()
        .fails(&[404]),
    post("/v1/shell/wait", "Wait for the command in progress")
        .json::<shell::routes::WaitRequest>()
        .data::<shell::routes::StatusResult>()
        .fails(&[404]),
    post("/v1/shell/write", "Type into the command running in a terminal session")
        .json::<shell::routes::WriteRequest>()
        .data::<shell::routes::StatusResult>()
        .fails(&[404]),
    post("/v1/shell/kill", "End the command running in a terminal session")
        .json::<shell::routes::IdRequest>()
        .data::<shell::routes::KillResult>()
        .fails(&[404]),
    post("/v1/shell/sessions/create", "Open a session")
        .json::<shell::sessions::CreateRequest>()
        .data::<shell::sessions::CreateResult>(),
    post("/v1/shell/sessions/update", "Change a session")
        .json::<shell::sessions::UpdateRequest>()
        .fails(&[404]),
    get("/v1/shell/sessions", "All sessions").data::<shell::sessions::Sessions>(),
    delete("/v1/shell/sessions", "Close all sessions"),
    get("/v1/shell/sessions/stats", "How many there are").data::<shell::sessions::Stats>(),
    delete("/v1/shell/sessions/{id}", "Close a session").fails(&[404]),
    get("/v1/shell/terminal-url", "A page with a terminal").data::<String>(),
    get("/v1/shell/ws", "A terminal over a WebSocket").gives(Gives::WebSocket).fails(&[400]),
    post("/v1/bash/exec", "Run a command over pipes, in a process of its own")
        .json::<bash::routes::ExecRequest>()
        .stream::<bash::routes::ExecResult>()
        .fails(&[404]),
    post("/v1/bash/output", "Its output from an offset on")
        .json::<bash::routes::OutputRequest>()
        .data::<bash::routes::OutputResult>()
        .fails(&[404]),
    post("/v1/bash/write", "Write to its standard input")
        .json::<bash::routes::WriteRequest>()
        .data::<Option<bash::routes::WriteResult>>()
        .fails(&[404]),
    post("/v1/bash/kill", "Send it a signal").json::<bash::routes::KillRequest>().fails(&[404]),
    get("/v1/bash/sessions", "All bash sessions").data::<Vec<bash::SessionInfo>>(),
    post("/v1/bash/sessions/create", "Open one")
        .json::<bash::routes::CreateRequest>()
        .data::<bash::SessionInfo>(),
    post("/v1/bash/sessions/{id}/close", "Close one").fails(&[404]),
    post("/v1/file/read", "Read a text file or some of its lines")
        .json::<file::routes::ReadRequest>()
        .file::<content::ReadResult>(),
    post("/v1/file/write", "Write or append to a file")
        .json::<file::routes::WriteRequest<'static>>()
        .file::<content::WriteResult>(),
    post("/v1/file/replace", "Replace text in a file")
        .json::<file::routes::ReplaceRequest>()
        .file::<replace::ReplaceResult>(),
    post("/v1/file/search", "Lines of a file that match")
        .json::<file::routes::SearchRequest>()
        .file::<content::SearchResult>(),
    post("/v1/file/find", "Find files by glob")
        .json::<file::routes::FindRequest>()
        .file::<find::FindResult>(),
    post("/v1/file/grep", "Search files with a regular expression")
        .json::<file::routes::GrepRequest>()
        .file::<grep::GrepResult>(),
    post("/v1/file/glob", "Files by glob, with metadata")
        .json::<file::routes::GlobRequest>()
        .file::<find::GlobResult>(),
    post("/v1/file/list", "List a directory").json::<file::routes::ListRequest>().file::<list::ListResult>(),
    post("/v1/file/upload", "Upload as multipart/form-data")
        .form(upload::form_schema)
        .file::<upload::UploadResult>(),
    get("/v1/file/download", "Download")
        .query::<download::DownloadQuery>()
        .gives(Gives::Bytes)
        .fails(&[403, 404]),
    post("/v1/file/str_replace_editor", "View and edit a file, with undo")
        .json::<editor::EditRequest>()
        .file::<editor::EditResult>(),
    get("/v1/file/watch", "Watchers").gives(Gives::Plain),
    post("/v1/file/watch", "Watch a directory")
        .json::<file::watch::CreateRequest>()
        .gives(Gives::Plain)
        .fails(&[403, 404]),
    delete("/v1/file/watch/{id}", "Stop a watcher").gives(Gives::Plain).fails(&[404]),
    get("/v1/file/watch/{id}/events", "Its events as they happen").gives(Gives::Events).fails(&[404]),
    post("/v1/file/watch/{id}/poll", "Its events since a cursor")
        .json::<file::watch::PollRequest>()
        .gives(Gives::Plain)
        .fails(&[404]),
    post("/v1/file/watch/wait", "Wait for one change of a path")
        .json::<file::watch::WaitRequest>()
        .gives(Gives::Plain)
        .fails(&[403, 404, 408]),
    post("/v1/code/execute", "Run Python or JavaScript")
        .json::<code::unified::ExecuteRequest>()
        .data::<code::unified::ExecuteResult>()
        .fails(&[501]),
    get("/v1/code/info", "Languages"),
    post("/v1/jupyter/execute", "Run Python in a session")
        .json::<code::jupyter::ExecuteRequest>()
        .fails(&[501]),
    get("/v1/jupyter/info", "Kernels"),
    get("/v1/jupyter/sessions", "Python sessions"),
    delete("/v1/jupyter/sessions", "Close all of them"),
    post("/v1/jupyter/sessions/create", "Open one").json::<code::jupyter::CreateRequest>().fails(&[501]),
    delete("/v1/jupyter/sessions/{id}", "Close one").fails(&[404]),
    post("/v1/nodejs/execute", "Run JavaScript").json::<code::nodejs::ExecuteRequest>().fails(&[501]),
    get("/v1/nodejs/info", "Node.js versions").fails(&[501]),
    get("/v1/nodejs/sessions", "JavaScript sessions"),
    post("/v1/nodejs/sessions", "Open one").json::<code::nodejs::CreateRequest>().fails(&[501]),
    get("/v1/nodejs/sessions/{id}", "One of them").fails(&[404]),
    patch("/v1/nodejs/sessions/{id}", "Change one").json::<code::nodejs::UpdateRequest>().fails(&[404]),
    delete("/v1/nodejs/sessions/{id}", "Close one").fails(&[404]),
    post("/v1/util/convert_to_markdown", "A document as Markdown")
        .json::<markdown::ConvertRequest>()
        .data::<String>()
        .fails(&[501]),
    get("/v1/mcp/servers", "MCP servers").query::<mcp::ServersQuery>().data::<Vec<String>>(),
    get("/v1/mcp/{server}/tools", "Tools of one").fails(&[404]),
    post("/v1/mcp/{server}/tools/{tool}", "Call a tool").json::<mcp::Arguments>().fails(&[404]),
    post("/mcp", "MCP over streamable HTTP").json::<mcp::Message>().gives(Gives::Plain),
    post("/v1/skills/register", "Register skills").form(skills::form_schema),
    get("/v1/skills/metadatas", "Registered skills").query::<skills::Names>(),
    delete("/v1/skills", "Forget all skills"),
    get("/v1/skills/{name}/content", "The text of a skill").fails(&[404]),
    delete("/v1/skills/{name}", "Forget one").fails(&[404]),
    get("/auth", "Whether the caller is authenticated").gives(Gives::Plain),
    post("/tickets", "A short-lived ticket").gives(Gives::Plain),
];
