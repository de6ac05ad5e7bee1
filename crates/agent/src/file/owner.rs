//! Whose a file is, in words, for calls that its rights forbid.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;

/// What the kernel shows for owners that have no number here.
const UNKNOWN: u32 = 65_534;

/// Why rights forbid a call, and what can be done about it.
pub(super) struct Explanation {
    pub(super) fact: String,
    pub(super) remedy: String,
}

/// For errors about rights: who owns the file, or the directory that would have to change. `None` for other errors.
pub(super) fn explain(path: &Path, error: &io::Error) -> Option<Explanation> {
    // EOVERFLOW: the owner has no number in this sandbox.
    if !matches!(Errno::from_io_error(error)?, Errno::ACCESS | Errno::PERM | Errno::OVERFLOW) {
        return None;
    }
    let own = rustix::process::geteuid().as_raw();
    // Of a file that is not there its directory is what matters; of one that cannot be seen, the nearest that can.
    let (nearest, metadata) =
        path.ancestors().find_map(|path| Some((path, std::fs::metadata(path).ok()?)))?;
    let what = if nearest == path { "it" } else { "its directory" };
    let where_ = if nearest == path { String::new() } else { format!(" {}", nearest.display()) };
    let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let fact = format!(
        "{what}{where_} belongs to {}, its mode is {mode:o}, and this sandbox works as {}",
        name_of(uid),
        name_of(own)
    );
    let remedy = if uid == own {
        format!("change its mode first: chmod u+w '{}'", nearest.display())
    } else if nearest == path && metadata.is_file() {
        "its owner can allow it from outside (chown to the owner of the directory, or chmod o+w); until then, write a copy under another name".to_owned()
    } else {
        "its owner can allow it from outside (chown, or chmod o+rwx); until then, use another directory"
            .to_owned()
    };
    Some(Explanation { fact, remedy })
}

/// A user's number, with the name it has in the sandbox.
pub(super) fn name_of(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then_some(name)
    });
    match name {
        _ if uid == UNKNOWN => format!("a user whom this sandbox does not know (shown as {uid})"),
        Some(name) => format!("user {uid} ({name})"),
        None => format!("user {uid}"),
    }
}
