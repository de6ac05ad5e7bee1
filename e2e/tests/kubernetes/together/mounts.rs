//! What a sandbox finds in its file system, and what it may do there.

use std::fs;
use std::os::unix::fs::symlink;

use stockade_api::create::ExtraMount;
use stockade_e2e::refusals;
use stockade_e2e::world::scenario;

use crate::support::{mk_request, refusal};

fn mk_mount(host_path: String, container_path: &str, read_only: bool) -> ExtraMount {
    ExtraMount { host_path, container_path: container_path.to_owned(), read_only }
}

#[test]
fn skills_can_be_read_and_not_written() {
    scenario(async |world| {
        let server = world.server().await;
        let sandbox = server.client().create(&mk_request("skills", "default", "t1")).await.unwrap();
        let testbox = world.enter(&sandbox).await;
        assert_eq!(testbox.read("/mnt/skills/public/SKILL.md").await.unwrap(), "public skill");
        for view in ["public", "custom", "legacy"] {
            let place = format!("/mnt/skills/{view}");
            assert!(testbox.mount_at(&place).await.read_only, "{place}");
            assert_eq!(testbox.write(&format!("{place}/new"), "x").await, Err("EROFS".to_owned()), "{place}");
        }
    });
}

#[test]
fn user_data_is_written_to_the_place_of_its_user_and_thread() {
    scenario(async |world| {
        let server = world.server().await;
        world.dirs.make_user("alice");
        let sandbox = server.client().create(&mk_request("data", "alice", "t1")).await.unwrap();
        let testbox = world.enter(&sandbox).await;
        testbox.write("/mnt/user-data/hello.txt", "from inside").await.unwrap();
        let on_host = world.dirs.user_data("alice", "t1");
        assert_eq!(fs::read_to_string(on_host.join("hello.txt")).unwrap(), "from inside");
        fs::write(on_host.join("back.txt"), "from outside").unwrap();
        assert_eq!(testbox.read("/mnt/user-data/back.txt").await.unwrap(), "from outside");
    });
}

#[test]
fn files_outlive_their_sandbox() {
    scenario(async |world| {
        let server = world.server().await;
        let client = server.client();
        let request = mk_request("keep", "default", "t1");
        let first = world.enter(&client.create(&request).await.unwrap()).await;
        first.write("/mnt/user-data/kept.txt", "kept").await.unwrap();
        client.delete("keep").await.unwrap();
        let second = world.enter(&client.create(&request).await.unwrap()).await;
        assert_eq!(second.read("/mnt/user-data/kept.txt").await.unwrap(), "kept");
    });
}

#[test]
fn extra_mounts_are_where_and_as_they_were_asked_for() {
    scenario(async |world| {
        let server = world.server().await;
        let mut request = mk_request("extra", "default", "t1");
        // DeerFlow's client always asks for the custom skills too, which are mounted anyway.
        let custom = world.dirs.make("users/default/skills_view/custom");
        let config = world.dirs.make("users/default/lark/config");
        fs::write(world.dirs.path("users/default/lark/config/token"), "t").unwrap();
        let workspace = world.dirs.path("users/default/acp").to_str().unwrap().to_owned();
        request.extra_mounts = vec![
            mk_mount(custom, "/mnt/skills/custom", true),
            mk_mount(config, "/mnt/integrations/lark-cli/config", true),
            mk_mount(workspace.clone(), "/mnt/acp-workspace", false),
        ];
        let sandbox = server.client().create(&request).await.unwrap();
        let testbox = world.enter(&sandbox).await;
        assert_eq!(testbox.read("/mnt/integrations/lark-cli/config/token").await.unwrap(), "t");
        let written = testbox.write("/mnt/integrations/lark-cli/config/token", "x").await;
        assert_eq!(written, Err("EROFS".to_owned()));
        testbox.write("/mnt/acp-workspace/out.txt", "made").await.unwrap();
        assert_eq!(fs::read_to_string(format!("{workspace}/out.txt")).unwrap(), "made");
    });
}

#[test]
fn mounts_from_outside_of_the_base_are_refused() {
    scenario(async |world| {
        let server = world.server().await;
        let client = server.client();
        let base = world.dirs.base().to_owned();
        for (host_path, container_path) in [
            ("/etc".to_owned(), "/mnt/acp-workspace"),
            (format!("{base}/../../etc"), "/mnt/acp-workspace"),
            ("relative".to_owned(), "/mnt/acp-workspace"),
            (format!("{base}/acp"), "/etc"),
            (format!("{base}/acp"), "/mnt/acp-workspace/../../etc"),
            (
                format!("{base}/users/mallory/threads/t1/user-data/.upload-conversions"),
                "/mnt/user-data/.upload-conversions",
            ),
        ] {
            let mut request = mk_request("outside", "default", "t1");
            request.extra_mounts = vec![mk_mount(host_path.clone(), container_path, true)];
            let (status, detail) = refusal(client.create(&request).await);
            assert_eq!(status, 400, "{host_path} at {container_path}: {detail}");
        }
        assert_eq!(world.cluster.count().await, (0, 0), "a refused create left something");
    });
}

#[test]
fn refusals_have_the_contract_s_status_and_words() {
    scenario(async |world| {
        let server = world.server().await;
        refusals::check(&server.client(), world.dirs.base()).await;
    });
}

#[test]
fn upload_conversions_are_read_only_and_a_planted_symlink_leads_nowhere() {
    scenario(async |world| {
        let server = world.server().await;
        let client = server.client();
        let user_data = world.dirs.user_data("default", "t1");
        let conversions = user_data.join(".upload-conversions");
        fs::create_dir_all(&conversions).unwrap();
        fs::write(conversions.join("page.md"), "converted").unwrap();
        let mut request = mk_request("conv", "default", "t1");
        let source = conversions.to_str().unwrap().to_owned();
        request.extra_mounts = vec![mk_mount(source, "/mnt/user-data/.upload-conversions", true)];

        let testbox = world.enter(&client.create(&request).await.unwrap()).await;
        assert_eq!(testbox.read("/mnt/user-data/.upload-conversions/page.md").await.unwrap(), "converted");
        let written = testbox.write("/mnt/user-data/.upload-conversions/page.md", "x").await;
        assert_eq!(written, Err("EROFS".to_owned()));
        client.delete("conv").await.unwrap();
        world.wait_gone("conv").await;

        // What the sandbox of this thread could have left behind: the directory is in a place it can write.
        let secret = world.dirs.make("elsewhere");
        fs::write(format!("{secret}/secret"), "not yours").unwrap();
        fs::remove_dir_all(&conversions).unwrap();
        symlink(&secret, &conversions).unwrap();
        let planted = client.create_ready(&request, std::time::Duration::from_secs(12)).await.unwrap();
        if planted.ready {
            let read = world.enter(&planted).await.read("/mnt/user-data/.upload-conversions/secret").await;
            assert!(read.is_err(), "the sandbox reads a directory it was never given: {read:?}");
        } else {
            let reason = planted.reason.as_deref().unwrap_or_default();
            assert!(!reason.is_empty(), "a sandbox that cannot start has no reason: {planted:?}");
        }
    });
}
