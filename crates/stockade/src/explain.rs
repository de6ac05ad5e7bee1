//! `stockade explain`: how a request would become a sandbox.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use stockade_api::create;
use stockade_core::backend::{Capabilities, Features};
use stockade_core::egress::NetworkMode;
use stockade_core::layout::LarkSupport;
use stockade_embedded::backend::{Explained, explain};
use stockade_embedded::facts::MachineFacts;

use crate::remote::sandboxes::print_json;
use crate::settings::{BackendSettings, Settings};

/// The most bytes of a request, as over HTTP.
const MAX_REQUEST: u64 = 1024 * 1024;

/// Prints the steps.
///
/// # Errors
/// When the request cannot be read or would be refused.
pub(crate) fn run(settings: &Settings, spec: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    let BackendSettings::Embedded(settings) = &settings.backend else {
        bail!("only the embedded backend has steps to explain");
    };
    let body = read(spec).with_context(|| format!("cannot read {}", spec.display()))?;
    let backend = Capabilities {
        lark: LarkSupport { runtime: false, broker: false },
        contract: settings.storage.contract,
        features: Features {
            env: true,
            resources: true,
            network: &[NetworkMode::Isolated, NetworkMode::Open],
        },
    };
    let request = create::decode(&body, backend).map_err(|invalid| {
        let wrong = invalid.detail.iter().map(|error| {
            let place: Vec<String> = error.loc.iter().skip(1).map(ToString::to_string).collect();
            format!("\n  {}: {}", place.join("."), error.msg)
        });
        anyhow::anyhow!("{} is no create request:{}", spec.display(), wrong.collect::<String>())
    })?;
    let steps = explain(&request.spec, settings, &MachineFacts::probe())?;
    let mut out = io::stdout().lock();
    if as_json {
        print_json(&mut out, &steps)?;
    } else {
        print(&mut out, &steps)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(out: &mut dyn Write, steps: &[Explained]) -> io::Result<()> {
    for (number, step) in steps.iter().enumerate() {
        writeln!(out, "{:>3}  {}", number + 1, step.text)?;
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(MAX_REQUEST + 1).read_to_end(&mut body)?;
    } else {
        File::open(path)?.take(MAX_REQUEST + 1).read_to_end(&mut body)?;
    }
    if body.len() as u64 > MAX_REQUEST {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    Ok(body)
}
