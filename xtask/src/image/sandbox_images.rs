//! The images of real sandboxes: Debian with the agent, Debian alone, the agent alone.
//!
//! `deploy/sandbox/Dockerfile` is the recipe for users; this is the same for machines without Docker and
//! without a registry.

use anyhow::{Context, Result};

use super::archive::{Image, Source};
use super::layer::Layer;
use super::root;
use crate::dist::{self, Program};
use crate::run;

/// Where the agent lies in an image that has it.
const AGENT: &str = "/usr/local/bin/stockade-agent";

/// Which image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Debian with Python, Node.js and common tools, and the agent as entry point.
    Sandbox,
    /// The same without the agent, and without an entry point: any image of a user.
    Debian,
    /// The agent and nothing else: what brings it into other images.
    Agent,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sandbox, Self::Debian, Self::Agent];

    /// What a Pod asks for to get this image.
    #[must_use]
    pub const fn reference(self) -> &'static str {
        match self {
            Self::Sandbox => "stockade.local/sandbox:dev",
            Self::Debian => "stockade.local/debian:dev",
            Self::Agent => "stockade.local/agent:dev",
        }
    }

    /// Builds what is in it.
    ///
    /// # Errors
    /// When the agent does not build, or Debian's packages cannot be had.
    pub fn image(self) -> Result<Image> {
        let mut layers: Vec<Source> = Vec::new();
        if self != Self::Agent {
            layers.push(Source::Ready(root::ensure_tar()?));
        }
        if self != Self::Debian {
            layers.push(Layer::new().file(AGENT, 0o755, agent()?).into());
        }
        let is_debian = self != Self::Agent;
        let env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"];
        let of_gem = ["USER=gem", "WORKSPACE=/home/gem"];
        let env = env.iter().chain(if is_debian { &of_gem[..] } else { &[] });
        let working_directory = if is_debian { "/home/gem" } else { "/" };
        Ok(Image {
            reference: self.reference().to_owned(),
            entrypoint: if self == Self::Debian { vec![] } else { vec![AGENT.to_owned()] },
            env: env.map(|pair| (*pair).to_owned()).collect(),
            ports: if self == Self::Sandbox { vec![8080] } else { vec![] },
            // As a number, so that a cluster can see that it is not root.
            user: "1000:1000".to_owned(),
            working_directory: working_directory.to_owned(),
            layers,
        })
    }
}

fn agent() -> Result<Vec<u8>> {
    let architecture = std::env::consts::ARCH;
    run::output(&mut dist::build_command(Program::Agent, architecture)?)?;
    let path = dist::check(Program::Agent, architecture)?;
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}
