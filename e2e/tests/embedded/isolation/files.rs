//! The machine's files.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::world::as_each_user;

/// Places outside where files may lie that are nobody's business inside.
const PLACES: [&str; 9] =
    ["/tmp", "/var/tmp", "/run", "/root", "/home", "/srv", "/dev/shm", "/var/lib", "/opt"];

/// Files made outside; dropping this removes them.
struct Canaries(Vec<PathBuf>);

impl Canaries {
    fn plant(name: &str, also_in: &Path) -> Self {
        let places = PLACES.iter().map(Path::new).chain([also_in]);
        let paths =
            places.map(|place| place.join(name)).filter(|path| std::fs::write(path, "canary").is_ok());
        Self(paths.collect())
    }
}

impl Drop for Canaries {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| drop(std::fs::remove_file(path)));
    }
}

/// Files below the directory that would run as their owner or group, and how many of that name there are at all.
fn runs_as_another(directory: &Path, name: &str, seen: &mut u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        *seen += u32::from(entry.file_name().to_string_lossy().starts_with(name));
        if !metadata.is_symlink() && metadata.permissions().mode() & 0o6000 != 0 {
            found.push(entry.path());
        }
        if metadata.is_dir() {
            found.extend(runs_as_another(&entry.path(), name, seen));
        }
    }
    found
}

#[test]
fn the_machines_files_are_not_there_and_cannot_be_changed() {
    as_each_user(async |world| {
        let name = format!("canary-{}", std::process::id());
        let canaries = Canaries::plant(&name, &world.state);
        assert!(canaries.0.len() >= 3);
        let planted = format!("planted-{}", std::process::id());
        let sandbox = world.sandbox("files").await;
        let facts = json!({
            "canary": name,
            "planted": planted,
            "paths": canaries.0.iter().map(|path| path.to_str().unwrap()).chain([
                world.state.to_str().unwrap(),
                std::env::current_exe().unwrap().to_str().unwrap(),
                std::env::current_dir().unwrap().to_str().unwrap(),
            ]).collect::<Vec<_>>(),
        });
        sandbox.withstands(include_str!("attacks/files.py"), &facts, 140).await;
        let mut seen = 0;
        let risen = runs_as_another(&world.state, &planted, &mut seen);
        assert!(risen.is_empty(), "programs that run as their owner outside: {risen:?}");
        assert!(seen >= 3, "the attack's files are not where they were looked for");
        for directory in [
            "/usr/bin",
            "/usr/local/bin",
            "/usr/lib",
            "/etc",
            "/bin",
            "/opt",
            "/var/lib",
            "/",
            "/tmp",
            "/run",
        ] {
            assert!(
                !Path::new(directory).join(&planted).exists(),
                "the sandbox wrote to {directory} outside"
            );
        }
        for file in ["/etc/passwd", "/etc/hosts", "/usr/lib/os-release"] {
            let content = std::fs::read_to_string(file).unwrap_or_default();
            assert!(!content.contains(&planted), "the sandbox wrote to {file} outside");
        }
    });
}

#[test]
fn what_people_do_in_a_sandbox_works() {
    as_each_user(async |world| {
        let sandbox = world.sandbox("works").await;
        let script = "set -e; cd ~; echo x > a; mkdir d; mv a d/b; ln d/b c; cat c; python3 -c 'print(6*7)'; \
                      mktemp >/dev/null; mkfifo p; test -w /tmp; id -un >/dev/null; install -m 755 d/b e; \
                      mkdir -m 1777 t; tar cf x.tar d e t; mkdir y; tar xpf x.tar -C y; test -x y/e; \
                      cp -r d z; chmod -R u+rwX,go-w z; rm -r z y; echo done";
        let output = sandbox.sh(script).await;
        assert_eq!((output.stdout.as_str(), output.code), ("x\n42\ndone\n", Some(0)), "{output:?}");
    });
}
