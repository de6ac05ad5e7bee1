//! Sandboxes on one Linux machine, with nothing installed but us.
//!
//! ```text
//!   server process (async)                         processes of their own
//!   ┌──────────────────────────────┐   plan + descriptors   ┌───────────────────────────────┐
//!   │ backend   what callers ask   │ ─────────────────────► │ launch   single-threaded; one │
//!   │ network   veth, NAT, names   │ ◄───────────────────── │          child per sandbox    │
//!   │ cgroup    limits, freezer    │        pidfd           └───────────────┬───────────────┘
//!   └──────────────┬───────────────┘                                        │ exec
//!                  │ ports, network namespaces      ┌──────────┐      ┌─────▼──────────────┐
//!                  └───────────────────────────────►│ relay    │─────►│ the sandbox: agent │
//!                      callers ────────────────────►│          │      │ as its pid 1       │
//!                                                   └──────────┘      └────────────────────┘
//! ```
//!
//! What was decided and why stands in `docs/decisions/`; what a sandbox may and may not do in
//! `docs/guide/`.

pub mod backend;
pub mod cgroup;
pub mod confine;
pub mod facts;
pub mod launch;
pub mod network;
pub mod relay;
pub mod role;
pub mod rootfs;
pub mod settings;
mod state;

pub use backend::EmbeddedBackend;
pub use settings::EmbeddedSettings;
pub use state::StateError;
