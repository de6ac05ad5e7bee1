//! Why a sandbox is not ready, in one word and in a sentence that says what to do.
//!
//! The facts are the kubelet's and the scheduler's, in Pod conditions, container states and warning
//! events; the sentence adds what usually helps.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus};

use crate::memory_kill;

/// What the cluster wrote is cut at this many bytes: an image pull error can hold a whole web page.
const MAX_DETAIL: usize = 600;

/// Why a sandbox is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnosis {
    /// One word, the cluster's own: `ImagePullBackOff`, `Unschedulable`, `FailedMount`.
    pub(crate) reason: Box<str>,
    /// What happened and what to do.
    pub(crate) message: Option<Box<str>>,
    /// Nothing is wrong as far as the Pod says; a warning event may know more.
    pub(crate) is_waiting: bool,
}

impl Diagnosis {
    fn problem(reason: &str, detail: &str) -> Self {
        Self { reason: reason.into(), message: Some(with_hint(reason, detail).into()), is_waiting: false }
    }

    fn waiting(reason: &str) -> Self {
        Self { reason: reason.into(), message: None, is_waiting: true }
    }

    /// Something was killed for memory, as this says.
    pub(crate) fn of_memory(detail: &str) -> Self {
        Self::problem(memory_kill::REASON, detail)
    }

    /// A warning event as a diagnosis.
    pub(crate) fn of_warning(reason: &str, detail: &str) -> Self {
        Self::problem(reason, detail)
    }
}

/// What a Pod says is wrong with it; `None` when it is ready.
pub(crate) fn of(pod: &Pod) -> Option<Diagnosis> {
    let status = pod.status.as_ref()?;
    let condition = |kind: &str| status.conditions.iter().flatten().find(|c| c.type_ == kind);
    if condition("Ready").is_some_and(|ready| ready.status == "True") {
        return None;
    }
    if let Some(reason) = &status.reason {
        // Evicted, NodeLost, OutOfcpu, NodeAffinity: the whole Pod was turned away.
        return Some(Diagnosis::problem(reason, status.message.as_deref().unwrap_or_default()));
    }
    if let Some(scheduled) = condition("PodScheduled").filter(|c| c.status == "False") {
        let reason = scheduled.reason.as_deref().unwrap_or("Unschedulable");
        return Some(Diagnosis::problem(reason, scheduled.message.as_deref().unwrap_or_default()));
    }
    let found = containers(status).find_map(|container| of_container(pod, container));
    found.or_else(|| Some(Diagnosis::waiting(waiting_reason(status))))
}

/// All containers, those first that run first.
pub(crate) fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten())
}

fn waiting_reason(status: &PodStatus) -> &'static str {
    if containers(status).any(|container| container.state.as_ref().is_some_and(|s| s.running.is_some())) {
        "ContainersNotReady"
    } else if containers(status).next().is_some() {
        "ContainerCreating"
    } else {
        "Pending"
    }
}

fn of_container(pod: &Pod, container: &ContainerStatus) -> Option<Diagnosis> {
    let name = &container.name;
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let detail = waiting.message.as_deref().unwrap_or_default();
        return match reason {
            "" | "ContainerCreating" | "PodInitializing" => None,
            "CrashLoopBackOff" => Some(crash(pod, container, last_end(container))),
            _ => Some(Diagnosis::problem(reason, &format!("container {name}: {detail}"))),
        };
    }
    if let Some(ended) = &state.terminated
        && (ended.exit_code != 0 || ended.signal.is_some())
    {
        return Some(crash(pod, container, Some(ended)));
    }
    // It runs again after a crash, and is not ready yet.
    (state.running.is_some() && container.restart_count > 0)
        .then(|| crash(pod, container, last_end(container)))
}

fn last_end(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    container.last_state.as_ref().and_then(|state: &ContainerState| state.terminated.as_ref())
}

fn crash(pod: &Pod, container: &ContainerStatus, ended: Option<&ContainerStateTerminated>) -> Diagnosis {
    let (name, restarts) = (&container.name, container.restart_count);
    let how = match ended {
        Some(ended) if memory_kill::is_for_memory(ended) => {
            return Diagnosis::of_memory(&format!(
                "{} ({restarts} restarts)",
                memory_kill::sentence(pod, name)
            ));
        }
        Some(ended) => match (ended.signal.filter(|signal| *signal != 0), ended.exit_code) {
            (Some(signal), _) => format!("was ended by signal {signal}"),
            // What shells and container runtimes make of a signal.
            (None, code @ 129..=192) => format!("ended with exit code {code}: signal {}", code - 128),
            (None, code) => format!("ended with exit code {code}"),
        },
        None => "ended".to_owned(),
    };
    let said = ended.and_then(|ended| ended.message.as_deref()).map(|m| format!(": {m}")).unwrap_or_default();
    Diagnosis::problem("CrashLoopBackOff", &format!("container {name} {how} ({restarts} restarts){said}"))
}

fn with_hint(reason: &str, detail: &str) -> String {
    let detail = shorten(detail);
    match hint(reason, &detail) {
        Some(hint) if detail.is_empty() => hint.to_owned(),
        Some(hint) => format!("{}. {hint}", detail.trim_end_matches(['.', ' ', '\n'])),
        None => detail,
    }
}

/// What usually helps.
fn hint(reason: &str, detail: &str) -> Option<&'static str> {
    Some(match reason {
        "ErrImagePull" | "ImagePullBackOff" => {
            "Check SANDBOX_IMAGE: that the name is right, the node reaches the registry, and a private \
             registry has a pull secret in the namespace's default service account"
        }
        "ErrImageNeverPull" | "InvalidImageName" | "ImageInspectError" => "Check SANDBOX_IMAGE",
        "Unschedulable" => {
            "No node takes the sandbox: it requests 100m CPU, 256Mi memory and 500Mi ephemeral storage; \
             delete sandboxes, add a node, or look at taints"
        }
        "FailedMount" | "FailedAttachVolume" if detail.contains("hostPath") => {
            "The directory must be there on the node: for a skill view under DEER_FLOW_HOST_BASE_DIR start \
             DeerFlow once, and check that the node sees the same path (minikube mount, kind extraMounts)"
        }
        "FailedMount" | "FailedAttachVolume" => {
            "Check the volume: SKILLS_PVC_NAME and USERDATA_PVC_NAME must be bound claims of the namespace"
        }
        "FailedCreatePodSandBox" => "The node's container runtime or network plugin fails: look at the node",
        "CrashLoopBackOff" => "Read its log: GET /api/sandboxes/{id}/logs?previous=true",
        memory_kill::REASON => {
            "Its processes and the files outside of its mounts are lost. Use less memory at once: work in parts, with \
             fewer processes"
        }
        "Evicted" if detail.contains("ephemeral") && detail.contains("exceed") => {
            "It wrote more to files outside of its mounts than its limit; creating the sandbox again starts a fresh \
             one, write large files below /mnt/user-data"
        }
        "Evicted" if detail.contains("memory") => {
            "Its node ran out of memory, which is not the sandbox's own limit; creating the sandbox again starts a \
             fresh one, perhaps elsewhere"
        }
        "Evicted" => "The node ran out of something; creating the sandbox again starts a fresh one",
        "NodeLost" | "NodeNotReady" => "Its node does not answer: look at `kubectl get nodes`",
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            "The node cannot start the container as described: look at `kubectl describe pod`"
        }
        _ => return None,
    })
}

/// Without control characters, and no longer than a person reads.
pub(crate) fn shorten(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.len() <= MAX_DETAIL {
        return clean;
    }
    let end = (0..=MAX_DETAIL).rev().find(|at| clean.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &clean[..end])
}

#[cfg(test)]
#[path = "diagnosis_tests.rs"]
mod tests;
