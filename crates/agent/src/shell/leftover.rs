//! What goes on although its session, or its bash, has ended.
//!
//! Who holds a terminal that is closed is hung up, or fails at the next line it prints. So it stays, and what is printed
//! on it is read, until the last process is gone. A session that was ended unasked leaves its bash there as well: the
//! kernel hangs up what is in its process group when it ends, which is where `$(server &)` puts a server.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::terminal::Terminal;
use crate::pool::Pool;
use crate::process::Reaper;

/// Read at once at most, and what is waited in between: what never stops printing is not to keep the agent busy.
const READ: usize = 64 * 1024;
const PAUSE: Duration = Duration::from_millis(10);

/// How often it is looked whether bash is alone.
const LOOK: Duration = Duration::from_secs(5);

/// Ends bash when nothing runs any more that it has started.
pub(super) async fn end_bash_after(terminal: Arc<Terminal>, pool: Pool, reaper: Reaper) {
    let mut signal = Signal::HUP;
    loop {
        if tokio::time::timeout(LOOK, terminal.family.wait_until_gone()).await.is_ok() {
            return;
        }
        let looked_at = Arc::clone(&terminal);
        if pool.run(move || looked_at.is_alone()).await.unwrap_or(false) {
            reaper.signal(terminal.pid, signal);
            signal = Signal::KILL;
        }
    }
}

/// Reads and drops until nothing runs on the terminal any more.
pub(super) async fn keep(terminal: Arc<Terminal>) {
    tokio::select! {
        () = read_and_drop(&terminal) => terminal.family.wait_until_gone().await,
        () = terminal.family.wait_until_gone() => {}
    }
}

/// Returns when there will be nothing to read.
async fn read_and_drop(terminal: &Terminal) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok(mut ready) = terminal.master.readable().await else { return };
        let read = ready.try_io(|_| {
            let mut left = READ;
            while left > 0 {
                match terminal.read_now(&mut buffer)? {
                    0 => return Ok(false),
                    length => left = left.saturating_sub(length),
                }
            }
            Ok(true)
        });
        drop(ready);
        if matches!(read, Ok(Ok(false) | Err(_))) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
