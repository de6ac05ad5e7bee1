//! What is said of a sandbox in which something was killed for memory.
//!
//! On control groups of version 2 the kubelet lets the kernel end all of a container when one process in it has
//! used up the memory, so that nobody in the sandbox is left to say so; and the container that is started again
//! knows nothing. The Pod's status remembers.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod};

use crate::diagnosis::{Diagnosis, containers};
use crate::manifest::SANDBOX_CONTAINER;

/// The kubelet's word for it.
pub(crate) const REASON: &str = "OOMKilled";
/// For how long a sandbox that runs again says it: by then, whoever had something running there has called again.
const TOLD: Duration = Duration::from_secs(60 * 60);

/// The last time that a container of a Pod was killed for memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemoryKill {
    /// When.
    pub(crate) at: Timestamp,
    /// What is said of it.
    pub(crate) diagnosis: Diagnosis,
}

impl MemoryKill {
    /// What the Pod's status says of it.
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let all = containers(pod.status.as_ref()?);
        let kills = all.filter_map(|container| {
            let ended = ends(container).find(|ended| is_for_memory(ended))?;
            let at = ended.finished_at.as_ref()?.0;
            let again = match &container.state {
                Some(state) if state.running.is_some() => "; it was started again",
                _ => "",
            };
            let detail = format!("{} at {at:.0}{again}", sentence(pod, &container.name));
            Some(Self { at, diagnosis: Diagnosis::of_memory(&detail) })
        });
        kills.max_by_key(|kill| kill.at)
    }

    /// Whether it is still to be said of a sandbox that is ready.
    pub(crate) fn is_told(&self, now: Timestamp) -> bool {
        // One from the future is one of a clock that goes before ours.
        Duration::try_from(now.duration_since(self.at)).map_or(true, |age| age < TOLD)
    }
}

/// How the container ended, now or the last time.
fn ends(container: &ContainerStatus) -> impl Iterator<Item = &ContainerStateTerminated> {
    let states = [container.state.as_ref(), container.last_state.as_ref()];
    states.into_iter().flatten().filter_map(|state| state.terminated.as_ref())
}

/// The kubelet's word alone: an exit code of 137 is any SIGKILL.
pub(crate) fn is_for_memory(ended: &ContainerStateTerminated) -> bool {
    ended.reason.as_deref() == Some(REASON)
}

/// What happened, with the limit of the container that it happened to.
pub(crate) fn sentence(pod: &Pod, container: &str) -> String {
    let whose = match container {
        SANDBOX_CONTAINER => "the sandbox's".to_owned(),
        other => format!("container {other}'s"),
    };
    match limit(pod, container) {
        Some(limit) => format!("killed: {whose} memory limit of {limit} was reached"),
        None => format!("killed: the node had no memory left ({whose} own has no limit)"),
    }
}

fn limit<'a>(pod: &'a Pod, container: &str) -> Option<&'a str> {
    let spec = pod.spec.as_ref()?;
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let Container { resources, .. } = all.find(|one| one.name == container)?;
    let limits = resources.as_ref()?.limits.as_ref()?;
    limits.get("memory").map(|limit| limit.0.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const AT: &str = "2026-11-01T10:00:00Z";

    fn mk_pod(container: &str, statuses: &str, status: Value) -> Pod {
        let limits = json!({ "limits": { "memory": "256Mi" } });
        serde_json::from_value(json!({
            "metadata": {},
            "spec": {
                "containers": [
                    { "name": "sandbox", "resources": limits }, { "name": "lark-cli-broker", "resources": limits },
                ],
                "initContainers": [{ "name": "stockade-agent", "resources": limits }, { "name": "free" }],
            },
            "status": { "phase": "Running", statuses: [{
                "name": container, "image": "i", "imageID": "", "ready": true, "restartCount": 1,
                "state": status["state"], "lastState": status["lastState"],
            }]},
        }))
        .unwrap()
    }

    fn killed(reason: &str) -> Value {
        json!({ "terminated": { "exitCode": 137, "reason": reason, "finishedAt": AT } })
    }

    fn message(pod: &Pod) -> Option<String> {
        MemoryKill::of(pod).map(|kill| kill.diagnosis.message.unwrap().into())
    }

    #[test]
    fn it_is_said_with_the_limit_of_whom_it_happened_to_and_when() {
        let again = json!({ "state": { "running": {} }, "lastState": killed("OOMKilled") });
        for (container, statuses, status, expect) in [
            (
                "sandbox",
                "containerStatuses",
                again.clone(),
                "killed: the sandbox's memory limit of 256Mi was reached at 2026-11-01T10:00:00Z; it was started again",
            ),
            (
                "lark-cli-broker",
                "containerStatuses",
                again,
                "killed: container lark-cli-broker's memory limit of 256Mi was reached at",
            ),
            (
                "stockade-agent",
                "initContainerStatuses",
                json!({ "state": killed("OOMKilled"), "lastState": {} }),
                "killed: container stockade-agent's memory limit of 256Mi",
            ),
            (
                "free",
                "initContainerStatuses",
                json!({ "state": { "waiting": {} }, "lastState": killed("OOMKilled") }),
                "killed: the node had no memory left",
            ),
        ] {
            let said = message(&mk_pod(container, statuses, status)).unwrap();
            assert!(said.starts_with(expect), "{said}");
        }
    }

    #[test]
    fn another_end_by_the_same_signal_is_not_for_memory() {
        for state in
            [json!({ "state": killed("Error"), "lastState": {} }), json!({ "state": { "running": {} } })]
        {
            assert_eq!(message(&mk_pod("sandbox", "containerStatuses", state)), None);
        }
    }

    #[test]
    fn of_two_ends_the_one_now_counts_and_after_an_hour_none() {
        let mut earlier = killed("OOMKilled");
        earlier["terminated"]["finishedAt"] = json!("2026-11-01T09:00:00Z");
        let both = json!({ "state": killed("OOMKilled"), "lastState": earlier });
        let kill = MemoryKill::of(&mk_pod("sandbox", "containerStatuses", both)).unwrap();
        assert_eq!(kill.at, AT.parse().unwrap());
        let after = |seconds: i64| Timestamp::from_second(kill.at.as_second() + seconds).unwrap();
        assert!(kill.is_told(after(3599)) && kill.is_told(after(-5)));
        assert!(!kill.is_told(after(3600)));
    }
}
