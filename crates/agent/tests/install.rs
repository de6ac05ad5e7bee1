//! `stockade-agent --install`, as an init container runs it.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they do")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn install(program: &Path, directory: &Path) -> Output {
    Command::new(program).arg("--install").arg(directory).env_clear().output().unwrap()
}

#[test]
fn the_copy_is_the_program_and_copies_itself_again() {
    let original = Path::new(env!("CARGO_BIN_EXE_stockade-agent"));
    let scratch = tempfile::tempdir().unwrap();
    let (first, second) = (scratch.path().join("a/b"), scratch.path().join("c"));
    std::fs::create_dir(&second).unwrap();
    std::fs::write(second.join("stockade-agent"), "an older one").unwrap();
    std::fs::write(second.join(".stockade-agent.partial"), "left by a killed run").unwrap();

    assert!(install(original, &first).status.success());
    let copied = install(&first.join("stockade-agent"), &second);
    assert!(copied.status.success() && copied.stdout.is_empty(), "{copied:?}");
    let copy = second.join("stockade-agent");
    assert_eq!(std::fs::read(&copy).unwrap(), std::fs::read(original).unwrap());
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(std::fs::read_dir(&second).unwrap().count(), 1, "nothing but the program is left");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    std::fs::write(&file, "").unwrap();
    let failed = install(Path::new(env!("CARGO_BIN_EXE_stockade-agent")), &file.join("below"));
    let said = String::from_utf8(failed.stderr).unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(said.contains("file/below") && said.contains("Not a directory"), "{said}");
}
