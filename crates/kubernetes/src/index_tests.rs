use super::*;
use crate::memory_kill::MemoryKill;

fn id() -> SandboxId {
    SandboxId::new("s1").unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn mk_index() -> Index {
    Index::new(UrlScheme { node_host: "node".into(), namespace: "ns".into() }, Counter::default())
}

fn rev(number: u64) -> Revision {
    Revision::parse(&number.to_string())
}

fn mk_pod(uid: &str, revision: u64) -> PodRecord {
    PodRecord {
        uid: uid.into(),
        revision: rev(revision),
        created_at: Some(at(0)),
        terminating: false,
        status: Status::Running,
        ready: true,
        has_address: true,
        diagnosis: None,
        memory_kill: None,
        identity: None,
        contract: None,
    }
}

fn mk_service(uid: &str, owner: Option<&str>, revision: u64) -> ServiceRecord {
    ServiceRecord {
        uid: uid.into(),
        revision: rev(revision),
        owner: owner.map(Into::into),
        terminating: false,
        address: Some(Address::NodePort(30_001)),
    }
}

fn mk_whole() -> Index {
    let index = mk_index();
    index.put(&id(), mk_pod("p1", 10), Origin::Watch, at(0));
    index.put(&id(), mk_service("s1", Some("p1"), 11), Origin::Watch, at(0));
    index
}

fn found(index: &Index) -> Option<Arc<Sandbox>> {
    match index.lookup(&id()) {
        Lookup::Found(sandbox) => Some(sandbox),
        Lookup::Unconfirmed => None,
    }
}

#[test]
fn a_pod_and_its_service_make_a_sandbox() {
    let sandbox = found(&mk_whole()).unwrap();
    assert_eq!((sandbox.url.as_str(), sandbox.status), ("http://node:30001", Status::Running));
}

#[test]
fn a_cluster_ip_is_reached_by_name() {
    let index = mk_whole();
    let mut service = mk_service("s1", Some("p1"), 12);
    service.address = Some(Address::ClusterIp(8080));
    index.put(&id(), service, Origin::Watch, at(0));
    assert_eq!(found(&index).unwrap().url, "http://sandbox-s1-svc.ns.svc.cluster.local:8080");
}

#[test]
fn an_older_event_does_not_undo_a_newer_write() {
    let index = mk_whole();
    let mut deleted = mk_pod("p1", 20);
    deleted.terminating = true;
    index.put(&id(), deleted, Origin::Direct, at(0));
    index.put(&id(), mk_pod("p1", 15), Origin::Watch, at(0));
    assert!(found(&index).is_none());
    assert!(index.list(at(0)).is_empty());
}

#[test]
fn a_pod_we_deleted_is_hidden_whatever_the_answer_held() {
    let index = mk_whole();
    index.terminate(&id(), "p0", at(0));
    assert!(found(&index).is_some(), "another Pod's end");
    index.terminate(&id(), "p1", at(0));
    assert!(found(&index).is_none());
}

#[test]
fn a_write_the_watch_has_already_seen_end_does_not_come_back() {
    let index = mk_index();
    index.prove(Kind::Pods, rev(30), Instant::now());
    index.put(&id(), mk_pod("p1", 25), Origin::Direct, at(0));
    assert_eq!(index.len(), 0);
}

#[test]
fn a_late_deletion_of_the_old_pod_leaves_the_new_one() {
    let index = mk_whole();
    index.put(&id(), mk_pod("p2", 40), Origin::Direct, at(0));
    index.remove::<PodRecord>(&id(), "p1", at(0));
    assert_eq!(&*index.records(&id()).0.unwrap().uid, "p2");
}

#[test]
fn a_service_of_the_former_pod_is_no_address() {
    let index = mk_whole();
    index.put(&id(), mk_pod("p2", 40), Origin::Watch, at(0));
    assert!(found(&index).is_none());
}

#[test]
fn a_list_removes_what_it_does_not_hold_unless_that_is_newer() {
    let index = mk_whole();
    index.replace::<PodRecord>(vec![], rev(9), Instant::now(), at(0));
    assert!(found(&index).is_some(), "the Pod is newer than the list");
    index.replace::<PodRecord>(vec![], rev(50), Instant::now(), at(0));
    assert!(found(&index).is_none());
}

#[test]
fn after_a_restore_of_the_store_only_the_list_counts() {
    let index = mk_whole();
    index.prove(Kind::Pods, rev(100), Instant::now());
    index.replace::<PodRecord>(vec![(id(), mk_pod("p1", 5))], rev(6), Instant::now(), at(0));
    assert_eq!(index.records(&id()).0.unwrap().revision, rev(5));
    index.replace::<PodRecord>(vec![], rev(4), Instant::now(), at(0));
    assert_eq!(index.records(&id()).0, None);
}

#[test]
fn what_is_known_already_wakes_nobody() {
    let index = mk_whole();
    let mut changes = index.subscribe();
    changes.borrow_and_update();
    index.put(&id(), mk_pod("p1", 10), Origin::Direct, at(0));
    assert!(!changes.has_changed().unwrap());
}

#[test]
fn a_service_without_pod_is_shown_after_a_moment_and_never_trusted() {
    let index = mk_index();
    index.put(&id(), mk_service("s1", Some("p1"), 11), Origin::Watch, at(0));
    assert!(found(&index).is_none());
    assert!(index.list(at(1)).is_empty());
    assert_eq!(index.list(at(2))[0].status, Status::NotFound);
}

#[test]
fn a_warning_explains_a_pod_that_waits_and_ends_when_it_is_ready() {
    let index = mk_whole();
    let mut waiting = mk_pod("p1", 20);
    waiting.ready = false;
    index.put(&id(), waiting, Origin::Watch, at(0));
    index.warn(&id(), "p1", Diagnosis::of_warning("FailedMount", "no such directory"), at(0));
    assert_eq!(found(&index).unwrap().reason.as_deref(), Some("FailedMount"));
    index.put(&id(), mk_pod("p1", 21), Origin::Watch, at(0));
    assert_eq!(found(&index).unwrap().reason, None);
}

#[test]
fn a_warning_about_another_pod_of_the_name_is_dropped() {
    let index = mk_whole();
    index.warn(&id(), "p0", Diagnosis::of_warning("FailedMount", "x"), at(0));
    assert_eq!(found(&index).unwrap().reason, None);
}

#[tokio::test(start_paused = true)]
async fn the_older_proof_counts() {
    let index = mk_index();
    assert_eq!(index.proven_age(Instant::now()), None);
    index.prove(Kind::Pods, rev(1), Instant::now());
    assert_eq!(index.proven_age(Instant::now()), None);
    tokio::time::advance(Duration::from_secs(3)).await;
    index.prove(Kind::Services, rev(1), Instant::now());
    assert_eq!(index.proven_age(Instant::now()), Some(Duration::from_secs(3)));
}

#[test]
fn nothing_is_left_of_a_sandbox_that_is_gone() {
    let index = mk_whole();
    index.remove::<PodRecord>(&id(), "p1", at(0));
    index.remove::<ServiceRecord>(&id(), "s1", at(0));
    assert_eq!(index.len(), 0);
}

#[test]
fn only_half_sandboxes_are_planned_for() {
    let index = mk_whole();
    assert!(index.halves().is_empty());
    index.remove::<PodRecord>(&id(), "p1", at(7));
    assert_eq!(index.halves()[0].address.as_ref().unwrap().dangling_since, Some(at(7)));
}

fn mk_killed(revision: u64, second: i64) -> PodRecord {
    let diagnosis = Diagnosis::of_memory("killed: the sandbox's memory limit of 1Gi was reached");
    PodRecord { memory_kill: Some(MemoryKill { at: at(second), diagnosis }), ..mk_pod("p1", revision) }
}

#[test]
fn what_was_killed_for_memory_is_told_by_a_sandbox_that_runs_again_and_for_an_hour() {
    let index = mk_whole();
    index.put(&id(), mk_killed(20, 100), Origin::Watch, at(101));
    let sandbox = found(&index).unwrap();
    assert_eq!((sandbox.ready, sandbox.reason.as_deref()), (true, Some("OOMKilled")));
    assert!(
        sandbox
            .message
            .as_deref()
            .unwrap()
            .starts_with("killed: the sandbox's memory limit of 1Gi was reached")
    );
    index.forget_old(at(100 + 3599));
    assert!(found(&index).unwrap().reason.is_some());
    index.forget_old(at(100 + 3600));
    assert_eq!(found(&index).unwrap().reason, None);
    // What is wrong now says more than what was.
    let crashing = PodRecord {
        ready: false,
        diagnosis: Some(Diagnosis::of_warning("CrashLoopBackOff", "ended")),
        ..mk_killed(21, 100)
    };
    index.put(&id(), crashing, Origin::Watch, at(102));
    assert_eq!(found(&index).unwrap().reason.as_deref(), Some("CrashLoopBackOff"));
}

#[test]
fn each_kill_is_counted_once_and_none_that_was_before_our_time() {
    let index = mk_index();
    index.put(&id(), mk_killed(10, 5), Origin::Watch, at(6));
    assert_eq!(index.memory_kills.get(), 0);
    index.put(&id(), mk_killed(11, 5), Origin::Watch, at(7));
    index.put(&id(), mk_killed(12, 8), Origin::Direct, at(9));
    index.put(&id(), mk_killed(12, 8), Origin::Watch, at(9));
    assert_eq!(index.memory_kills.get(), 1);
    // Another Pod of the same name.
    let other = PodRecord { uid: "p2".into(), ..mk_killed(13, 20) };
    index.put(&id(), other, Origin::Watch, at(21));
    assert_eq!(index.memory_kills.get(), 1);
}
