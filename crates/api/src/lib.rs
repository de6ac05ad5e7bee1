//! The wire of Stockade: what callers send and what they get, as types.
//!
//! These are not the types of the domain (`stockade-core`): here is what JSON looks like, there is what
//! it means. Answers borrow from the domain, so that a list of thousands is written without a copy.
//! Requests are read by hand ([`create::decode`]), so that one answer names every wrong field, in the
//! form that callers of the reference know.

pub mod capabilities;
#[cfg(feature = "client")]
pub mod client;
pub mod create;
pub mod delete;
pub mod echo;
pub mod error;
pub mod events;
pub mod extension;
pub mod field;
pub mod health;
mod object;
pub mod query;
pub mod reconciliation;
pub mod sandbox;

pub use capabilities::Capabilities;
pub use create::{CheckedCreate, CreateSandbox};
pub use delete::Deleted;
pub use error::{ConflictBody, ErrorBody, FieldError, InvalidRequest, MountContractChanged};
pub use events::{Event, EventList};
pub use extension::{NetworkRequest, QuantityPair, ResourceRequest};
pub use health::{Health, Readiness};
pub use reconciliation::Reconciliation;
pub use sandbox::{Sandbox, SandboxList};
