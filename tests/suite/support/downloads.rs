//! Downloads of the archive of 6.1.7 from misbehaving servers.

use crate::support::context::{TestContext, compress, sha256};
use crate::support::random::Random;
use crate::support::servers::{self, Request, Server, respond};
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) const PATH: &str = "/pub/linux/kernel/v6.x/linux-6.1.7.tar.xz";

/// Returns a server that lists the right checksum. `tarball` answers requests for the tarball, and
/// gets the number of earlier ones.
pub(crate) fn archive_server(
    bytes: &[u8],
    tarball: impl Fn(usize, &Request, &mut TcpStream, &[u8]) + Send + Sync + 'static,
) -> Server {
    let (bytes, count) = (bytes.to_vec(), AtomicUsize::new(0));
    let list = format!("{}  linux-6.1.7.tar.xz\n", sha256(&bytes));
    servers::serve(move |request, stream| match request.path.as_str() {
        PATH => tarball(count.fetch_add(1, Ordering::SeqCst), request, stream, &bytes),
        path if path.ends_with("sha256sums.asc") => respond(stream, "200 OK", &[], list.as_bytes()),
        _ => respond(stream, "404 Not Found", &[], b""),
    })
}

/// Sends the head of an answer for all of `bytes`, but only the first `sent` of them.
pub(crate) fn send_part(stream: &mut TcpStream, bytes: &[u8], sent: usize) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&bytes[..sent]));
}

/// Answers a Range request correctly.
pub(crate) fn answer_range(request: &Request, stream: &mut TcpStream, bytes: &[u8]) {
    match request.range_start() {
        Some(start) => {
            let range = format!("Content-Range: bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            respond(stream, "206 Partial Content", &[&range], &bytes[start..]);
        }
        None => respond(stream, "200 OK", &[], bytes),
    }
}

/// Returns the path of the partial download from `server`.
pub(crate) fn partial_file_name(server: &Server, bytes: &[u8]) -> String {
    let url = sha256(format!("{}{PATH}", server.url).as_bytes());
    format!("{}.{}.partial", sha256(bytes), &url[..12])
}

pub(crate) fn fetch(
    context: &TestContext,
    server: &Server,
    more: &str,
) -> crate::support::context::RunResult {
    context.run(&format!("fetch 6.1.7 --fc --mirror {} {more}", server.url))
}

pub(crate) fn archive_requests(server: &Server) -> Vec<String> {
    server.log.lock().unwrap().iter().filter(|line| line.contains(".tar.xz")).cloned().collect()
}

/// Returns a release with random bytes, so that it is large enough to be interrupted.
pub(crate) fn noisy_archive(context: &TestContext, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let tree = context.tree("6.1.7", "trees/linux");
    let noise: Vec<u8> = (0..32_000).flat_map(|_| random.next().to_le_bytes()).collect();
    fs::write(tree.join("noise.bin"), noise).unwrap();
    compress(&crate::support::context::tar_of(&tree, "linux-6.1.7"), "xz")
}
