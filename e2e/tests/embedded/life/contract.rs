//! Where files lie, by each generation of the contract, and what callers of DeerFlow ask for.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use stockade_api::CreateSandbox;
use stockade_api::client::ClientError;
use stockade_api::create::ExtraMount;
use stockade_e2e::refusals;

use super::server::{Server, with_server, with_server_told};
use crate::sandbox::Sandbox;

/// A sandbox of one thread writes into its directory.
async fn writes(server: &Server, thread: &str) {
    let request = CreateSandbox { thread_id: Some(thread.to_owned()), ..CreateSandbox::new("s1") };
    let made = server.client().create(&request).await.unwrap();
    let sandbox = Sandbox::new("s1".to_owned(), made.sandbox_url.into_owned());
    let wrote = sandbox.sh("echo shared > /mnt/user-data/file && echo wrote").await;
    assert_eq!(wrote.stdout, "wrote\n", "{wrote:?}");
}

#[test]
fn contract_1_keeps_files_by_thread() {
    with_server_told(
        |_| vec![("MOUNT_CONTRACT_VERSION", OsString::from("1"))],
        async |server| {
            writes(server, "t1").await;
            let file = server.state.join("data/threads/t1/user-data/file");
            assert_eq!(std::fs::read_to_string(file).unwrap(), "shared\n");
            // Mounts do not count, and answers have no word of contract 2.
            let again = CreateSandbox { thread_id: Some("t1".to_owned()), ..CreateSandbox::new("s1") };
            let again = server.client().create(&again).await.unwrap();
            assert_eq!((again.user_id, again.mount_contract_version), (None, None));
            // It does not know the field, and so cannot refuse by it.
            let two = CreateSandbox { required_mount_contract_version: Some(2), ..CreateSandbox::new("s2") };
            assert!(server.client().create(&two).await.unwrap().ready);
        },
    );
}

#[test]
fn a_directory_of_threads_is_made_and_used() {
    let environment = |directory: &Path| vec![("THREADS_HOST_PATH", directory.join("df/threads").into())];
    with_server_told(environment, async |server| {
        writes(server, "t1").await;
        let file = server.base.with_file_name("df").join("threads/t1/user-data/file");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "shared\n");
    });
}

#[test]
fn another_contract_than_the_one_required_is_refused() {
    with_server(async |server| {
        let client = server.client();
        let requiring = |version| CreateSandbox {
            required_mount_contract_version: Some(version),
            ..CreateSandbox::new("s1")
        };
        let refused = client.create(&requiring(1)).await.unwrap_err();
        assert!(matches!(&refused, ClientError::Refused { status: 409, .. }), "{refused}");
        assert_eq!(client.list().await.unwrap().count, 0);
        let made = client.create(&requiring(2)).await.unwrap();
        assert_eq!(made.mount_contract_version, Some(Some(2)));
    });
}

#[test]
fn refusals_have_the_contract_s_status_and_words() {
    with_server(async |server| {
        refusals::check(&server.client(), server.base.to_str().unwrap()).await;
    });
}

/// DeerFlow asks for the directory that every sandbox has there anyway.
#[test]
fn the_view_of_own_skills_may_be_asked_for_and_no_other_in_its_place() {
    with_server(async |server| {
        let client = server.client();
        let custom = |user: &str| ExtraMount {
            host_path: server
                .base
                .join("users")
                .join(user)
                .join("skills_view/custom")
                .to_str()
                .unwrap()
                .to_owned(),
            container_path: "/mnt/skills/custom".to_owned(),
            read_only: true,
        };
        let asking = |user: &str| CreateSandbox {
            user_id: Some("alice".to_owned()),
            extra_mounts: vec![custom(user)],
            ..CreateSandbox::new("s1")
        };
        let view = server.base.join("users/alice/skills_view/custom");
        std::fs::create_dir_all(&view).unwrap();
        std::fs::write(view.join("skill"), "of alice\n").unwrap();
        std::fs::create_dir_all(server.base.join("users/bob/skills_view/custom")).unwrap();
        let refused = client.create(&asking("bob")).await.unwrap_err();
        assert!(matches!(&refused, ClientError::Refused { status: 400, .. }), "{refused}");
        let made = client.create_ready(&asking("alice"), Duration::from_secs(20)).await.unwrap();
        assert!(made.ready, "{made:?}");
        let sandbox = Sandbox::new("s1".to_owned(), made.sandbox_url.into_owned());
        let read = sandbox
            .sh("cat /mnt/skills/custom/skill; touch /mnt/skills/custom/x 2>/dev/null || echo refused")
            .await;
        assert_eq!(read.stdout, "of alice\nrefused\n");
    });
}
