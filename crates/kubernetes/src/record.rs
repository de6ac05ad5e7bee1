//! What the index keeps of a Pod and of a Service: what answers need, and no more, because there may be
//! ten thousand of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stockade_core::{ContractVersion, Identity, SandboxId, Status, ThreadId, UserId};

use crate::diagnosis::{self, Diagnosis};
use crate::manifest::{CONTRACT_ANNOTATION, THREAD_ANNOTATION, USER_ANNOTATION};
use crate::manifest::{id_of_pod, id_of_service, is_ours};
use crate::memory_kill::MemoryKill;

/// The version of an object. Opaque by the letter of the API; in every API server there is, and by its
/// documentation since 1.35, a number that grows with each write. An unparsable one counts as 0: such an
/// object never replaces another by being newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Revision(u64);

impl Revision {
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.parse().unwrap_or(0))
    }
}

/// The two kinds of object the index is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Pods,
    Services,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Services => "services",
        }
    }
}

/// What the index keeps of one kind of object.
pub(crate) trait Record: Sized + Send + 'static {
    /// The kind.
    const KIND: Kind;
    /// The object as the API server has it.
    type Object: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug
        + Send
        + 'static;

    /// The sandbox and the record of an object; `None` when the object is not one of ours.
    fn of(object: &Self::Object) -> Option<(SandboxId, Self)>;
    /// Which object this is, among all that ever had its name.
    fn uid(&self) -> &str;
    /// Its version.
    fn revision(&self) -> Revision;
}

/// A Pod of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodRecord {
    pub(crate) uid: Box<str>,
    pub(crate) revision: Revision,
    pub(crate) created_at: Option<Timestamp>,
    /// It has a deletion timestamp.
    pub(crate) terminating: bool,
    pub(crate) status: Status,
    /// Its Ready condition.
    pub(crate) ready: bool,
    /// The kubelet has told its address.
    pub(crate) has_address: bool,
    pub(crate) diagnosis: Option<Diagnosis>,
    pub(crate) memory_kill: Option<MemoryKill>,
    pub(crate) identity: Option<Identity>,
    pub(crate) contract: Option<ContractVersion>,
}

impl Record for PodRecord {
    const KIND: Kind = Kind::Pods;
    type Object = Pod;

    fn of(pod: &Pod) -> Option<(SandboxId, Self)> {
        let id = id_of_pod(pod.metadata.name.as_deref()?)?;
        if !is_ours(pod.metadata.labels.as_ref(), &id) {
            return None;
        }
        let status = pod.status.as_ref();
        let record = Self {
            uid: pod.metadata.uid.as_deref()?.into(),
            revision: revision(&pod.metadata),
            created_at: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            status: match status.and_then(|status| status.phase.as_deref()) {
                Some("Running") => Status::Running,
                Some("Succeeded") => Status::Succeeded,
                Some("Failed") => Status::Failed,
                Some("Unknown") => Status::Unknown,
                _ => Status::Pending,
            },
            ready: status
                .and_then(|status| status.conditions.as_ref())
                .is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True")),
            has_address: status.is_some_and(|status| status.pod_ip.is_some()),
            diagnosis: diagnosis::of(pod),
            memory_kill: MemoryKill::of(pod),
            identity: identity(pod.metadata.annotations.as_ref()),
            contract: contract(pod.metadata.annotations.as_ref()),
        };
        Some((id, record))
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn revision(&self) -> Revision {
        self.revision
    }
}

impl PodRecord {
    /// When something in it was killed for memory the last time.
    pub(crate) fn memory_kill_at(&self) -> Option<Timestamp> {
        self.memory_kill.as_ref().map(|kill| kill.at)
    }

    /// It will never run again by itself: replaced by the next create.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.status, Status::Succeeded | Status::Failed)
    }
}

fn identity(annotations: Option<&BTreeMap<String, String>>) -> Option<Identity> {
    let annotations = annotations?;
    Some(Identity {
        user: UserId::new(annotations.get(USER_ANNOTATION)?).ok()?,
        thread: ThreadId::new(annotations.get(THREAD_ANNOTATION)?).ok()?,
    })
}

fn contract(annotations: Option<&BTreeMap<String, String>>) -> Option<ContractVersion> {
    ContractVersion::from_number(annotations?.get(CONTRACT_ANNOTATION)?.parse().ok()?)
}

/// A Service of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceRecord {
    pub(crate) uid: Box<str>,
    pub(crate) revision: Revision,
    /// The Pod it goes with; `None` when whoever made it did not say.
    pub(crate) owner: Option<Box<str>>,
    pub(crate) terminating: bool,
    /// How it is reached; `None` while it has no port.
    pub(crate) address: Option<Address>,
}

/// How a Service is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Address {
    /// At this port of every node.
    NodePort(u16),
    /// At this port of its name.
    ClusterIp(u16),
}

impl Record for ServiceRecord {
    const KIND: Kind = Kind::Services;
    type Object = Service;

    fn of(service: &Service) -> Option<(SandboxId, Self)> {
        let id = id_of_service(service.metadata.name.as_deref()?)?;
        if !is_ours(service.metadata.labels.as_ref(), &id) {
            return None;
        }
        let owners = service.metadata.owner_references.iter().flatten();
        let owner = owners.filter(|owner| owner.kind == "Pod").map(|owner| owner.uid.as_str()).next();
        let record = Self {
            uid: service.metadata.uid.as_deref()?.into(),
            revision: revision(&service.metadata),
            owner: owner.map(Into::into),
            terminating: service.metadata.deletion_timestamp.is_some(),
            address: address(service),
        };
        Some((id, record))
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn revision(&self) -> Revision {
        self.revision
    }
}

impl ServiceRecord {
    /// Whether it can lead to the Pod of this UID: one that says nothing leads to whichever Pod has the label.
    pub(crate) fn leads_to(&self, pod_uid: &str) -> bool {
        !self.terminating && self.owner.as_deref().is_none_or(|owner| owner == pod_uid)
    }
}

/// By the Service's own type, not by our setting: the setting may have changed since it was made.
fn address(service: &Service) -> Option<Address> {
    let spec = service.spec.as_ref()?;
    let ports = spec.ports.as_ref()?;
    let port = ports.iter().find(|port| port.name.as_deref() == Some("http")).or_else(|| ports.first())?;
    match spec.type_.as_deref() {
        Some("NodePort" | "LoadBalancer") => {
            port.node_port.and_then(|port| u16::try_from(port).ok()).map(Address::NodePort)
        }
        _ => u16::try_from(port.port).ok().map(Address::ClusterIp),
    }
}

fn revision(metadata: &ObjectMeta) -> Revision {
    metadata.resource_version.as_deref().map(Revision::parse).unwrap_or_default()
}
