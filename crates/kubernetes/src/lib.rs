//! The Kubernetes backend: a sandbox is a Pod, reached through a Service that the Pod owns.

mod backend;
mod backoff;
mod call_error;
mod cluster;
mod connect;
mod create;
mod delete;
mod diagnosis;
pub mod doctor;
mod first_answer;
mod health;
mod index;
mod inner;
mod keyed_lock;
mod log_stream;
pub mod manifest;
mod memory_kill;
mod metrics;
mod namespace;
mod read;
mod record;
mod repair;
mod sameness;
pub mod settings;
#[cfg(feature = "testing")]
pub mod testing;
mod warnings;
mod watch;

pub use backend::KubernetesBackend;
pub use connect::StartError;

pub use settings::KubernetesSettings;
