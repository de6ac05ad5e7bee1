//! Who listens on a port that we want.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// `LISTEN` in the kernel's table of sockets.
const LISTEN: &str = "0A";

/// Who listens there, as far as this user may know, for a message.
pub(crate) fn describe(address: SocketAddr) -> Option<String> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|table| listeners(table, address.port()))
        .collect();
    let pid = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .find(|pid| holds(*pid, &sockets))?;
    Some(name(pid))
}

/// The inodes of sockets that listen on this port.
fn listeners(table: &str, port: u16) -> Vec<String> {
    let text = fs::read_to_string(table).unwrap_or_default();
    text.lines().skip(1).filter_map(|line| listener(line, port)).collect()
}

fn listener(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let is_it = *fields.get(3)? == LISTEN && u16::from_str_radix(local_port, 16) == Ok(port);
    is_it.then(|| format!("socket:[{}]", fields.get(9).copied().unwrap_or_default()))
}

fn holds(pid: i32, sockets: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|entry| {
        fs::read_link(entry.path())
            .is_ok_and(|target| sockets.iter().any(|socket| Path::new(socket) == target))
    })
}

/// The program and, when it is ours, which command it runs. Other arguments may hold secrets.
fn name(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = words.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    match words.next().as_deref() {
        Some(command @ ("up" | "serve")) if program == "stockade" => {
            format!("another `stockade {command}` (process {pid})")
        }
        _ => format!("{} (process {pid})", crate::printable::printable(&program)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_is_found_by_its_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = describe(listener.local_addr().unwrap()).unwrap();
        assert!(found.contains(&format!("(process {})", std::process::id())), "{found}");
    }

    #[test]
    fn a_line_of_the_table_is_read() {
        let line = "   0: 0100007F:1F42 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0";
        assert_eq!(super::listener(line, 8002).as_deref(), Some("socket:[4711]"));
        assert_eq!(super::listener(line, 8003), None);
    }
}
