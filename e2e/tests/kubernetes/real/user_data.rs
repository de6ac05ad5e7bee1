//! Who may write to a thread's directory, for images whose user is not root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use serde_json::{Value, json};
use stockade_e2e::http::{self, Answer};
use stockade_e2e::world::{World, scenario};

use super::{AGENT_IMAGE, DEBIAN_IMAGE, SANDBOX_IMAGE, context};
use crate::support::mk_request;

/// Both ways in which the agent is in a Pod, whose images both have the user 1000.
const WAYS: [(&str, [(&str, &str); 3]); 2] = [
    (
        "image",
        [
            ("SANDBOX_IMAGE", SANDBOX_IMAGE),
            ("SANDBOX_AGENT_IMAGE", AGENT_IMAGE),
            ("SANDBOX_INJECT_AGENT", "false"),
        ],
    ),
    (
        "injected",
        [
            ("SANDBOX_IMAGE", DEBIAN_IMAGE),
            ("SANDBOX_AGENT_IMAGE", AGENT_IMAGE),
            ("SANDBOX_INJECT_AGENT", "true"),
        ],
    ),
];

async fn post(url: &str, path: &str, body: Value) -> Answer {
    let request = ::http::Request::post(format!("{url}{path}")).header("content-type", "application/json");
    http::send(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap()
}

/// What a command says in a sandbox of this thread, which is made for it.
async fn says(world: &World, way: &[(&str, &str)], thread: &str, command: &str) -> String {
    let server = world.server_with(way).await;
    let made = server.client().create(&mk_request(thread, "default", thread)).await.unwrap();
    context(&made.sandbox_url).await;
    let ran = post(&made.sandbox_url, "/v1/bash/exec", json!({ "command": command })).await.json();
    server.client().delete(thread).await.unwrap();
    world.wait_gone(thread).await;
    ran["data"]["stdout"].as_str().unwrap_or_default().to_owned()
}

fn owner_and_mode(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.permissions().mode() & 0o777)
}

#[test]
fn a_new_thread_s_directory_can_be_written_to_and_stays_the_node_s() {
    scenario(async |world| {
        for (thread, way) in WAYS {
            let command = "cd /mnt/user-data && id -u && echo a > a && for d in workspace uploads outputs; do \
                           echo b > $d/b && echo $d; done";
            let said = says(world, &way, thread, command).await;
            assert_eq!(said, "1000\nworkspace\nuploads\noutputs\n", "{thread}");
            let directory = world.dirs.user_data("default", thread);
            assert_eq!(owner_and_mode(&directory), (0, 0o777), "{thread}");
            assert_eq!(owner_and_mode(&directory.join("a")).0, 1000, "{thread}");
            // Another sandbox of the thread finds everything as it was.
            let again =
                says(world, &way, thread, "cd /mnt/user-data && cat a uploads/b && echo c > c && echo c")
                    .await;
            assert_eq!(again, "a\nb\nc\n", "{thread}");
        }
    });
}

#[test]
fn what_exists_does_not_change_hands_and_a_planted_link_leads_nowhere() {
    scenario(async |world| {
        let (_, way) = WAYS[0];
        let elsewhere = world.dirs.path("elsewhere");
        fs::create_dir_all(&elsewhere).unwrap();
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o755)).unwrap();
        // Somebody's files, somebody's empty directory, and a link to what was never given away.
        for (thread, expect) in [("files", (0, 0o755)), ("other", (1234, 0o700)), ("link", (0, 0o755))] {
            let directory = world.dirs.user_data("default", thread);
            fs::create_dir_all(&directory).unwrap();
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
            match thread {
                "files" => fs::write(directory.join("report.txt"), "somebody's").unwrap(),
                "other" => {
                    chown(&directory, Some(1234), Some(1234)).unwrap();
                    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
                }
                _ => symlink(&elsewhere, directory.join("workspace")).unwrap(),
            }
            let said = says(world, &way, thread, "touch /mnt/user-data/x 2>/dev/null || echo refused").await;
            assert_eq!(said, "refused\n", "{thread}");
            assert_eq!(owner_and_mode(&directory), expect, "{thread}");
            assert!(!directory.join("outputs").exists(), "{thread}");
        }
        assert_eq!(owner_and_mode(&elsewhere), (0, 0o755));
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    });
}
