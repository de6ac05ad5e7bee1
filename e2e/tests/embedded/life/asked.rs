//! What a request asks for, and whether the sandbox has it.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use stockade_api::client::ClientError;
use stockade_api::create::ExtraMount;
use stockade_api::{CreateSandbox, NetworkRequest, QuantityPair, ResourceRequest};

use super::server::{with_ordinary_server, with_server, with_server_told};
use crate::sandbox::Sandbox;

fn mk_mount(host_path: &std::path::Path, container_path: &str, read_only: bool) -> ExtraMount {
    ExtraMount {
        host_path: host_path.to_str().unwrap().to_owned(),
        container_path: container_path.to_owned(),
        read_only,
    }
}

#[test]
fn variables_limits_and_network_are_those_that_were_asked_for() {
    with_server(async |server| {
        let request = CreateSandbox {
            env: BTreeMap::from([("TOKEN".to_owned(), "s3cret".to_owned())]),
            resources: Some(ResourceRequest {
                memory: QuantityPair { request: None, limit: Some("128Mi".to_owned()) },
                ..ResourceRequest::default()
            }),
            network: Some(NetworkRequest { mode: "isolated".to_owned(), allow: vec![] }),
            ..CreateSandbox::new("s1")
        };
        let made = server.client().create(&request).await.unwrap();
        let sandbox = Sandbox::new("s1".to_owned(), made.sandbox_url.into_owned());
        // Settings of the agent are not its commands'.
        assert_eq!(sandbox.sh("echo $TOKEN; env | grep STOCKADE").await.stdout, "s3cret\n");
        let interfaces = sandbox.sh("tail -n +3 /proc/net/dev | cut -d: -f1").await.stdout;
        assert_eq!(interfaces.trim(), "lo");
        let greedy = sandbox.sh("python3 -c 'x = bytearray(400 << 20); print(len(x))'").await;
        assert_ne!(greedy.code, Some(0), "{greedy:?}");
        assert_eq!(sandbox.sh("echo alive").await.stdout, "alive\n");
    });
}

pub(super) fn at_most(quantity: &str) -> QuantityPair {
    QuantityPair { request: None, limit: Some(quantity.to_owned()) }
}

pub(super) fn refusal(error: ClientError) -> (u16, String, String) {
    match error {
        ClientError::Refused { status, code, detail, .. } => (status, code, detail),
        other => panic!("{other}"),
    }
}

#[test]
fn a_repeated_create_has_what_it_asks_for_or_is_a_conflict() {
    with_server(async |server| {
        let client = server.client();
        let plain = || CreateSandbox::new("s1");
        let made = client.create(&plain()).await.unwrap();
        assert_eq!(client.create(&plain()).await.unwrap().sandbox_url, made.sandbox_url);
        let network = |mode: &str| Some(NetworkRequest { mode: mode.to_owned(), allow: vec![] });
        let memory =
            |limit: &str| Some(ResourceRequest { memory: at_most(limit), ..ResourceRequest::default() });
        for (request, named) in [
            (CreateSandbox { network: network("isolated"), ..plain() }, "network"),
            (CreateSandbox { resources: memory("64Mi"), ..plain() }, "memory is limited to 2Gi, not 64Mi"),
            (CreateSandbox { env: BTreeMap::from([("TOKEN".into(), "s3cret".into())]), ..plain() }, "TOKEN"),
        ] {
            let (status, code, detail) = refusal(client.create(&request).await.unwrap_err());
            assert_eq!((status, code.as_str()), (409, "incompatible_extensions"), "{detail}");
            assert!(detail.contains(named) && !detail.contains("s3cret"), "{detail}");
        }
        let same = CreateSandbox { network: network("open"), resources: memory("2Gi"), ..plain() };
        assert_eq!(client.create(&same).await.unwrap().sandbox_url, made.sandbox_url);
    });
}

#[test]
fn mistakes_of_a_request_are_told_as_such() {
    with_server(async |server| {
        let client = server.client();
        std::fs::write(server.base.join("file"), "").unwrap();
        let mount = |path: std::path::PathBuf| CreateSandbox {
            extra_mounts: vec![mk_mount(&path, "/mnt/acp-workspace", false)],
            ..CreateSandbox::new("s1")
        };
        for path in [server.base.join("file"), server.base.join("x".repeat(300))] {
            let (status, code, detail) = refusal(client.create(&mount(path)).await.unwrap_err());
            assert_eq!((status, code.as_str()), (400, "invalid_mount"), "{detail}");
        }
        let env = BTreeMap::from([("JWT_PUBLIC_KEY".to_owned(), "y".to_owned())]);
        let request = CreateSandbox { env, ..CreateSandbox::new("s1") };
        let (status, code, detail) = refusal(client.create(&request).await.unwrap_err());
        assert_eq!((status, code.as_str()), (400, "refused"), "{detail}");
        assert!(detail.contains("JWT_PUBLIC_KEY"), "{detail}");
        server.nothing_left().await;
    });
}

/// Without root there are control groups only where somebody left one.
#[test]
fn limits_that_cannot_be_had_are_said_and_refused_when_asked_for() {
    with_ordinary_server(async |server| {
        let client = server.client();
        let resources = ResourceRequest { memory: at_most("64Mi"), ..ResourceRequest::default() };
        let asked = CreateSandbox { resources: Some(resources), ..CreateSandbox::new("s1") };
        let (status, code, detail) = refusal(client.create(&asked).await.unwrap_err());
        assert_eq!((status, code.as_str()), (400, "refused"), "{detail}");
        assert!(detail.contains("SANDBOX_LIMITS=where-possible"), "{detail}");
        let message = client.create(&CreateSandbox::new("s1")).await.unwrap().message.unwrap_or_default();
        assert!(message.contains("not limited here: ") && message.contains("memory"), "{message}");
    });
}

#[test]
fn files_in_memory_meet_a_hard_limit() {
    let environment = |_: &std::path::Path| vec![("SANDBOX_WRITABLE", "tmpfs".into())];
    with_server_told(environment, async |server| {
        let resources = ResourceRequest { ephemeral_storage: at_most("16Mi"), ..ResourceRequest::default() };
        let request = CreateSandbox { resources: Some(resources), ..CreateSandbox::new("s1") };
        let made = server.client().create(&request).await.unwrap();
        let sandbox = Sandbox::new("s1".to_owned(), made.sandbox_url.into_owned());
        let full = sandbox.sh("head -c 100M /dev/zero > ~/big; du -m ~/big | cut -f1").await;
        assert!(full.stderr.contains("No space left"), "{full:?}");
        assert!(full.stdout.trim().parse::<u64>().unwrap() <= 16, "{full:?}");
        assert_eq!(sandbox.sh("rm ~/big && echo x > ~/small && cat ~/small").await.stdout, "x\n");
    });
}

#[test]
fn a_wrong_extension_is_named() {
    with_server(async |server| {
        let network = Some(NetworkRequest { mode: "allowlist".to_owned(), allow: vec![] });
        let request = CreateSandbox { network, ..CreateSandbox::new("s1") };
        let refused = server.client().create(&request).await.unwrap_err();
        assert!(
            matches!(refused, ClientError::Invalid { .. } | ClientError::Refused { status: 422, .. }),
            "{refused}"
        );
    });
}

#[test]
fn mounts_are_where_they_were_asked_for_and_planted_links_lead_nowhere() {
    with_server(async |server| {
        let client = server.client();
        let base = server.base.clone();
        let data = base.join("users/alice/threads/t1/user-data");
        let conversions = data.join(".upload-conversions");
        std::fs::create_dir_all(&conversions).unwrap();
        std::fs::write(conversions.join("file"), "converted").unwrap();
        let mut request = CreateSandbox {
            user_id: Some("alice".to_owned()),
            thread_id: Some("t1".to_owned()),
            extra_mounts: vec![
                mk_mount(&conversions, "/mnt/user-data/.upload-conversions", true),
                mk_mount(&base.join("acp"), "/mnt/acp-workspace", false),
            ],
            ..CreateSandbox::new("s1")
        };
        let made = client.create(&request).await.unwrap();
        assert!(
            made.message.as_deref().unwrap_or_default().contains("/mnt/skills/public is empty"),
            "{made:?}"
        );
        let sandbox = Sandbox::new("s1".to_owned(), made.sandbox_url.into_owned());
        let script = "cat /mnt/user-data/.upload-conversions/file; touch /mnt/user-data/.upload-conversions/x; \
             echo mine > /mnt/acp-workspace/file; touch /mnt/skills/public/x; echo plain > /mnt/user-data/file";
        let output = sandbox.sh(script).await;
        assert_eq!(output.stdout, "converted");
        assert_eq!(output.stderr.matches("Read-only file system").count(), 2, "{output:?}");
        assert_eq!(std::fs::read_to_string(base.join("acp/file")).unwrap(), "mine\n");
        let outside = std::fs::metadata(data.join("file")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&outside), 0, "owned as the directory is");
        client.delete("s1").await.unwrap();
        // The next sandbox of the thread finds what this one has planted.
        std::fs::remove_dir_all(&conversions).unwrap();
        symlink("/etc", &conversions).unwrap();
        request.sandbox_id = "s2".to_owned();
        let refused = client.create(&request).await.unwrap_err();
        assert!(refused.to_string().contains("symbolic link"), "{refused}");
        std::fs::remove_file(&conversions).unwrap();
        request.extra_mounts = vec![mk_mount(&base.join("no-such"), "/mnt/skills/integrations", true)];
        let refused = client.create(&request).await.unwrap_err();
        assert!(refused.to_string().contains("no-such"), "{refused}");
        server.nothing_left().await;
    });
}

#[test]
fn shared_memory_is_as_large_as_it_was_set() {
    let environment = |_: &std::path::Path| vec![("SANDBOX_SHM_SIZE", "96Mi".into())];
    with_server_told(environment, async |server| {
        let made = server.client().create(&CreateSandbox::new("s1")).await.unwrap();
        let sandbox = Sandbox::new("s1".to_owned(), made.sandbox_url.into_owned());
        let room = sandbox.sh("df --output=size /dev/shm | tail -1").await;
        assert_eq!(room.stdout.trim(), (96 << 10).to_string(), "{room:?}");
        let used = sandbox.sh("head -c 90M /dev/zero > /dev/shm/x && stat -c %s /dev/shm/x").await;
        assert_eq!(used.stdout.trim(), (90 << 20).to_string(), "{used:?}");
        let full = sandbox.sh("head -c 10M /dev/zero > /dev/shm/y").await;
        assert!(full.stderr.contains("No space left"), "{full:?}");
    });
}

/// A repository that somebody else made, in a directory that somebody else owns.
#[test]
fn git_works_in_a_mounted_repository_of_another_owner() {
    with_server(async |server| {
        let place = server.base.join("theirs");
        std::fs::create_dir(&place).unwrap();
        let repository = place.join("repository");
        let made = std::process::Command::new("git").args(["init", "-q"]).arg(&repository).status().unwrap();
        assert!(made.success());
        std::fs::write(repository.join("file"), "x").unwrap();
        // As root it belongs to a user of no other file; to be shown, the directory above has one of its own.
        if rustix::process::geteuid().is_root() {
            let given =
                std::process::Command::new("chown").args(["-R", "4242:4242"]).arg(&repository).status();
            assert!(given.unwrap().success());
        }
        let request = CreateSandbox {
            extra_mounts: vec![mk_mount(&place, "/mnt/acp-workspace", true)],
            ..CreateSandbox::new("s1")
        };
        let made = server.client().create(&request).await.unwrap();
        let sandbox = Sandbox::new("s1".to_owned(), made.sandbox_url.into_owned());
        let status = sandbox.sh("git -C /mnt/acp-workspace/repository status --short").await;
        assert_eq!((status.stdout.as_str(), status.code), ("?? file\n", Some(0)), "{status:?}");
        let own = "git config --global safe.directory '' && git -C /mnt/acp-workspace/repository status";
        let refused = sandbox.sh(own).await;
        assert!(refused.stderr.contains("dubious"), "a user's own setting wins: {refused:?}");
    });
}
