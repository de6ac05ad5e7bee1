//! Asking the machine's name servers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::Query;

/// How long one name server has for an answer, of all [`super::PATIENCE`].
const EACH: Duration = Duration::from_secs(2);
/// The longest answer by UDP that is passed on whole; longer ones send the asker to TCP. Twice what resolvers
/// usually allow (1232 bytes), and what they allowed before.
const LONGEST: usize = 4096;

/// Asks by UDP, one server after the other until one answers.
pub(super) async fn by_udp(query: &Query, servers: &[SocketAddr]) -> Option<Vec<u8>> {
    for server in servers {
        if let Ok(Ok(answer)) = timeout(EACH, udp(query, *server)).await {
            return Some(answer);
        }
    }
    None
}

/// Asks by TCP, one server after the other until one answers.
pub(super) async fn by_tcp(query: &Query, servers: &[SocketAddr]) -> Option<Vec<u8>> {
    for server in servers {
        if let Ok(Ok(answer)) = timeout(EACH, tcp(query, *server)).await {
            return Some(answer);
        }
    }
    None
}

async fn udp(query: &Query, server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A socket for each query: the kernel chooses its port, and a forger has to guess that too.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let number = number();
    socket.send(&query.numbered(number)).await?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if !query.is_answered_by(number, &buffer[..length]) {
            continue;
        }
        if length == LONGEST {
            return Ok(query.cut());
        }
        buffer.truncate(length);
        return Ok(query.for_asker(buffer));
    }
}

async fn tcp(query: &Query, server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let number = number();
    write(&mut stream, &query.numbered(number)).await?;
    let answer = read(&mut stream).await?;
    if query.is_answered_by(number, &answer) {
        Ok(query.for_asker(answer))
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Reads one message of a TCP connection: its length, then itself.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes one message to a TCP connection.
pub(super) async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    stream.write_all(&bytes).await
}

/// A number that nobody can guess.
fn number() -> [u8; 2] {
    let random = uuid::Uuid::new_v4();
    [random.as_bytes()[0], random.as_bytes()[1]]
}
