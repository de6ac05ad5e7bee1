use serde_json::{Value, json};

use super::*;

fn check(status: Value, reason: Option<&str>, message_has: &[&str]) {
    let pod: Pod = serde_json::from_value(json!({ "metadata": {}, "status": status })).unwrap();
    let found = of(&pod);
    assert_eq!(found.as_ref().map(|d| &*d.reason), reason, "{found:?}");
    let message = found.and_then(|d| d.message).unwrap_or_default();
    for part in message_has {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

fn with_container(state: Value, last: Value, restarts: i32) -> Value {
    json!({ "phase": "Pending", "containerStatuses": [{
        "name": "sandbox", "image": "i", "imageID": "", "ready": false, "restartCount": restarts,
        "state": state, "lastState": last,
    }]})
}

#[test]
fn a_ready_pod_has_nothing_wrong() {
    check(json!({ "conditions": [{ "type": "Ready", "status": "True" }] }), None, &[]);
}

#[test]
fn an_image_that_cannot_be_pulled_names_the_setting() {
    let waiting =
        json!({ "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image \"x\"" } });
    check(with_container(waiting, json!({}), 0), Some("ImagePullBackOff"), &["\"x\"", "SANDBOX_IMAGE"]);
}

#[test]
fn an_unschedulable_pod_says_what_the_scheduler_said() {
    let conditions = json!({ "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available",
    }]});
    check(conditions, Some("Unschedulable"), &["0/1 nodes", "requests 100m"]);
}

#[test]
fn a_crash_loop_says_how_it_ended_and_where_the_log_is() {
    let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } });
    let last = json!({ "terminated": { "exitCode": 3, "reason": "Error" } });
    check(
        with_container(waiting, last, 4),
        Some("CrashLoopBackOff"),
        &["exit code 3", "4 restarts", "/logs"],
    );
}

#[test]
fn an_out_of_memory_kill_is_told_from_other_crashes() {
    let last = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
    let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
    let said = &["killed: ", "memory", "1 restarts", "work in parts"];
    check(with_container(waiting, last.clone(), 1), Some("OOMKilled"), said);
    check(with_container(json!({ "running": {} }), last, 1), Some("OOMKilled"), said);
    let now = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
    check(with_container(now, json!({}), 0), Some("OOMKilled"), &["memory"]);
}

#[test]
fn an_end_by_sigkill_that_was_not_for_memory_says_the_signal() {
    let last = json!({ "terminated": { "exitCode": 137, "reason": "Error" } });
    let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
    check(with_container(waiting, last, 2), Some("CrashLoopBackOff"), &["exit code 137: signal 9"]);
    let ended = json!({ "terminated": { "exitCode": 0, "signal": 15, "reason": "Error" } });
    check(with_container(ended, json!({}), 1), Some("CrashLoopBackOff"), &["signal 15"]);
}

#[test]
fn a_container_that_is_being_made_is_waited_for() {
    let waiting = json!({ "waiting": { "reason": "ContainerCreating" } });
    check(with_container(waiting, json!({}), 0), Some("ContainerCreating"), &[]);
    check(json!({ "phase": "Pending" }), Some("Pending"), &[]);
    check(with_container(json!({ "running": {} }), json!({}), 0), Some("ContainersNotReady"), &[]);
}

#[test]
fn an_evicted_pod_says_so() {
    check(
        json!({ "phase": "Failed", "reason": "Evicted", "message": "low on memory" }),
        Some("Evicted"),
        &["low on memory", "node ran out of memory"],
    );
    let full = "Container sandbox exceeded its local ephemeral storage limit \"500Mi\". ";
    let status = json!({ "phase": "Failed", "reason": "Evicted", "message": full });
    check(status, Some("Evicted"), &["500Mi", "/mnt/user-data"]);
    let node = "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 9Mi. ";
    let status = json!({ "phase": "Failed", "reason": "Evicted", "message": node });
    check(status, Some("Evicted"), &["ephemeral-storage", "node ran out of something"]);
}

#[test]
fn a_missing_host_directory_names_the_setting() {
    let detail = "MountVolume.SetUp failed for volume \"skills-public\" : hostPath type check failed: /x is not a directory";
    let found = Diagnosis::of_warning("FailedMount", detail);
    assert!(found.message.unwrap().contains("DEER_FLOW_HOST_BASE_DIR"));
}

#[test]
fn what_the_cluster_wrote_is_bounded_and_has_no_control_characters() {
    let found = Diagnosis::of_warning("X", &format!("a\u{1b}[2J{}", "é".repeat(2_000)));
    let message = found.message.unwrap();
    assert!(message.len() < 2 * MAX_DETAIL && !message.chars().any(char::is_control));
}
