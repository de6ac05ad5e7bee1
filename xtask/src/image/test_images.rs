//! The images of the tests, from the static programs of `e2e/testbox`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::archive::Image;
use super::layer::Layer;
use crate::{dist, paths, run, rust_target};

/// Which image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The test sandbox: answers `GET /v1/sandbox` and shows what it sees.
    Testbox,
    /// The program that holds a Pod's namespaces open.
    Pause,
}

impl Kind {
    /// What a Pod asks for to get this image.
    #[must_use]
    pub const fn reference(self) -> &'static str {
        match self {
            Self::Testbox => "stockade.local/testbox:dev",
            Self::Pause => "stockade.local/pause:dev",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Testbox => "stockade-testbox",
            Self::Pause => "stockade-pause",
        }
    }
}

/// The static programs of `e2e/testbox`, built.
#[derive(Debug, Clone)]
pub struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Builds them for this machine's architecture.
    ///
    /// # Errors
    /// When cargo fails, for example because the musl target is not installed.
    pub fn build() -> Result<Self> {
        let target = dist::target(std::env::consts::ARCH);
        rust_target::ensure(&target)?;
        let repository = paths::repository();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = run::command(&[cargo]);
        command.current_dir(&repository).args([
            "build",
            "--quiet",
            "--package",
            "stockade-testbox",
            "--release",
            "--target",
            &target,
        ]);
        run::output(&mut command).context("the test programs do not build")?;
        let target_directory =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
        Ok(Self { directory: repository.join(target_directory).join(target).join("release") })
    }

    /// The static program of an image as a file of this machine.
    #[must_use]
    pub fn path(&self, kind: Kind) -> PathBuf {
        self.directory.join(kind.program())
    }

    /// The image around that program.
    ///
    /// # Errors
    /// When the program cannot be read.
    pub fn image(&self, kind: Kind) -> Result<Image> {
        let bytes = read(&self.path(kind))?;
        let path = format!("/{}", kind.program());
        let layer = Layer::new().file(&path, 0o755, bytes);
        let (layer, ports) = match kind {
            Kind::Pause => (layer, vec![]),
            Kind::Testbox => (
                layer
                    .directory("/tmp", 0o1777)
                    .directory("/home/sandbox", 0o777)
                    .file("/etc/passwd", 0o644, "root:x:0:0:root:/:/\nnobody:x:65534:65534:nobody:/:/\n")
                    .file("/etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n"),
                vec![8080],
            ),
        };
        Ok(Image {
            reference: kind.reference().to_owned(),
            entrypoint: vec![path],
            env: vec!["PATH=/".to_owned()],
            ports,
            user: String::new(),
            working_directory: "/".to_owned(),
            layers: vec![layer.into()],
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
