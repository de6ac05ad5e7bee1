//! Whether the machine passes packets on (`net.ipv4.ip_forward`): switched on while it is needed, and off again
//! when it was off before.
//!
//! That it was off is noted in the kernel itself, as an empty set in our table: the note lives as long as the
//! setting does, and a machine that crashes forgets both.

use crate::network::NetworkError;
use crate::network::addressing::Names;
use crate::network::error::Doing;
use crate::network::filter::{self, Filter};

const SETTING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Switches it on; whether it was off before us, or before an earlier server of ours.
pub(super) fn switch_on(filter: &mut Filter, names: &Names) -> Result<bool, NetworkError> {
    let found = std::fs::read_to_string(SETTING).map_err(NetworkError::Forwarding)?;
    if found.trim() != "0" {
        return filter::forwarding_noted(&names.table).doing(|| "read whether forwarding was off".to_owned());
    }
    // The note first: a crash in between leaves a note that does no harm.
    filter.note_forwarding().doing(|| "note that forwarding was off".to_owned())?;
    std::fs::write(SETTING, "1").map_err(NetworkError::Forwarding)?;
    Ok(true)
}

/// Switches it off if we switched it on. Another machine of our kind in this kernel inherits the note.
pub(super) fn restore(names: &Names) -> Result<(), NetworkError> {
    let doing = || "read whether forwarding was off".to_owned();
    if !filter::forwarding_noted(&names.table).doing(doing)? {
        return Ok(());
    }
    let others = filter::other_machines(names).doing(doing)?;
    match others.first() {
        Some(heir) => filter::note_forwarding(heir).doing(|| format!("leave a note in the table {heir}")),
        None => std::fs::write(SETTING, "0").map_err(NetworkError::Forwarding),
    }
}
