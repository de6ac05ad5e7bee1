//! What a request asks for, and whether the sandbox has it.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use stockade_api::client::ClientError;
use stockade_api::create::ExtraMount;
use stockade_api::{CreateSandbox, NetworkRequest, QuantityPair, ResourceRequest};

use super::server::with_server;
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
        assert_eq!(sandbox.sh("echo $TOKEN").await.stdout, "s3cret\n");
        let interfaces = sandbox.sh("tail -n +3 /proc/net/dev | cut -d: -f1").await.stdout;
        assert_eq!(interfaces.trim(), "lo");
        let greedy = sandbox.sh("python3 -c 'x = bytearray(400 << 20); print(len(x))'").await;
        assert_ne!(greedy.code, Some(0), "{greedy:?}");
        assert_eq!(sandbox.sh("echo alive").await.stdout, "alive\n");
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
