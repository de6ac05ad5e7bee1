//! `up`: from nothing, from the leftovers of a killed run, or from a cluster that runs already.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::api::Api;
use super::build::Binaries;
use super::components::{Check, Component};
use super::layout::Layout;
use super::namespace::{self, Holder};
use super::record::Record;
use super::{Handle, Options, cgroups, dns, network, node, packages, pki, pretend, stop};
use crate::image::test_images::{Kind, Programs};
use crate::progress::{Step, say};
use crate::run;
use crate::wait::{Outcome, until};

/// How long one component may take to be well. On two busy cores an API server takes ten seconds.
const COMPONENT_DEADLINE: Duration = Duration::from_secs(90);
const INTERVAL: Duration = Duration::from_millis(50);

/// Everything that a step of `up` looks at.
struct Cluster<'a> {
    layout: &'a Layout,
    binaries: &'a Binaries,
    record: Record,
}

/// Brings a cluster up, or makes sure that it is.
///
/// # Errors
/// When something that is needed cannot be had, or a component does not become well; the message
/// then holds the last lines of its log.
pub fn up(options: &Options) -> Result<Handle> {
    let layout = Layout::new(&options.name)?;
    super::require_root("cargo xtask cluster up")?;
    let _lock = super::lock(&layout)?;
    packages::ensure_for_cluster(!options.control_plane_only)?;
    let binaries = Binaries::ensure()?;
    let running = Record::load(&layout)?.filter(|record| record.complete && record.holder.is_usable());
    let record = match running {
        Some(record) => record,
        None => begin(&layout, options)?,
    };
    if record.control_plane_only && !options.control_plane_only {
        bail!(
            "the cluster {0} runs without a node; `cargo xtask cluster down --name {0}` first, or give another name",
            layout.name()
        );
    }
    let mut cluster = Cluster { layout: &layout, binaries: &binaries, record };
    cluster.start_all()?;
    Ok(Handle::new(&layout, &cluster.record, &binaries))
}

/// Starts one component of a running cluster and waits until it is well.
///
/// # Errors
/// When the cluster does not run, has no such component, or the component does not become well.
pub fn start_component(name: &str, component: Component) -> Result<()> {
    let layout = Layout::new(name)?;
    super::require_root("cargo xtask cluster start")?;
    let _lock = super::lock(&layout)?;
    let record = stop::running_record(&layout)?;
    ensure!(
        Component::of_cluster(record.control_plane_only).contains(&component),
        "the cluster {name} has no {}: it runs only a control plane",
        component.name()
    );
    let binaries = Binaries::ensure()?;
    let mut cluster = Cluster { layout: &layout, binaries: &binaries, record };
    cluster.start(component)?;
    let api = Api::new(&layout, cluster.record.pair.node)?;
    cluster.wait_until_well(&api, component)
}

/// Brings OCI archives into the node of a running cluster, as if they had been pulled.
///
/// # Errors
/// When the cluster does not run, has no node, or containerd refuses an archive.
pub fn load_images(name: &str, archives: &[PathBuf]) -> Result<()> {
    let layout = Layout::new(name)?;
    super::require_root("cargo xtask cluster load")?;
    let record = stop::running_record(&layout)?;
    ensure!(!record.control_plane_only, "the cluster {name} has no node that could use an image");
    for archive in archives {
        let absolute = std::path::absolute(archive)
            .with_context(|| format!("cannot make {} an absolute path", archive.display()))?;
        node::import(&record.holder, &absolute)
            .with_context(|| format!("cannot import {}", archive.display()))?;
    }
    Ok(())
}

/// Namespaces, cable, certificates and configuration of a new cluster, after the leftovers of an
/// earlier one were removed.
fn begin(layout: &Layout, options: &Options) -> Result<Record> {
    stop::remove(layout)?;
    layout.create()?;
    let step = Step::start("test programs and namespaces");
    let programs = Programs::build()?;
    let holder = Holder::start(layout, &programs.path(Kind::Pause))?;
    let pair = network::connect(layout, &holder)?;
    let record = Record {
        control_plane_only: options.control_plane_only,
        network_namespace: std::fs::read_link(holder.netns()).context("the namespaces have ended")?,
        holder,
        pair,
        components: std::collections::BTreeMap::new(),
        complete: false,
    };
    record.save(layout)?;
    record.holder.mount(layout, !options.control_plane_only)?;
    pki::create(layout, pair.node)?;
    if !options.control_plane_only {
        cgroups::create(layout)?;
        network::let_pods_reach_the_host(&record.holder)?;
        pretend::pretend_size(layout, &record.holder)?;
        node::write_config(layout, pair.node)?;
    }
    step.done();
    Ok(record)
}

impl Cluster<'_> {
    /// Starts what does not run, in an order in which nobody waits for somebody who comes later.
    fn start_all(&mut self) -> Result<()> {
        let components = Component::of_cluster(self.record.control_plane_only);
        let new = !self.record.complete;
        if !new && components.iter().all(|component| self.record.running(*component).is_some()) {
            say(&format!("the cluster {} is up", self.layout.name()));
            return Ok(());
        }
        let step = Step::start("control plane");
        let api = Api::new(self.layout, self.record.pair.node)?;
        self.start(Component::Etcd)?;
        self.wait_until_well(&api, Component::Etcd)?;
        self.start(Component::Apiserver)?;
        if components.contains(&Component::Containerd) {
            // While the API server starts.
            self.start(Component::Containerd)?;
            self.wait_until_well(&api, Component::Containerd)?;
            if new {
                node::import_images(self.layout, &self.record.holder, &Programs::build()?)?;
            }
        }
        // Before its 200 the controllers would find no rights of theirs and end.
        self.wait_until_well(&api, Component::Apiserver)?;
        if components.contains(&Component::Dns) {
            dns::grant(&api)?;
        }
        for component in components {
            self.start(*component)?;
        }
        self.wait_until_well(&api, Component::ControllerManager)?;
        self.wait_for_default_service_account(&api)?;
        step.done();
        if !self.record.control_plane_only {
            let step = Step::start("node");
            for component in components {
                self.wait_until_well(&api, *component)?;
            }
            self.wait_until_node_is_ready(&api)?;
            step.done();
        }
        self.record.complete = true;
        self.record.save(self.layout)
    }

    /// Starts a component unless it runs.
    fn start(&mut self, component: Component) -> Result<()> {
        if self.record.running(component).is_some() {
            return Ok(());
        }
        let Record { pair, control_plane_only, .. } = self.record;
        let line = component.command_line(self.layout, self.binaries, pair.node, control_plane_only);
        let log = self.layout.log(component.name());
        let identity =
            self.record.holder.spawn(&line, &log).with_context(|| {
                format!("cannot start {}{}", component.name(), self.last_lines(component))
            })?;
        self.record.components.insert(component, identity);
        self.record.save(self.layout)
    }

    fn wait_until_well(&self, api: &Api, component: Component) -> Result<()> {
        let check = component.check(self.record.pair.node);
        self.wait(component, component.name(), || Ok(look(api, &self.record.holder, &check)))
    }

    /// A Pod cannot be created before its namespace has this account.
    fn wait_for_default_service_account(&self, api: &Api) -> Result<()> {
        let path = "/api/v1/namespaces/default/serviceaccounts/default";
        self.wait(Component::ControllerManager, "the default service account", || {
            Ok(match api.get(path) {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err("it is not there yet".to_owned()),
                Err(error) => Err(format!("{error:#}")),
            })
        })
    }

    fn wait_until_node_is_ready(&self, api: &Api) -> Result<()> {
        let path = format!("/api/v1/nodes/{}", self.layout.node_name());
        self.wait(Component::Kubelet, "the node", || {
            let node = match api.get(&path) {
                Ok(Some(node)) => node,
                Ok(None) => return Ok(Err("the kubelet has not registered it yet".to_owned())),
                Err(error) => return Ok(Err(format!("{error:#}"))),
            };
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
            let tainted = node["spec"]["taints"].as_array().is_some_and(|taints| !taints.is_empty());
            Ok(match ready {
                Some(condition) if condition["status"] == "True" && !tainted => Ok(()),
                Some(condition) if condition["status"] == "True" => Err("it has a taint still".to_owned()),
                Some(condition) => Err(condition["message"].as_str().unwrap_or("not ready").to_owned()),
                None => Err("it has no condition Ready yet".to_owned()),
            })
        })
    }

    /// Waits for something that `component` has to bring about.
    fn wait(
        &self,
        component: Component,
        what: &str,
        mut look: impl FnMut() -> Result<Result<(), String>>,
    ) -> Result<()> {
        let outcome = until(COMPONENT_DEADLINE, INTERVAL, || {
            let found = look()?;
            if found.is_err() && self.record.running(component).is_none() {
                bail!("{} has ended{}", component.name(), self.last_lines(component));
            }
            Ok(found)
        })?;
        if let Outcome::TimedOut(reason) = outcome {
            bail!(
                "{what} is not well after {} s: {reason}{}",
                COMPONENT_DEADLINE.as_secs(),
                self.last_lines(component)
            );
        }
        Ok(())
    }

    fn last_lines(&self, component: Component) -> String {
        let path = self.layout.log(component.name());
        let log = std::fs::read(&path).unwrap_or_default();
        let lines = run::tail(&String::from_utf8_lossy(&log), 20);
        format!("\nthe last lines of {}:\n{lines}", path.display())
    }
}

/// One look at a component: what is missing, if anything.
pub(super) fn look(api: &Api, holder: &namespace::Holder, check: &Check) -> Result<(), String> {
    match check {
        Check::Url(url) => match api.probe(url) {
            Ok((200, _)) => Ok(()),
            Ok((status, body)) => Err(format!("{url} answers {status}: {}", run::tail(body.trim(), 5))),
            Err(error) => Err(format!("{error:#}")),
        },
        Check::Socket(path) => std::os::unix::net::UnixStream::connect(holder.inside(path))
            .map(drop)
            .map_err(|error| format!("{path}: {error}")),
    }
}
