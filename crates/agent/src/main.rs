//! `stockade-agent`: the agent as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    stockade_agent::main()
}
