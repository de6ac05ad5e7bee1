//! What every backend refuses, with the contract's status and words.

use stockade_api::CreateSandbox;
use stockade_api::client::{Client, ClientError};
use stockade_api::create::ExtraMount;

/// The id of the sandbox that is there meanwhile: thread `t1` of `alice`, with a workspace.
const PRESENT: &str = "present";
const WORKSPACE: &str = "/mnt/acp-workspace";
const CONVERSIONS: &str = "/mnt/user-data/.upload-conversions";

/// What is asked for, the status, and what the detail is or has in it.
struct Case {
    what: &'static str,
    request: CreateSandbox,
    status: u16,
    words: Words,
}

enum Words {
    Exactly(&'static str),
    Among(&'static str),
}

fn mk_mount(host_path: &str, container_path: &str, read_only: bool) -> ExtraMount {
    ExtraMount { host_path: host_path.to_owned(), container_path: container_path.to_owned(), read_only }
}

/// A request of the sandbox's own thread with these mounts.
fn mk_request(extra_mounts: Vec<ExtraMount>) -> CreateSandbox {
    CreateSandbox {
        user_id: Some("alice".to_owned()),
        thread_id: Some("t1".to_owned()),
        extra_mounts,
        ..CreateSandbox::new(PRESENT)
    }
}

/// Makes one sandbox and asks for what must be refused, in the place of that one and of a new one.
///
/// # Panics
/// When an answer is another one.
pub async fn check(client: &Client, base: &str) {
    client.create(&mk_request(vec![workspace(base)])).await.expect("the sandbox that is there");
    for case in mounts(base).into_iter().chain(number_of_mounts(base)).chain(identities(base)) {
        let Case { what, request, status, words } = case;
        let error = client.create(&request).await.expect_err(what);
        let ClientError::Refused { status: answered, detail, .. } = &error else {
            assert_eq!(status, 422, "{what}: {error}");
            assert!(matches!(error, ClientError::Invalid { .. }), "{what}: {error}");
            continue;
        };
        assert_eq!(*answered, status, "{what}: {detail}");
        match words {
            Words::Exactly(words) => assert_eq!(detail, words, "{what}"),
            Words::Among(words) => assert!(detail.contains(words), "{what}: {words:?} is not in {detail:?}"),
        }
    }
    assert_eq!(client.list().await.expect("a list").count, 1, "a refused create left something");
}

fn workspace(base: &str) -> ExtraMount {
    mk_mount(&format!("{base}/users/alice/acp"), WORKSPACE, false)
}

/// One mount that is wrong, which comes before whatever else the sandbox that is there differs in.
fn mounts(base: &str) -> Vec<Case> {
    let inside = format!("{base}/users/alice/acp");
    let others = format!("{base}/users/mallory/threads/t1/user-data/.upload-conversions");
    let own = format!("{base}/users/alice/threads/t1/user-data/.upload-conversions");
    [
        ("a relative directory", vec![mk_mount("srv/x", WORKSPACE, false)], "\"srv/x\""),
        ("no directory", vec![mk_mount("", WORKSPACE, false)], "host_path"),
        ("a directory outside", vec![mk_mount("/etc", WORKSPACE, true)], "\"/etc\""),
        ("a way out", vec![mk_mount(&format!("{base}/../x"), WORKSPACE, true)], "is not under"),
        ("a relative place", vec![mk_mount(&inside, "mnt/acp-workspace", true)], "\"mnt/acp-workspace\""),
        (
            "a place that is not allowed",
            vec![mk_mount(&inside, "/mnt/user-data", true)],
            "\"/mnt/user-data\"",
        ),
        (
            "one place twice, written in two ways",
            vec![workspace(base), mk_mount(&inside, "/mnt/./acp-workspace/", false)],
            "\"/mnt/acp-workspace\"",
        ),
        ("conversions to write to", vec![mk_mount(&own, CONVERSIONS, false)], "read-only"),
        ("another's conversions", vec![mk_mount(&others, CONVERSIONS, true)], CONVERSIONS),
    ]
    .into_iter()
    .map(|(what, extra_mounts, words)| Case {
        what,
        request: mk_request(extra_mounts),
        status: 400,
        words: Words::Among(words),
    })
    .collect()
}

/// Too many mounts, among other things that are wrong: fields and the required contract come first, the
/// single mounts and the sandbox that is there come later.
fn number_of_mounts(base: &str) -> Vec<Case> {
    const TOO_MANY: &str = "Too many extra mounts; max is 10";
    let exactly = |what, request| Case { what, request, status: 400, words: Words::Exactly(TOO_MANY) };
    let (good, bad) = (workspace(base), mk_mount("relative", "/etc", false));
    let eleven = mk_request(vec![good.clone(); 11]);
    vec![
        exactly("eleven mounts", CreateSandbox { sandbox_id: "new".to_owned(), ..eleven.clone() }),
        exactly("a thousand", mk_request(vec![good.clone(); 1_000])),
        exactly("eleven that are each refused", mk_request(vec![bad; 11])),
        exactly(
            "eleven of another user",
            CreateSandbox { user_id: Some("bob".to_owned()), ..eleven.clone() },
        ),
        exactly(
            "eleven with the Lark CLI",
            CreateSandbox { provision_lark_cli_runtime: true, ..eleven.clone() },
        ),
        Case {
            what: "ten are not too many",
            request: mk_request(vec![good; 10]),
            status: 400,
            words: Words::Among("given twice"),
        },
        Case {
            what: "eleven and another contract",
            request: CreateSandbox { required_mount_contract_version: Some(3), ..eleven.clone() },
            status: 409,
            words: Words::Among("mount_contract_changed"),
        },
        Case {
            what: "eleven and a field that does not validate",
            request: CreateSandbox { thread_id: Some("../up".to_owned()), ..eleven },
            status: 422,
            words: Words::Among(""),
        },
    ]
}

/// Another sandbox than the one that is there.
fn identities(base: &str) -> Vec<Case> {
    let same = mk_request(vec![workspace(base)]);
    let conflict = |what, request, words| Case { what, request, status: 409, words: Words::Among(words) };
    vec![
        conflict(
            "another user",
            CreateSandbox { user_id: Some("bob".to_owned()), ..same.clone() },
            "another user",
        ),
        conflict(
            "another thread",
            CreateSandbox { thread_id: Some("t2".to_owned()), ..same.clone() },
            "another thread",
        ),
        conflict("other mounts", mk_request(vec![]), "incompatible or unverifiable"),
        conflict(
            "another contract",
            CreateSandbox { required_mount_contract_version: Some(1), ..same },
            r#""expected":1"#,
        ),
    ]
}
