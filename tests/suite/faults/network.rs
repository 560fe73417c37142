//! Bad lines and bad servers: what drops, stalls, refuses and lies, on loopback.

use crate::support::context::{TestContext, sha256};
use crate::support::servers::{self, Request, Server, respond};
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub(crate) const PATH: &str = "/pub/linux/kernel/v6.x/linux-6.1.7.tar.xz";

/// A server that lists the right checksum and answers for the tarball by `tarball`, which is told how
/// many requests for it came before.
pub(crate) fn server(
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

/// Sends the head of an answer with all of `bytes`, but only the first `sent` of them.
pub(crate) fn broken(stream: &mut TcpStream, bytes: &[u8], sent: usize) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&bytes[..sent]));
}

/// Answers a Range request as it should be answered.
pub(crate) fn ranged(request: &Request, stream: &mut TcpStream, bytes: &[u8]) {
    match request.range_start() {
        Some(start) => {
            let range = format!("Content-Range: bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            respond(stream, "206 Partial Content", &[&range], &bytes[start..]);
        }
        None => respond(stream, "200 OK", &[], bytes),
    }
}

/// Where the part of the tarball that has come from `server` is kept.
pub(crate) fn partial(server: &Server, bytes: &[u8]) -> String {
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

pub(crate) fn requests(server: &Server) -> Vec<String> {
    server.log.lock().unwrap().iter().filter(|line| line.contains(".tar.xz")).cloned().collect()
}

#[test]
fn a_dropped_connection_is_resumed_where_it_broke() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let half = bytes.len() / 2;
    let server = server(&bytes, move |count, request, stream, bytes| match count {
        0 => broken(stream, bytes, half),
        _ => ranged(request, stream, bytes),
    });
    fetch(&context, &server, "")
        .ok()
        .says(&format!("got {half} of {} bytes: the connection broke off; trying again", bytes.len()));
    assert_eq!(requests(&server), [format!("GET {PATH}"), format!("GET {PATH} bytes={half}-")]);
    assert!(context.names("cache/partial").is_empty());
}

#[test]
fn what_came_before_a_failed_run_is_not_fetched_again() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    // It breaks off in all attempts of the first run.
    let server = server(&bytes, |count, request, stream, bytes| match count {
        0 => broken(stream, bytes, 1000),
        4.. => ranged(request, stream, bytes),
        _ => {
            let start = request.range_start().unwrap_or(0);
            let range = format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\n\r\n",
                bytes.len() - start,
                bytes.len() - 1,
                bytes.len()
            );
            let _ = stream.write_all(range.as_bytes());
        }
    });
    fetch(&context, &server, "").failed(
        3,
        &[&format!("got 1000 of {} bytes", bytes.len()), "hint: the same command goes on from there"],
    );
    assert_eq!(context.names("cache/partial"), [partial(&server, &bytes)]);
    assert!(context.names("cache/trees").is_empty());
    let before = requests(&server).len();
    fetch(&context, &server, "").ok();
    assert_eq!(requests(&server)[before..], [format!("GET {PATH} bytes=1000-")]);
    assert!(context.names("cache/partial").is_empty());
}

#[test]
fn a_server_that_ignores_the_range_starts_over() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let half = bytes.len() / 2;
    // In the middle of a run: the first half comes again and is skipped.
    let stubborn = server(&bytes, move |count, _, stream, bytes| match count {
        0 => broken(stream, bytes, half),
        _ => respond(stream, "200 OK", &[], bytes),
    });
    fetch(&context, &stubborn, "").ok();
    // From an earlier run.
    let context = TestContext::new();
    let stubborn = server(&bytes, |_, _, stream, bytes| respond(stream, "200 OK", &[], bytes));
    fs::create_dir_all(context.path("cache/partial")).unwrap();
    fs::write(context.path("cache/partial").join(partial(&stubborn, &bytes)), &bytes[..half]).unwrap();
    fetch(&context, &stubborn, "").ok();
    assert_eq!(requests(&stubborn), [format!("GET {PATH} bytes={half}-")]);
}

#[test]
fn a_damaged_partial_download_is_noticed_and_thrown_away() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let server = server(&bytes, |_, request, stream, bytes| ranged(request, stream, bytes));
    fs::create_dir_all(context.path("cache/partial")).unwrap();
    fs::write(context.path("cache/partial").join(partial(&server, &bytes)), vec![0; 1000]).unwrap();
    fetch(&context, &server, "")
        .ok()
        .says("checksum mismatch")
        .says("what an earlier run had received is thrown away");
    assert_eq!(requests(&server), [format!("GET {PATH} bytes=1000-"), format!("GET {PATH}")]);
    assert!(context.names("cache/partial").is_empty());
}

/// Sends the head of an answer whose end is told by the end of the connection, and `bytes`.
fn without_length(stream: &mut TcpStream, bytes: &[u8]) {
    let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    let _ = stream.write_all(head).and_then(|()| stream.write_all(bytes));
}

#[test]
fn what_a_bad_mirror_sends_spoils_neither_the_next_mirror_nor_the_next_run() {
    let bytes = fs::read(TestContext::new().tarball("6.1.7", "xz")).unwrap();
    let good = || server(&bytes, |_, request, stream, bytes| ranged(request, stream, bytes));
    let other = vec![7; 2000];
    // Wrong bytes, and then the line breaks.
    let context = TestContext::new();
    let wrong = other.clone();
    let breaking = server(&bytes, move |_, request, stream, bytes| match request.range_start() {
        None => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&wrong));
        }
        Some(_) => respond(stream, "403 Forbidden", &[], b""),
    });
    let next = good();
    context.run(&format!("fetch 6.1.7 --fc --mirror {} --mirror {}", breaking.url, next.url)).ok();
    assert_eq!(requests(&next), [format!("GET {PATH}")]);
    // And in another run.
    let context = TestContext::new();
    fetch(&context, &breaking, "").failed(3, &["HTTP status 403"]);
    let next = good();
    fetch(&context, &next, "").ok();
    assert_eq!(requests(&next), [format!("GET {PATH}")]);
    // Wrong bytes to their end, of which the server does not say how many there are.
    let context = TestContext::new();
    let lying = server(&bytes, move |count, request, stream, bytes| match count {
        0 => without_length(stream, &other),
        _ => ranged(request, stream, bytes),
    });
    fetch(&context, &lying, "").failed(3, &["checksum mismatch"]);
    assert!(context.names("cache/partial").is_empty());
    fetch(&context, &lying, "").ok();
    assert_eq!(requests(&lying), [format!("GET {PATH}"), format!("GET {PATH}")]);
}

#[test]
fn only_busy_servers_are_asked_again() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    for (status, header) in
        [("503 Service Unavailable", "Retry-After: 0"), ("429 Too Many Requests", "Retry-After: 1")]
    {
        let busy = server(&bytes, move |count, request, stream, bytes| match count {
            0 => respond(stream, status, &[header], b""),
            _ => ranged(request, stream, bytes),
        });
        fetch(&context, &busy, "--cache-dir once").ok().says(&format!("HTTP status {status}; trying again"));
        fs::remove_dir_all(context.path("work/once/trees")).ok();
        std::process::Command::new("rm").args(["-rf", context.path("work/once").as_str()]).status().unwrap();
    }
    for status in ["403 Forbidden", "404 Not Found", "416 Range Not Satisfiable"] {
        let refusing = server(&bytes, move |_, _, stream, _| respond(stream, status, &[], b""));
        fetch(&context, &refusing, "").failed(3, &[PATH]);
        assert!(requests(&refusing).len() <= 2, "{:?}", requests(&refusing));
    }
    let down = server(&bytes, |_, _, stream, _| {
        respond(stream, "500 Internal Server Error", &["Retry-After: 0"], b"");
    });
    fetch(&context, &down, "").failed(3, &["HTTP status 500"]);
    assert_eq!(requests(&down).len(), 4);
}

#[test]
fn a_stalled_connection_is_given_up_with_its_rate() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    // A byte every tenth of a second, for as long as somebody listens.
    let slow = server(&bytes, |count, request, stream, bytes| match count {
        0 => {
            broken(stream, bytes, 0);
            for byte in bytes {
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        _ => ranged(request, stream, bytes),
    });
    fetch(&context, &slow, "--stall-timeout 1").ok().says("stalled at ").says("bytes a second");
}

#[test]
fn mirrors_are_tried_in_their_order() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let gone = server(&bytes, |_, _, stream, _| respond(stream, "410 Gone", &[], b""));
    let stale = server(&bytes, |_, _, stream, _| respond(stream, "200 OK", &[], b"something else"));
    let good = server(&bytes, |_, request, stream, bytes| ranged(request, stream, bytes));
    let mirrors = format!("--mirror {} --mirror {} --mirror {}", gone.url, stale.url, good.url);
    context
        .run(&format!("fetch 6.1.7 --fc {mirrors}"))
        .ok()
        .says("HTTP status 410 Gone; trying the next mirror")
        .says("checksum mismatch");
    assert_eq!([requests(&gone).len(), requests(&stale).len(), requests(&good).len()], [1, 1, 1]);
}

#[test]
fn redirects_in_a_loop_end() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let circle =
        server(&bytes, |_, _, stream, _| respond(stream, "302 Found", &[&format!("Location: {PATH}")], b""));
    fetch(&context, &circle, "").failed(3, &["too many redirects"]);
}

#[test]
fn a_body_may_not_be_larger_than_announced() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let lying = server(&bytes, |_, _, stream, bytes| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 3u64 << 30);
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(bytes));
    });
    fetch(&context, &lying, "").failed(3, &["are more than the limit of"]);
}

#[test]
fn a_proxy_is_used_and_named_and_no_proxy_is_honoured() {
    let mut context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let good = server(&bytes, |_, request, stream, bytes| ranged(request, stream, bytes));
    context.env.insert("http_proxy".into(), "http://127.0.0.1:1".into());
    fetch(&context, &good, "").failed(3, &["the environment names a proxy: http_proxy=http://127.0.0.1:1"]);
    assert!(good.log.lock().unwrap().is_empty());
    context.env.insert("http_proxy".into(), "http://me:secret@127.0.0.1:1".into());
    let failed = fetch(&context, &good, "").failed(3, &["http_proxy=http://…@127.0.0.1:1"]);
    assert!(!failed.stderr.contains("secret"), "{}", failed.stderr);
    context.env.insert("NO_PROXY".into(), "127.0.0.1".into());
    fetch(&context, &good, "").ok();
}
