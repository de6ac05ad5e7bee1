//! What settings name on this machine, looked at before anything is made: an address, a program, ports.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::role;
use crate::settings::{EmbeddedSettings, PortRange, SettingsProblem};

/// How long a program may take to say what it is.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the help of an agent has in its first line.
const SIGNATURE: &str = "Stockade sandbox agent";
/// How much of it is read.
const MAX_SAID: usize = 256;

/// Settings that name what is not there, or is something else. Blocks for as long as a program takes to start.
pub(super) fn problems(settings: &EmbeddedSettings) -> Vec<SettingsProblem> {
    let mut problems = Vec::new();
    if let Err(expected) = check_address(settings.bind) {
        problems.push(SettingsProblem::new("SANDBOX_BIND", &settings.bind.to_string(), &expected));
    }
    if let Some(agent) = &settings.agent
        && let Err(expected) = check_agent(agent)
    {
        problems.push(SettingsProblem::new("STOCKADE_AGENT", &agent.display().to_string(), &expected));
    }
    problems
}

fn check_address(address: IpAddr) -> Result<(), String> {
    match TcpListener::bind((address, 0)) {
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            Err("is no address of this machine; use one that `ip address` lists, or 0.0.0.0 for all"
                .to_owned())
        }
        Err(error) => Err(format!("cannot be listened on: {error}")),
        Ok(_) => Ok(()),
    }
}

/// Whether the program is an agent, by its own word.
fn check_agent(path: &Path) -> Result<(), String> {
    let expected = "must be the program stockade-agent, or stockade itself";
    let mut command = Command::new(path);
    // `stockade` is what it is called.
    command.arg0(role::AGENT).arg("--help").env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child =
        command.spawn().map_err(|error| format!("cannot be executed ({error}); it {expected}"))?;
    let said = child.stdout.take().map(|stdout| first_words(stdout, Instant::now() + PATIENCE));
    // It has said what it is, or never will. One that has ended needs no signal.
    let _ = child.kill();
    child.wait().map_err(|error| format!("cannot be waited for: {error}"))?;
    if said.is_some_and(|said| said.contains(SIGNATURE)) {
        Ok(())
    } else {
        Err(format!("is something else: it {expected}"))
    }
}

fn first_words(mut stdout: ChildStdout, deadline: Instant) -> String {
    let mut said = vec![0; MAX_SAID];
    let mut length = 0;
    while length < said.len() {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
        let ready = rustix::event::poll(&mut [PollFd::new(&stdout.as_fd(), PollFlags::IN)], left.as_ref());
        match ready.map(|ready| if ready == 0 { Ok(0) } else { stdout.read(&mut said[length..]) }) {
            Ok(Ok(read)) if read > 0 => length += read,
            _ => break,
        }
    }
    String::from_utf8_lossy(&said[..length]).into_owned()
}

/// Says when outgoing connections may take ports that sandboxes get: a port that is lost is an address that is lost.
pub(super) fn warn_of_ports(ports: PortRange) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    if let Some(shared) = shared(ports, &read("ip_local_port_range"), &read("ip_local_reserved_ports")) {
        tracing::warn!(
            "SANDBOX_PORT_RANGE is {ports}, and the kernel gives {shared} to outgoing connections: a sandbox may not get its \
             port back after a restart. Choose another range, or keep it: `sysctl -w \
             net.ipv4.ip_local_reserved_ports={ports}`"
        );
    }
}

/// The ports that are in both ranges, unless all of them are reserved.
fn shared(ports: PortRange, given_out: &str, reserved: &str) -> Option<PortRange> {
    let (first, last) = given_out.trim().split_once(char::is_whitespace)?;
    let (first, last): (u16, u16) = (first.parse().ok()?, last.trim().parse().ok()?);
    let both = PortRange::new(ports.first().max(first), ports.last().min(last))?;
    let reserved: Vec<PortRange> = reserved
        .trim()
        .split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            PortRange::new(first.parse().ok()?, last.parse().ok()?)
        })
        .collect();
    let is_reserved = |port| reserved.iter().any(|range| range.contains(port));
    (!(both.first()..=both.last()).all(is_reserved)).then_some(both)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::settings::tests::mk_settings;

    #[test]
    fn an_address_of_another_machine_is_a_problem() {
        let mut settings = mk_settings(Path::new("/nowhere"));
        assert_eq!(problems(&settings), []);
        settings.bind = "198.51.100.3".parse().unwrap();
        let [problem] = &problems(&settings)[..] else { panic!("accepted") };
        assert_eq!(problem.variable, "SANDBOX_BIND");
        assert!(problem.expected.contains("no address of this machine"), "{problem}");
    }

    #[test]
    fn a_program_that_is_no_agent_is_a_problem() {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = mk_settings(directory.path());
        let mut check = |path: &Path| {
            settings.agent = Some(path.to_owned());
            let problems = problems(&settings);
            assert!(problems.iter().all(|problem| problem.variable == "STOCKADE_AGENT"), "{problems:?}");
            problems.first().map(|problem| problem.expected.clone()).unwrap_or_default()
        };
        assert!(check(Path::new("/etc/passwd")).contains("cannot be executed (Permission denied"));
        assert!(check(Path::new("/no/such")).contains("cannot be executed (No such file"));
        assert!(check(Path::new("/bin/true")).contains("is something else"));
        let agent = directory.path().join("agent");
        std::fs::write(&agent, "#!/bin/sh\necho 'The Stockade sandbox agent: anything'\n").unwrap();
        std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(check(&agent), "");
    }

    #[test]
    fn ports_that_the_kernel_gives_out_too_are_found() {
        let check = |ports: &str, reserved: &str| {
            let shared = shared(ports.parse().unwrap(), "32768\t60999\n", reserved);
            shared.map(|shared| shared.to_string())
        };
        assert_eq!(check("20000-29999", ""), None);
        assert_eq!(check("30000-40000", "").as_deref(), Some("32768-40000"));
        assert_eq!(check("30000-40000", "7,30000-39999\n").as_deref(), Some("32768-40000"));
        assert_eq!(check("30000-40000", "7,30000-40000\n"), None);
        assert_eq!(check("61000-65000", ""), None);
    }
}
