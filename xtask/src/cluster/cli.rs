//! `cargo xtask cluster`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use super::components::Component;
use super::{DEFAULT_NAME, Options};
use crate::progress::{answer, say};

/// Arguments of `cargo xtask cluster`.
#[derive(Debug, Args)]
pub struct Cluster {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Named {
    /// Which cluster; several live side by side
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
}

#[derive(Debug, Args)]
struct OfComponent {
    /// Which component
    component: Component,
    #[command(flatten)]
    named: Named,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the cluster up, building Kubernetes first where it was never built
    Up {
        /// Only etcd, API server and controllers: ready in seconds, runs no Pods
        #[arg(long)]
        control_plane_only: bool,
        /// Print how to reach the cluster as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        named: Named,
    },
    /// End the cluster and remove everything of it
    Down(Named),
    /// Say what runs and whether it is well
    Status {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        named: Named,
    },
    /// Print shell lines: eval "$(cargo xtask cluster env)"
    Env(Named),
    /// Bring an OCI archive (`cargo xtask image`) into the node, as if it had been pulled
    Load {
        /// The archives
        #[arg(required = true)]
        archives: Vec<PathBuf>,
        #[command(flatten)]
        named: Named,
    },
    /// Kill a component as a crash would; its data stays
    Kill(OfComponent),
    /// Stop a component in order; its data stays
    #[command(alias = "stop-component")]
    Stop(OfComponent),
    /// Start a component that was killed or stopped
    #[command(alias = "start-component")]
    Start(OfComponent),
    /// Stop and start a component
    #[command(alias = "restart-component")]
    Restart(OfComponent),
}

/// Does what the arguments say.
///
/// # Errors
/// Those of the command.
pub fn run(arguments: &Cluster) -> Result<()> {
    match &arguments.command {
        Command::Up { control_plane_only, json, named } => up(&named.name, *control_plane_only, *json),
        Command::Down(named) => {
            super::down(&named.name)?;
            say(&format!("the cluster {} is down; nothing of it is left", named.name));
            Ok(())
        }
        Command::Status { json, named } => {
            let status = super::status(&named.name)?;
            answer(&if *json { serde_json::to_string_pretty(&status)? } else { status.to_string() });
            Ok(())
        }
        Command::Env(named) => env(&named.name),
        Command::Load { archives, named } => super::load_images(&named.name, archives),
        Command::Kill(of) => super::kill_component(&of.named.name, of.component),
        Command::Stop(of) => super::stop_component(&of.named.name, of.component),
        Command::Start(of) => super::start_component(&of.named.name, of.component),
        Command::Restart(of) => {
            super::stop_component(&of.named.name, of.component)?;
            super::start_component(&of.named.name, of.component)
        }
    }
}

fn up(name: &str, control_plane_only: bool, json: bool) -> Result<()> {
    let started = Instant::now();
    let handle = super::up(&Options { name: name.to_owned(), control_plane_only })?;
    say(&format!("the cluster {name} is ready after {:.1} s", started.elapsed().as_secs_f32()));
    if json {
        answer(&serde_json::to_string_pretty(&handle)?);
    } else {
        say(&format!("use it: eval \"$(cargo xtask cluster env --name {name})\" && kubectl get nodes"));
    }
    Ok(())
}

fn env(name: &str) -> Result<()> {
    let status = super::status(name)?;
    let (Some(kubeconfig), Some(netns), Some(host)) =
        (status.kubeconfig, status.netns, status.node_port_host)
    else {
        bail!("no cluster {name} is up; `cargo xtask cluster up --name {name}`");
    };
    let binaries = super::build::Binaries::ensure()?;
    let quote = super::namespace::quote;
    answer(&format!("export KUBECONFIG={}", quote(&kubeconfig)));
    answer(&format!("export STOCKADE_CLUSTER_NETNS={}", quote(&netns)));
    answer(&format!("export NODE_HOST={host}"));
    answer(&format!("export PATH={}:\"$PATH\"", quote(binaries.directory())));
    Ok(())
}
