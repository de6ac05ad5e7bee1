//! The domain of Stockade, pure: what a sandbox is, which requests are good, where its files lie,
//! what a backend must be able to do, and what to do about what a backend saw.
//!
//! Nothing here awaits, reads a clock, an environment variable or a file. Time is an argument. The
//! backends (`stockade-kubernetes`, later `stockade-embedded`) turn these values into Pods or
//! namespaces; the server turns them into HTTP.

pub mod backend;
pub mod contract;
pub mod egress;
pub mod id;
pub mod layout;
pub mod mount;
pub mod path;
pub mod plan;
pub mod resources;
pub mod sandbox;
pub mod signature;
pub mod spec;

pub use backend::{Backend, BackendError};
pub use contract::ContractVersion;
pub use id::{IdError, SandboxId, ThreadId, UserId};
pub use sandbox::{Identity, Sandbox, Status};
pub use spec::SandboxSpec;
