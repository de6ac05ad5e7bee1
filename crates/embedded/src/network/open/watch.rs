//! Puts the filter back when somebody removes it.
//!
//! `nft flush ruleset` is how a firewall's service reloads on many machines, and it removes the tables of all.
//! Without ours, sandboxes would reach what they must not, so that is no state to wait in. While no server
//! runs, nobody watches; the next one puts the filter back at its start.

use std::sync::{Arc, Weak};
use std::thread;

use parking_lot::Mutex;

use super::Open;
use crate::network::NetworkError;
use crate::network::error::{Doing, with_sources};
use crate::network::filter;
use crate::network::netlink::{Changes, Socket};

/// Starts watching, on a thread that ends soon after `open` is gone.
pub(crate) fn watch(open: &Arc<Mutex<Open>>) -> Result<(), NetworkError> {
    let changes = Socket::netfilter_changes().doing(|| "watch nf_tables".to_owned())?;
    let table = open.lock().names.table.clone();
    let open = Arc::downgrade(open);
    thread::Builder::new()
        .name("stockade-filter".to_owned())
        .spawn(move || attend(&changes, &table, &open))
        .map_err(NetworkError::Thread)?;
    Ok(())
}

fn attend(changes: &Socket, table: &str, open: &Weak<Mutex<Open>>) {
    loop {
        let removed = match changes.changes() {
            Ok(Changes::None) => false,
            Ok(Changes::These(all)) => all.iter().any(|(kind, body)| filter::is_removal(*kind, body, table)),
            Ok(Changes::Lost) => true,
            Err(error) => {
                return tracing::error!(error = with_sources(&error), "the filter is not watched any more");
            }
        };
        let Some(open) = open.upgrade() else { return };
        // What removed it may have been us, who put it back at once with the same request.
        if removed && !filter::exists(table).unwrap_or(false) {
            match open.lock().restore() {
                Ok(()) => tracing::warn!(table, "somebody removed our nf_tables table; it is back in place"),
                Err(error) => {
                    tracing::error!(
                        error = with_sources(&error),
                        "our nf_tables table is gone, and sandboxes are not kept apart"
                    );
                }
            }
        }
    }
}
