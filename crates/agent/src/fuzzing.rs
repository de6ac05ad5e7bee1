//! Ways in for the fuzz targets, to what reads bytes of others. Not part of any build that is delivered.

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};

use crate::auth::{Gate, TICKET_LIFE, TokenKey};
use crate::http::body::parse;
use crate::http::{form, guard};
use crate::{KnownHosts, bash, code, extras, file, preview, shell};

macro_rules! readers {
    ($($request:path),* $(,)?) => { [$(|bytes| drop(parse::<$request>(bytes))),*] };
}

type Reader = fn(&[u8]);

/// Reads `body` as the request of one of the JSON routes.
pub fn request(route: u8, body: &[u8]) {
    let readers: [Reader; 24] = readers![
        shell::routes::ExecRequest,
        shell::routes::IdRequest,
        shell::routes::WaitRequest,
        shell::routes::WriteRequest,
        shell::sessions::CreateRequest,
        shell::sessions::UpdateRequest,
        bash::routes::ExecRequest,
        bash::routes::OutputRequest,
        bash::routes::KillRequest,
        bash::routes::CreateRequest,
        file::routes::ReadRequest,
        file::routes::WriteRequest<'_>,
        file::routes::ReplaceRequest,
        file::routes::GrepRequest,
        file::routes::GlobRequest,
        file::routes::ListRequest,
        file::editor::EditRequest,
        file::watch::CreateRequest,
        file::watch::PollRequest,
        code::unified::ExecuteRequest,
        code::nodejs::CreateRequest,
        code::jupyter::ExecuteRequest,
        extras::hooks::RegisterRequest,
        serde_json::Value,
    ];
    readers[usize::from(route) % readers.len()](body);
}

/// Reads `body` as a multipart form that arrives in pieces of `piece` bytes. Gives the bytes of all fields.
pub fn multipart(boundary: &str, body: &[u8], piece: usize) -> usize {
    let pieces: Vec<std::io::Result<Bytes>> =
        body.chunks(piece.max(1)).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let request = Request::builder()
        .header(header::CONTENT_TYPE, format!("multipart/form-data; boundary={boundary}"))
        .body(Body::from_stream(stream::iter(pieces)));
    let limits = multer::SizeLimit::new().for_field("path", 16 * 1024);
    let Ok(Ok(mut form)) = request.map(|request| form(request, limits)) else { return 0 };
    let read = async {
        let mut bytes = 0;
        while let Ok(Some(mut field)) = form.next_field().await {
            let name = field.file_name().unwrap_or("").to_owned();
            let path = file::destination(field.name(), Some(&name), std::path::Path::new("/nowhere"));
            assert!(!path.is_empty());
            while let Ok(Some(chunk)) = field.chunk().await {
                bytes += chunk.len();
            }
        }
        bytes
    };
    futures::executor::block_on(read)
}

/// Decides on a request by its address and headers alone, as is done before any route.
pub fn gate(address: &str, host: &[u8], authorization: &[u8], port: &[u8]) {
    let (Ok(uri), Ok(host), Ok(authorization), Ok(port)) = (
        address.parse::<Uri>(),
        HeaderValue::from_bytes(host),
        HeaderValue::from_bytes(authorization),
        HeaderValue::from_bytes(port),
    ) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, host);
    headers.insert(header::AUTHORIZATION, authorization);
    headers.insert("x-aio-proxy-port", port);
    let known = KnownHosts::parse("box.example.org,*.example.net");
    drop(guard::check(&known, &http::Method::GET, &uri, &headers));
    drop(preview::port_of(&known, &uri, &headers));
    let key = TokenKey::parse(include_str!("../tests/keys/public.pem")).ok();
    let gate = Gate::new(key, TICKET_LIFE);
    assert!(gate.admit(&uri, &headers).is_err(), "nothing here can sign a token");
}

/// Reads a public key.
pub fn key(text: &str) {
    drop(TokenKey::parse(text));
}
