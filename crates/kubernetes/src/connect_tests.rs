use super::*;

const KUBECONFIG: &str = r#"
apiVersion: v1
kind: Config
clusters: [{ name: c, cluster: { server: "https://user:secret@10.0.0.1:6443" } }]
users: [{ name: u, user: { token: "very-secret" } }]
contexts: [{ name: x, context: { cluster: c, user: u } }]
current-context: x
"#;

fn mk_file(content: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    std::fs::write(&path, content).unwrap();
    (directory, path)
}

#[tokio::test]
async fn a_directory_is_named_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let error = configuration(directory.path(), true, Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, StartError::Directory { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_never_appears_is_waited_for_and_then_named() {
    let started = Instant::now();
    let error = configuration(Path::new("/nonexistent/config"), true, KUBECONFIG_WAIT).await.unwrap_err();
    assert!(matches!(error, StartError::NoCluster { .. }), "{error}");
    assert!(error.to_string().contains("/nonexistent/config"));
    assert_eq!(started.elapsed(), KUBECONFIG_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_appears_later_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    let waiting = configuration(&path, true, KUBECONFIG_WAIT);
    let writing = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        std::fs::write(&path, KUBECONFIG).unwrap();
    };
    let (config, ()) = tokio::join!(waiting, writing);
    assert_eq!(address(&config.unwrap().cluster_url), "https://10.0.0.1:6443");
}

#[tokio::test]
async fn nothing_of_a_bad_file_is_repeated() {
    for content in ["token: [very-secret", "users: very-secret", "current-context: very-secret", ""] {
        let (_directory, path) = mk_file(content);
        let error = configuration(&path, true, Duration::ZERO).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("very-secret"), "{text}");
        assert!(text.contains("kubeconfig"), "{text}");
    }
}
