//! Connections to sandboxes: one small process per machine holds their ports and outlives the server.
//!
//! ```text
//!   callers ──► port ─ accept ─ first byte ─┬─ attached ───► socket made inside the sandbox's network
//!                                           │                namespace ──► its agent, bytes both ways
//!                                           ├─ paused ─────► written awake, Woken, then as above
//!                                           ├─ failed ─────► 503 at once, with the reason
//!                                           └─ not attached ► waits (bounded), Wanted; 503 after 30 s
//!   server ◄── relay.sock: requests with descriptors, events ──► relay
//! ```
//!
//! The relay reads nothing of what it passes on but whether an answer changes the protocol, opens nothing that a sandbox
//! names, and gives no descriptor to anybody. A caller whose request is cut before anything of an answer came is told why. It ends when the last server has left and no sandbox has a port. It knows nothing that the server could not tell it again: when it is killed, the server starts
//! another and tells it everything anew.

mod accept;
mod calls;
mod client;
mod confine;
mod connection;
mod connector;
mod control;
mod copy;
mod error;
mod events;
mod exchange;
mod limits;
mod machine;
mod moment;
mod packet;
mod place;
mod port;
pub(crate) mod process;
mod refusal;
mod registry;
mod silent;
mod start;
mod wire;

pub use client::{Relay, RelayEvent, Thaw};
pub use error::RelayError;
pub use moment::Moment;
pub use place::find;
pub use start::RelayOptions;
pub use wire::{Failure, Listed};
