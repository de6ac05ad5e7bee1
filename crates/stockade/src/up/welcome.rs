//! The first lines of `stockade up`.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use stockade_core::egress::NetworkMode;
use stockade_embedded::settings::WritableKind;

use crate::own::OwnLine;
use crate::settings::{BackendSettings, Settings};

/// What the first lines depend on.
pub(crate) struct Welcome {
    sandboxes: String,
    state_dir: Option<String>,
    own: OwnLine,
    warnings: Vec<String>,
    has_key: bool,
}

impl Welcome {
    /// What is worth saying of these settings.
    pub(crate) fn of(settings: &Settings) -> Self {
        let sandboxes = match &settings.backend {
            BackendSettings::Kubernetes(kubernetes) => {
                format!("Pods in the namespace {}, from {}", kubernetes.namespace, kubernetes.image)
            }
            BackendSettings::Embedded(embedded) => {
                let network = match embedded.network {
                    Some(NetworkMode::Isolated) => "no network",
                    Some(_) => "open network",
                    None => "open network if this machine allows it",
                };
                let files = match embedded.writable {
                    WritableKind::Disk => "on disk",
                    WritableKind::Tmpfs => "in memory",
                };
                let limits = &embedded.limits;
                format!(
                    "at {}, ports {}; up to {} processors, {} of memory, {} of files {files} and {} processes each; {network}",
                    embedded.node_host,
                    embedded.ports,
                    limits.cpu,
                    limits.memory,
                    limits.storage,
                    limits.pids,
                )
            }
        };
        Self {
            sandboxes,
            state_dir: settings.state_dir.as_ref().map(|path| path.display().to_string()),
            own: own_line(settings),
            warnings: settings.warnings.clone(),
            has_key: !matches!(settings.server.access, stockade_server::Access::Open),
        }
    }
}

/// How the server's commands are called in another shell.
pub(super) fn own_line(settings: &Settings) -> OwnLine {
    settings.state_dir.as_deref().map_or_else(OwnLine::plain, OwnLine::of_state_dir)
}

/// Prints them. The key itself is never among them.
pub(super) fn print(
    out: &mut dyn Write,
    settings: &Welcome,
    url: &str,
    key_file: Option<&Path>,
) -> io::Result<()> {
    let own = &settings.own;
    let key = key_file.map(quoted);
    let shown_key = match (&key, settings.has_key) {
        (Some(key), _) => format!("in {key}"),
        (None, true) => "in the variable PROVISIONER_API_KEY".to_owned(),
        (None, false) => "none is wanted (PROVISIONER_AUTH_DISABLED)".to_owned(),
    };
    writeln!(out, "Stockade {} serves at {url}\n", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  key        {shown_key}")?;
    if let Some(dir) = &settings.state_dir {
        writeln!(out, "  state      {dir}")?;
    }
    writeln!(out, "  sandboxes  {}\n", settings.sandboxes)?;
    for warning in &settings.warnings {
        writeln!(out, "  warning    {warning}\n")?;
    }
    writeln!(out, "A sandbox, and a command in it:\n")?;
    let (create, exec) = (own.line("create", "demo"), own.line("exec", "demo -- uname -a"));
    writeln!(out, "  {create} && {exec}\n")?;
    writeln!(out, "The same over HTTP:\n")?;
    let header = key_header(key.as_deref(), settings.has_key);
    let create = format!("{url}/api/sandboxes?wait=ready");
    writeln!(
        out,
        "  curl {header}-H 'Content-Type: application/json' -d '{{\"sandbox_id\":\"demo\"}}' '{create}'\n"
    )?;
    writeln!(out, "DeerFlow on this machine, in its config.yaml:\n")?;
    writeln!(out, "  sandbox:")?;
    writeln!(out, "    use: deerflow.community.aio_sandbox:AioSandboxProvider")?;
    writeln!(out, "    provisioner_url: {url}")?;
    writeln!(out, "    provisioner_api_key: $PROVISIONER_API_KEY")?;
    if let Some(key) = &key {
        writeln!(out, "\nand in its environment:\n\n  export PROVISIONER_API_KEY=\"$(cat {key})\"")?;
    }
    let down = own.line("down", "");
    writeln!(out, "\nCtrl-C ends the server; sandboxes run on, and this ends them:\n\n  {down}\n")?;
    out.flush()
}

fn key_header(key: Option<&str>, has_key: bool) -> String {
    let mut header = String::new();
    let value = match key {
        Some(key) => format!("$(cat {key})"),
        None => "$PROVISIONER_API_KEY".to_owned(),
    };
    if has_key {
        // Writing to a string does not fail.
        let _ = write!(header, "-H \"X-API-Key: {value}\" ");
    }
    header
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    crate::remote::quote::word(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_can_be_used_as_it_stands_and_none_has_the_key() {
        let settings = Welcome {
            sandboxes: "at 127.0.0.1".into(),
            state_dir: Some("/s p".into()),
            own: OwnLine::plain().with("--state-dir", "/s p"),
            warnings: vec!["X has no effect".into()],
            has_key: true,
        };
        let mut out = Vec::new();
        print(&mut out, &settings, "http://127.0.0.1:8002", Some(Path::new("/s p/api-key"))).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("-H \"X-API-Key: $(cat '/s p/api-key')\" "), "{text}");
        assert!(text.contains("'http://127.0.0.1:8002/api/sandboxes?wait=ready'"), "{text}");
        assert!(text.contains("provisioner_url: http://127.0.0.1:8002\n"), "{text}");
        assert!(text.contains(" create --state-dir '/s p' demo && "), "{text}");
        assert!(text.contains(" exec --state-dir '/s p' demo -- uname -a\n"), "{text}");
        assert!(text.contains(" down --state-dir '/s p'\n"), "{text}");
        assert!(text.contains("warning    X has no effect"), "{text}");
    }
}
