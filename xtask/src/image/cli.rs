//! `cargo xtask image`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::test_images::{Kind, Programs};
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

/// Builds the program, writes the archive and prints its path.
///
/// # Errors
/// When the program does not build or the archive cannot be written.
pub fn run(arguments: &Image) -> Result<()> {
    let output = match &arguments.output {
        Some(output) => output.clone(),
        None => {
            let directory = paths::repository().join(".stockade/images");
            std::fs::create_dir_all(&directory)
                .with_context(|| format!("cannot make the directory {}", directory.display()))?;
            let name = arguments.kind.reference().rsplit(['/', ':']).nth(1).unwrap_or("image");
            directory.join(format!("{name}.tar"))
        }
    };
    let step = progress::Step::start(&format!("image {}", arguments.kind.reference()));
    Programs::build()?.image(arguments.kind)?.write(&output)?;
    step.done();
    progress::answer(&output.display().to_string());
    Ok(())
}
