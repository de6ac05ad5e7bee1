//! Making a sandbox.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use stockade_api::{CreateSandbox, Sandbox};

use super::Server;
use super::sandboxes::{print, print_json};

/// How long a create may wait for the sandbox to become ready.
const PATIENCE: Duration = stockade_api::query::MAX_WAIT;

/// Makes the sandbox and prints it. Without `wait`, it may not be ready yet; its address accepts in any case.
///
/// # Errors
/// When the server refuses or does not answer, or nothing can be printed.
pub(crate) async fn run(
    server: &Server,
    request: &CreateSandbox,
    wait: bool,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let client = server.client();
    let made = if wait { client.create_ready(request, PATIENCE).await } else { client.create(request).await };
    let sandbox = made.map_err(|error| server.explain(error))?;
    let mut out = io::stdout().lock();
    if as_json {
        print_json(&mut out, &sandbox)?;
    } else {
        print(&mut out, &sandbox)?;
        if runs(&sandbox) {
            next_steps(&mut out, server, &sandbox)?;
        }
    }
    if !runs(&sandbox) {
        let remove = server.line("rm", &sandbox.sandbox_id);
        writeln!(
            io::stderr(),
            "stockade: it was there and does not run any more; `{remove}` removes it with its files"
        )?;
        return Ok(ExitCode::FAILURE);
    }
    let in_time = !wait || sandbox.ready;
    if !in_time {
        writeln!(io::stderr(), "stockade: the sandbox is not ready after {} s", PATIENCE.as_secs())?;
    }
    Ok(if in_time { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether it runs, or is about to.
fn runs(sandbox: &Sandbox<'_>) -> bool {
    !matches!(sandbox.status.as_ref(), "Failed" | "Succeeded")
}

/// What to do with it, for a person.
fn next_steps(out: &mut dyn Write, server: &Server, sandbox: &Sandbox<'_>) -> io::Result<()> {
    if !io::IsTerminal::is_terminal(&io::stdout()) {
        return Ok(());
    }
    let id = &*sandbox.sandbox_id;
    let exec = server.line("exec", &format!("{id} -- uname -a"));
    writeln!(out, "\n  {exec}\n  {}\n  {}", server.line("shell", id), server.line("rm", id))
}

/// An id that nobody else has: eight hexadecimal digits, as DeerFlow's are.
///
/// # Errors
/// When the system has no random numbers.
pub(crate) fn random_id() -> io::Result<String> {
    let mut bytes = [0; 4];
    // Requests of at most 256 bytes are filled whole.
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
