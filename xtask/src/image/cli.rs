//! `cargo xtask image`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::archive;
use super::test_images::Programs;
use super::{sandbox_images, test_images};
use crate::{paths, progress};

/// Arguments of `cargo xtask image`.
#[derive(Debug, Args)]
pub struct Image {
    /// Which image
    kind: Kind,
    /// Where to write the OCI archive [default: .stockade/images/KIND.tar]
    #[arg(long, short)]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// The test sandbox: answers `GET /v1/sandbox` and shows what it sees
    Testbox,
    /// The program that holds a Pod's namespaces open
    Pause,
    /// A real sandbox: Debian with Python, Node.js and common tools, and the sandbox agent
    Sandbox,
    /// The same without the sandbox agent, for `SANDBOX_INJECT_AGENT`
    Debian,
    /// The sandbox agent alone: `SANDBOX_AGENT_IMAGE`
    Agent,
}

impl Kind {
    fn image(self) -> Result<archive::Image> {
        match self {
            Self::Testbox => Programs::build()?.image(test_images::Kind::Testbox),
            Self::Pause => Programs::build()?.image(test_images::Kind::Pause),
            Self::Sandbox => sandbox_images::Kind::Sandbox.image(),
            Self::Debian => sandbox_images::Kind::Debian.image(),
            Self::Agent => sandbox_images::Kind::Agent.image(),
        }
    }
}

/// Builds what is in the image, writes the archive, says its size and prints its path.
///
/// # Errors
/// When something does not build or the archive cannot be written.
pub fn run(arguments: &Image) -> Result<()> {
    let image = arguments.kind.image()?;
    let output = match &arguments.output {
        Some(output) => output.clone(),
        None => {
            let directory = paths::repository().join(".stockade/images");
            std::fs::create_dir_all(&directory)
                .with_context(|| format!("cannot make the directory {}", directory.display()))?;
            let name = image.reference.rsplit(['/', ':']).nth(1).unwrap_or("image");
            directory.join(format!("{name}.tar"))
        }
    };
    let step = progress::Step::start(&format!("image {}", image.reference));
    image.write(&output)?;
    step.done();
    let size = std::fs::metadata(&output).with_context(|| format!("cannot read {}", output.display()))?;
    progress::say(&format!("{}: {:.1} MB", image.reference, size.len() as f64 / 1e6));
    progress::answer(&output.display().to_string());
    Ok(())
}
