//! `/v1/skills`: directories with a SKILL.md, registered from a path or a zip archive.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path as UrlPath, Request, State};
use axum::response::Response;
use axum::routing::{delete, get, post};
use multer::SizeLimit;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::app::App;
use crate::bash::run_once;
use crate::http::{ApiError, QueryOf, form, ok};

/// Bytes of an archive, which is held in memory while it arrives.
const ARCHIVE_BYTES: u64 = 32 * 1024 * 1024;
const SKILL_BYTES: u64 = 1024 * 1024;
const MAX_SKILLS: usize = 256;
const UNPACK: Duration = Duration::from_secs(60);
const UNPACK_COMMAND: &str = "mkdir -p \"$TO\" && if command -v unzip > /dev/null; then unzip -qo \"$ARCHIVE\" -d \"$TO\"; else python3 -m zipfile -e \"$ARCHIVE\" \"$TO\"; fi; code=$?; rm -f \"$ARCHIVE\"; exit $code";

type Answer = Result<Response, ApiError>;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/skills/register", post(register))
        .route("/v1/skills/metadatas", get(list))
        .route("/v1/skills", delete(clear))
        .route("/v1/skills/{name}", delete(remove))
        .route("/v1/skills/{name}/content", get(content))
}

struct Skill {
    name: String,
    path: PathBuf,
    metadata: Map<String, Value>,
    content: String,
}

impl Skill {
    fn describe(&self) -> Value {
        json!({ "name": self.name, "path": self.path, "metadata": self.metadata, "dependency_commands": [] })
    }
}

/// Where skills are registered: `AIO_SKILLS_PATH`, else below the home directory. The directory is the only state.
fn root(app: &App) -> PathBuf {
    std::env::var_os("AIO_SKILLS_PATH").map_or_else(|| app.home().join(".skills"), PathBuf::from)
}

/// The form, as the description of the API has it: it needs a file or a path.
pub(crate) fn form_schema() -> Value {
    json!({
        "type": "object", "anyOf": [{ "required": ["file"] }, { "required": ["path"] }],
        "properties": {
            "file": { "type": "string", "contentMediaType": "application/zip", "description": "A zip archive." },
            "path": { "type": "string", "description": "A directory in the sandbox, when there is no file." },
            "name": { "type": "string", "description": "The skill's name." },
        },
    })
}

async fn register(State(app): State<App>, request: Request) -> Answer {
    let mut form = form(request, SizeLimit::new().whole_stream(ARCHIVE_BYTES))?;
    let (mut archive, mut path, mut name) = (None, None, None);
    let broken = |error: multer::Error| ApiError::bad_request(format!("the form cannot be read: {error}"));
    while let Some(field) = form.next_field().await.map_err(broken)? {
        match field.name() {
            Some("file") => archive = Some(field.bytes().await.map_err(broken)?),
            Some("path") => path = Some(field.text().await.map_err(broken)?),
            Some("name") => name = Some(field.text().await.map_err(broken)?),
            _ => {}
        }
    }
    if let Some(name) = &name {
        checked_name(name)?;
    }
    let root = root(&app);
    let from = match (archive.filter(|archive| !archive.is_empty()), path.filter(|path| !path.is_empty())) {
        (Some(archive), _) => {
            let to = match &name {
                Some(name) => root.join(name),
                None => root.clone(),
            };
            unpack(&app, archive.to_vec(), &to).await?;
            to
        }
        (None, Some(path)) => {
            let to = root.clone();
            link(&app, PathBuf::from(path), to, name).await?;
            root.clone()
        }
        (None, None) => {
            return Err(ApiError::unprocessable("file", "the form has neither a file nor a path", "missing"));
        }
    };
    let found = app.pool().run(move || skills_below(&from)).await?;
    let registered: Vec<_> = found.iter().map(Skill::describe).collect();
    if registered.is_empty() {
        return Err(ApiError::bad_request("there is no SKILL.md in what was registered"));
    }
    Ok(ok("Skills registered", json!({ "count": registered.len(), "registered": registered })))
}

fn checked_name(name: &str) -> Result<(), ApiError> {
    let good = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(good) {
        return Err(ApiError::invalid("name", format!("{name:?} is not the name of a skill")));
    }
    Ok(())
}

async fn unpack(app: &App, bytes: Vec<u8>, to: &Path) -> Result<(), ApiError> {
    let archive = std::env::temp_dir().join(format!("skill-{}.zip", uuid::Uuid::new_v4()));
    let file = archive.clone();
    let written = app.pool().run(move || std::fs::write(&file, bytes)).await?;
    written.map_err(|error| ApiError::internal(format!("the archive cannot be kept: {error}")))?;
    let environment = vec![
        ("ARCHIVE".to_owned(), archive.to_string_lossy().into_owned()),
        ("TO".to_owned(), to.to_string_lossy().into_owned()),
    ];
    let ran = run_once(app, UNPACK_COMMAND, environment, app.workspace(), None, UNPACK).await?;
    if ran.exit_code == Some(0) {
        return Ok(());
    }
    let reason: String = ran.stderr.trim().chars().take(300).collect();
    Err(ApiError::bad_request(format!("the archive cannot be unpacked: {reason}")))
}

/// Makes a directory that lies elsewhere one of the skills.
async fn link(app: &App, path: PathBuf, root: PathBuf, name: Option<String>) -> Result<(), ApiError> {
    let linked = app.pool().run(move || {
        let name = name.or_else(|| path.file_name().map(|name| name.to_string_lossy().into_owned()));
        std::fs::create_dir_all(&root)?;
        std::fs::metadata(&path)?;
        let place = root.join(name.unwrap_or_else(|| "skill".to_owned()));
        match std::os::unix::fs::symlink(&path, &place) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    });
    linked.await?.map_err(|error| ApiError::bad_request(format!("the path cannot be registered: {error}")))
}

/// Skills in `root` itself and up to three directories below.
fn skills_below(root: &Path) -> Vec<Skill> {
    let walk =
        ignore::WalkBuilder::new(root).standard_filters(false).follow_links(true).max_depth(Some(4)).build();
    let files = walk.filter_map(Result::ok).filter(|entry| entry.file_name() == "SKILL.md");
    let mut skills: Vec<_> = files.take(MAX_SKILLS).filter_map(|entry| read_skill(entry.path())).collect();
    skills.sort_by(|a, b| a.name.cmp(&b.name));
    skills
}

fn read_skill(file: &Path) -> Option<Skill> {
    if std::fs::metadata(file).ok()?.len() > SKILL_BYTES {
        return None;
    }
    let text = std::fs::read_to_string(file).ok()?;
    let (metadata, content) = front_matter(&text);
    let path = file.parent()?.to_path_buf();
    let directory = path.file_name()?.to_string_lossy().into_owned();
    let name = metadata.get("name").and_then(Value::as_str).map_or(directory, str::to_owned);
    Some(Skill { name, path, content: content.to_owned(), metadata })
}

/// `---` lines around `key: value` pairs. Nested YAML is kept as text.
fn front_matter(text: &str) -> (Map<String, Value>, &str) {
    let mut metadata = Map::new();
    let Some(rest) = text.strip_prefix("---\n") else { return (metadata, text) };
    let Some((front, content)) = rest.split_once("\n---") else { return (metadata, text) };
    for line in front.lines().filter(|line| !line.starts_with([' ', '#', '-'])) {
        if let Some((key, value)) = line.split_once(':') {
            let value = value.trim().trim_matches(['"', '\'']);
            metadata.insert(key.trim().to_owned(), Value::String(value.to_owned()));
        }
    }
    (metadata, content.trim_start_matches(['-', '\r', '\n']))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct Names {
    /// Only these, with commas between them.
    names: Option<String>,
}

async fn list(State(app): State<App>, QueryOf(query): QueryOf<Names>) -> Answer {
    let root = root(&app);
    let mut skills = app.pool().run(move || skills_below(&root)).await?;
    if let Some(names) = query.names.filter(|names| !names.is_empty()) {
        let wanted: Vec<_> = names.split(',').map(str::trim).collect();
        skills.retain(|skill| wanted.contains(&skill.name.as_str()));
    }
    let skills: Vec<_> = skills.iter().map(Skill::describe).collect();
    Ok(ok("Skills", json!({ "skills": skills })))
}

async fn find(app: &App, name: &str) -> Result<Skill, ApiError> {
    let root = root(app);
    let skills = app.pool().run(move || skills_below(&root)).await?;
    let found = skills.into_iter().find(|skill| skill.name == name);
    found.ok_or_else(|| ApiError::not_found(format!("there is no skill {name:?}")))
}

async fn content(State(app): State<App>, UrlPath(name): UrlPath<String>) -> Answer {
    let skill = find(&app, &name).await?;
    Ok(ok("Skill", json!({ "name": skill.name, "path": skill.path, "content": skill.content })))
}

async fn remove(State(app): State<App>, UrlPath(name): UrlPath<String>) -> Answer {
    let skill = find(&app, &name).await?;
    let (path, root) = (skill.path.clone(), root(&app));
    app.pool()
        .run(move || forget(&path, &root))
        .await?
        .map_err(|error| ApiError::internal(format!("skill {name:?} cannot be removed: {error}")))?;
    Ok(ok("Skill removed", skill.describe()))
}

async fn clear(State(app): State<App>) -> Answer {
    let root = root(&app);
    let count = app.pool().run(move || {
        let skills = skills_below(&root);
        skills.iter().filter(|skill| forget(&skill.path, &root).is_ok()).count()
    });
    Ok(ok("Skills removed", json!({ "count": count.await? })))
}

/// Removes what lies below the root; of what was only linked, the link.
fn forget(path: &Path, root: &Path) -> std::io::Result<()> {
    if path == root {
        return std::fs::remove_file(path.join("SKILL.md"));
    }
    let metadata = std::fs::symlink_metadata(path)?;
    if metadata.is_symlink() { std::fs::remove_file(path) } else { std::fs::remove_dir_all(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_matter_is_split_from_the_content() {
        let (metadata, content) = front_matter("---\nname: a\ndescription: \"b: c\"\n---\n# Text\n");
        assert_eq!(metadata["name"], "a");
        assert_eq!(metadata["description"], "b: c");
        assert_eq!(content, "# Text\n");
        assert_eq!(front_matter("no front").1, "no front");
    }
}
