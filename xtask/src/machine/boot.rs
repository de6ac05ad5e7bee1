//! The command line of the emulator.

use std::path::Path;
use std::process::Command;

use super::root::CHANNEL;

/// The emulator of this machine's architecture, and the package it is in.
#[cfg(target_arch = "x86_64")]
pub(super) const EMULATOR: &str = "qemu-system-x86_64";
#[cfg(target_arch = "x86_64")]
pub(super) const EMULATOR_PACKAGE: &str = "qemu-system-x86";
#[cfg(target_arch = "x86_64")]
const MACHINE: (&str, &str) = ("q35", "ttyS0");
#[cfg(target_arch = "aarch64")]
pub(super) const EMULATOR: &str = "qemu-system-aarch64";
#[cfg(target_arch = "aarch64")]
pub(super) const EMULATOR_PACKAGE: &str = "qemu-system-arm";
#[cfg(target_arch = "aarch64")]
const MACHINE: (&str, &str) = ("virt", "ttyAMA0");

/// For servers, some sandboxes, and a bomb in one of them.
const MEMORY: &str = "3G";
const PROCESSORS: &str = "2";

/// Emulated and not virtualised: `/dev/kvm` of a machine that is virtual itself may be there and not work.
pub(super) fn command(machine: &Path, files: &Path, said: &Path) -> Command {
    let (kind, console) = MACHINE;
    let mut command = Command::new(EMULATOR);
    command
        .args(["-machine", kind, "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"])
        .args(["-smp", PROCESSORS, "-m", MEMORY, "-display", "none", "-monitor", "none", "-serial", "stdio"])
        .arg("-no-reboot")
        .arg("-kernel")
        .arg(machine.join("vmlinuz"))
        .arg("-initrd")
        .arg(machine.join("initrd.img"))
        .args(["-append", &format!("root=/dev/vda rw console={console} panic=-1")]);
    // What is written to its disk is gone with it.
    disk(&mut command, &machine.join("disk.img"), "snapshot=on");
    disk(&mut command, files, "readonly=on");
    command
        .args(["-device", "virtio-serial-pci", "-chardev"])
        .arg(format!("file,id=said,path={}", said.display()))
        .args(["-device", &format!("virtserialport,chardev=said,name={CHANNEL}")])
        // A network that leads nowhere.
        .args(["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net"]);
    command
}

fn disk(command: &mut Command, path: &Path, how: &str) {
    command.arg("-drive").arg(format!("file={},format=raw,if=virtio,cache=unsafe,{how}", path.display()));
}
