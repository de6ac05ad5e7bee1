//! Prints the description of the API: `cargo xtask openapi` keeps it in `crates/server/openapi.json`.

use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    writeln!(std::io::stdout(), "{}", stockade_server::openapi().to_pretty_json()?)?;
    Ok(())
}
