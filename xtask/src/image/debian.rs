//! The machine's own Debian: which release it is, and where its packages come from.

use std::path::Path;

use anyhow::{Context, Result};

/// Where the machine says which mirror it uses; without any, mmdebstrap takes Debian's own.
const SOURCES: [&str; 2] = ["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"];

/// The code name of this machine's release: `bookworm`.
///
/// # Errors
/// On a machine that is not Debian.
pub fn suite() -> Result<String> {
    let release = std::fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    code_name(&release).map(str::to_owned).context(
        "/etc/os-release is not Debian's: what tests run in is made from the machine's Debian mirror",
    )
}

/// The files that name its mirrors, as mmdebstrap takes them.
pub fn sources() -> impl Iterator<Item = &'static str> {
    SOURCES.into_iter().filter(|path| names_a_mirror(Path::new(path)))
}

fn names_a_mirror(sources: &Path) -> bool {
    let text = std::fs::read_to_string(sources).unwrap_or_default();
    text.lines().map(str::trim_start).any(|line| line.starts_with("deb ") || line.starts_with("URIs:"))
}

/// The code name of the Debian release: `bookworm`.
fn code_name(release: &str) -> Option<&str> {
    let value = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"'))
    };
    value("ID").filter(|id| *id == "debian")?;
    value("VERSION_CODENAME")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_is_debian_s_or_none() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(code_name(debian), Some("bookworm"));
        assert_eq!(code_name("ID=ubuntu\nVERSION_CODENAME=noble\n"), None);
        assert_eq!(code_name(""), None);
    }

    #[test]
    fn a_file_without_a_source_is_no_mirror() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sources.list");
        let names = |text: &str| {
            std::fs::write(&path, text).unwrap();
            names_a_mirror(&path)
        };
        assert!(names("deb http://deb.debian.org/debian bookworm main\n"));
        assert!(names("Types: deb\nURIs: http://deb.debian.org/debian\n"));
        assert!(!names("# see debian.sources\n"));
        assert!(!names_a_mirror(&directory.path().join("absent")));
    }
}
