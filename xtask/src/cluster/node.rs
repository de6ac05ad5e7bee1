//! What a node needs besides its programs: configuration files, images, and a size to pretend.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::layout::{Layout, write_private};
use super::namespace::Holder;
use super::network::POD_NETWORK;
use super::{components, dns};
use crate::image::test_images::{Kind, Programs};

/// Inside of the cluster's own `/run`.
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// Fits into [`POD_NETWORK`] with room for addresses that are not free again yet.
const MAX_PODS: u32 = 500;

/// Writes every configuration file of the node.
///
/// # Errors
/// When a file cannot be written.
pub fn write_config(layout: &Layout, node_address: Ipv4Addr) -> Result<()> {
    write_private(&layout.config("containerd.toml"), containerd(layout)?)?;
    let cni = layout.config("cni");
    std::fs::create_dir_all(&cni).with_context(|| format!("cannot make {}", cni.display()))?;
    write_private(&cni.join("10-stockade.conflist"), cni_config())?;
    write_private(&layout.config("kubelet.yaml"), kubelet(layout, node_address))?;
    write_private(&layout.config("resolv.conf"), "# No way out of the test cluster.\n")?;
    write_private(&layout.config("Corefile"), dns::corefile(layout, node_address))
}

fn containerd(layout: &Layout) -> Result<String> {
    // Lowering a score below the inherited one takes CAP_SYS_RESOURCE; without it every Pod sandbox
    // would fail with "can't get final child's PID from pipe: EOF".
    let restrict_oom_score = !has_sys_resource(
        &std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?,
    );
    Ok(format!(
        r#"version = 2
root = {root:?}
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
path = {opt:?}

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = {restrict_oom_score}

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = {cni:?}

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#,
        root = layout.data("containerd"),
        opt = layout.data("containerd-opt"),
        cni = layout.config("cni"),
        pause = Kind::Pause.reference(),
    ))
}

fn has_sys_resource(status: &str) -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .is_some_and(|capabilities| capabilities >> CAP_SYS_RESOURCE & 1 == 1)
}

fn cni_config() -> String {
    // Not a bridge: with one, Pods answer each other beside the rules that rewrite a Service's
    // address, unless br_netfilter is loaded. A cable for each Pod always passes them.
    let config = json!({
        "cniVersion": "1.0.0",
        "name": "stockade",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni-addresses",
                "ranges": [[{ "subnet": POD_NETWORK }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    });
    format!("{config:#}\n")
}

fn kubelet(layout: &Layout, node_address: Ipv4Addr) -> String {
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": layout.pki("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": layout.pki("server.crt"),
        "tlsPrivateKeyFile": layout.pki("server.key"),
        "healthzBindAddress": node_address,
        "healthzPort": components::KUBELET_HEALTH_PORT,
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", layout.cgroup()),
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "clusterDNS": [node_address],
        "clusterDomain": dns::DOMAIN,
        "resolvConf": layout.config("resolv.conf"),
        "maxPods": MAX_PODS,
        // The images came in by hand and would not come back after a clean-up.
        "imageGCHighThresholdPercent": 100,
        "imageMaximumGCAge": "0s",
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
    });
    format!("{config:#}\n")
}

/// Brings the test images into containerd, as if they had been pulled.
///
/// # Errors
/// When an image cannot be made or containerd refuses it.
pub fn import_images(layout: &Layout, holder: &Holder, programs: &Programs) -> Result<()> {
    for kind in [Kind::Pause, Kind::Testbox] {
        let archive = layout.data(&format!("{}.tar", kind.reference().replace(['/', ':'], "-")));
        programs.image(kind)?.write(&archive)?;
        import(holder, &archive).with_context(|| format!("cannot import {}", kind.reference()))?;
    }
    Ok(())
}

/// Brings one OCI archive into containerd.
///
/// # Errors
/// When containerd refuses it.
pub fn import(holder: &Holder, archive: &Path) -> Result<()> {
    holder.run(&format!(
        "ctr --address {CONTAINERD_SOCKET} --namespace k8s.io images import {}",
        super::namespace::quote(archive)
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_read_from_the_effective_set() {
        assert!(has_sys_resource("CapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n"));
        assert!(!has_sys_resource("CapEff:\t000001fffeffffff\n"));
    }
}
