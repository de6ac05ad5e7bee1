//! The Kubernetes backend: a sandbox is a Pod, reached through a Service that the Pod owns.

pub mod settings;

pub use settings::KubernetesSettings;
