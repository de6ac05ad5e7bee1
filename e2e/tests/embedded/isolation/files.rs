//! The machine's files.

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
        sandbox.withstands(include_str!("attacks/files.py"), &facts, 40).await;
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
                      mktemp >/dev/null; mkfifo p; test -w /tmp; id -un >/dev/null; echo done";
        let output = sandbox.sh(script).await;
        assert_eq!((output.stdout.as_str(), output.code), ("x\n42\ndone\n", Some(0)), "{output:?}");
    });
}
