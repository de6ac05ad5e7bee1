//! The machine's network, by address, by name, and by what is left open.

use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use serde_json::json;
use stockade_api::{CreateSandbox, NetworkRequest};

use crate::world::as_each_user;

/// The address other machines know this one by, if it has one; nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[test]
fn the_machines_services_are_out_of_reach() {
    as_each_user(async |world| {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let name = format!("stockade-canary-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _abstract = UnixListener::bind_addr(&address).unwrap();
        let facts = json!({
            "port": port,
            "abstract": name,
            "addresses": own_address().map(|address| address.to_string()).into_iter().collect::<Vec<_>>(),
            "server_port": world.port(),
        });
        for mode in ["isolated", "open"] {
            if mode == "open" && !world.can_open_network() {
                continue;
            }
            let mut request = CreateSandbox::new(mode);
            request.network = Some(NetworkRequest { mode: mode.to_owned(), allow: Vec::new() });
            let sandbox = world.sandbox_of(request).await;
            let interfaces =
                sandbox.sh("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | sort | xargs").await.stdout;
            assert_eq!(interfaces, if mode == "open" { "eth0 lo\n" } else { "lo\n" });
            sandbox.withstands(include_str!("attacks/network.py"), &facts, 25).await;
        }
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "a connection from a sandbox arrived");
    });
}

#[test]
fn loopback_inside_works_and_is_the_sandboxes_own() {
    as_each_user(async |world| {
        let (one, other) = (world.sandbox("one").await, world.sandbox("other").await);
        let serve = "cd /tmp && echo inside > index.html && exec python3 -m http.server 9000 --bind 0.0.0.0";
        one.start(serve).await;
        let fetch = "until exec 3<>/dev/tcp/127.0.0.1/9000; do :; done 2>/dev/null; \
                     printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; tail -1 <&3";
        assert_eq!(one.sh(fetch).await.stdout, "inside\n");
        let output =
            other.sh("(exec 3<>/dev/tcp/127.0.0.1/9000) 2>/dev/null && echo reached || echo refused").await;
        assert_eq!(output.stdout, "refused\n");
    });
}
