//! Bad connections and bad servers on loopback.

use crate::support::context::TestContext;
use crate::support::downloads::{
    PATH, answer_range, archive_requests, archive_server, fetch, partial_file_name, send_part,
};
use crate::support::servers::{self, respond};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

#[test]
fn a_dropped_connection_is_resumed_where_it_broke() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let half = bytes.len() / 2;
    let server = archive_server(&bytes, move |count, request, stream, bytes| match count {
        0 => send_part(stream, bytes, half),
        _ => answer_range(request, stream, bytes),
    });
    fetch(&context, &server, "")
        .ok()
        .says(&format!("got {half} of {} bytes: the connection was lost; trying again", bytes.len()));
    assert_eq!(archive_requests(&server), [format!("GET {PATH}"), format!("GET {PATH} bytes={half}-")]);
    assert!(context.names("cache/partial").is_empty());
}

#[test]
fn a_failed_download_is_resumed_by_the_next_run() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    // The connection breaks in all attempts of the first run.
    let server = archive_server(&bytes, |count, request, stream, bytes| match count {
        0 => send_part(stream, bytes, 1000),
        4.. => answer_range(request, stream, bytes),
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
        &[&format!("got 1000 of {} bytes", bytes.len()), "hint: run the same command again to resume"],
    );
    assert_eq!(context.names("cache/partial"), [partial_file_name(&server, &bytes)]);
    assert!(context.names("cache/trees").is_empty());
    let before = archive_requests(&server).len();
    fetch(&context, &server, "").ok();
    assert_eq!(archive_requests(&server)[before..], [format!("GET {PATH} bytes=1000-")]);
    assert!(context.names("cache/partial").is_empty());
}

#[test]
fn a_server_that_ignores_the_range_starts_over() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let half = bytes.len() / 2;
    // Within a run, the first half is sent again and skipped.
    let stubborn = archive_server(&bytes, move |count, _, stream, bytes| match count {
        0 => send_part(stream, bytes, half),
        _ => respond(stream, "200 OK", &[], bytes),
    });
    fetch(&context, &stubborn, "").ok();
    // From an earlier run.
    let context = TestContext::new();
    let stubborn = archive_server(&bytes, |_, _, stream, bytes| respond(stream, "200 OK", &[], bytes));
    fs::create_dir_all(context.path("cache/partial")).unwrap();
    fs::write(context.path("cache/partial").join(partial_file_name(&stubborn, &bytes)), &bytes[..half])
        .unwrap();
    fetch(&context, &stubborn, "").ok();
    assert_eq!(archive_requests(&stubborn), [format!("GET {PATH} bytes={half}-")]);
}

#[test]
fn a_damaged_partial_download_is_discarded() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let server = archive_server(&bytes, |_, request, stream, bytes| answer_range(request, stream, bytes));
    fs::create_dir_all(context.path("cache/partial")).unwrap();
    fs::write(context.path("cache/partial").join(partial_file_name(&server, &bytes)), vec![0; 1000]).unwrap();
    fetch(&context, &server, "")
        .ok()
        .says("checksum mismatch")
        .says("removing the partial download of an earlier run");
    assert_eq!(archive_requests(&server), [format!("GET {PATH} bytes=1000-"), format!("GET {PATH}")]);
    assert!(context.names("cache/partial").is_empty());
}

/// Sends an answer without a length, which ends with the connection.
fn without_length(stream: &mut TcpStream, bytes: &[u8]) {
    let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    let _ = stream.write_all(head).and_then(|()| stream.write_all(bytes));
}

#[test]
fn bytes_of_a_bad_mirror_are_not_used_for_the_next_mirror() {
    let bytes = fs::read(TestContext::new().tarball("6.1.7", "xz")).unwrap();
    let good = || archive_server(&bytes, |_, request, stream, bytes| answer_range(request, stream, bytes));
    let other = vec![7; 2000];
    // Wrong bytes, and then the connection breaks.
    let context = TestContext::new();
    let wrong = other.clone();
    let breaking = archive_server(&bytes, move |_, request, stream, bytes| match request.range_start() {
        None => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&wrong));
        }
        Some(_) => respond(stream, "403 Forbidden", &[], b""),
    });
    let next = good();
    context.run(&format!("fetch 6.1.7 --fc --mirror {} --mirror {}", breaking.url, next.url)).ok();
    assert_eq!(archive_requests(&next), [format!("GET {PATH}")]);
    // In another run.
    let context = TestContext::new();
    fetch(&context, &breaking, "").failed(3, &["HTTP status 403"]);
    let next = good();
    fetch(&context, &next, "").ok();
    assert_eq!(archive_requests(&next), [format!("GET {PATH}")]);
    // Wrong bytes to their end, without an announced length.
    let context = TestContext::new();
    let lying = archive_server(&bytes, move |count, request, stream, bytes| match count {
        0 => without_length(stream, &other),
        _ => answer_range(request, stream, bytes),
    });
    fetch(&context, &lying, "").failed(3, &["checksum mismatch"]);
    assert!(context.names("cache/partial").is_empty());
    fetch(&context, &lying, "").ok();
    assert_eq!(archive_requests(&lying), [format!("GET {PATH}"), format!("GET {PATH}")]);
}

#[test]
fn only_temporary_failures_are_retried() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    for (status, header) in
        [("503 Service Unavailable", "Retry-After: 0"), ("429 Too Many Requests", "Retry-After: 1")]
    {
        let busy = archive_server(&bytes, move |count, request, stream, bytes| match count {
            0 => respond(stream, status, &[header], b""),
            _ => answer_range(request, stream, bytes),
        });
        fetch(&context, &busy, "--cache-dir once").ok().says(&format!("HTTP status {status}; trying again"));
        fs::remove_dir_all(context.path("work/once/trees")).ok();
        std::process::Command::new("rm").args(["-rf", context.path("work/once").as_str()]).status().unwrap();
    }
    for status in ["403 Forbidden", "404 Not Found", "416 Range Not Satisfiable"] {
        let refusing = archive_server(&bytes, move |_, _, stream, _| respond(stream, status, &[], b""));
        fetch(&context, &refusing, "").failed(3, &[PATH]);
        assert!(archive_requests(&refusing).len() <= 2, "{:?}", archive_requests(&refusing));
    }
    let down = archive_server(&bytes, |_, _, stream, _| {
        respond(stream, "500 Internal Server Error", &["Retry-After: 0"], b"");
    });
    fetch(&context, &down, "").failed(3, &["HTTP status 500"]);
    assert_eq!(archive_requests(&down).len(), 4);
}

#[test]
fn a_stalled_download_is_aborted_with_its_rate() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    // Sends a byte every tenth of a second until the client hangs up.
    let slow = archive_server(&bytes, |count, request, stream, bytes| match count {
        0 => {
            send_part(stream, bytes, 0);
            for byte in bytes {
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        _ => answer_range(request, stream, bytes),
    });
    fetch(&context, &slow, "--stall-timeout 1").ok().says("stalled at ").says("bytes per second");
}

#[test]
fn mirrors_are_tried_in_order() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let gone = archive_server(&bytes, |_, _, stream, _| respond(stream, "410 Gone", &[], b""));
    let stale = archive_server(&bytes, |_, _, stream, _| respond(stream, "200 OK", &[], b"something else"));
    let good = archive_server(&bytes, |_, request, stream, bytes| answer_range(request, stream, bytes));
    let mirrors = format!("--mirror {} --mirror {} --mirror {}", gone.url, stale.url, good.url);
    context
        .run(&format!("fetch 6.1.7 --fc {mirrors}"))
        .ok()
        .says("HTTP status 410 Gone; trying the next mirror")
        .says("checksum mismatch");
    assert_eq!(
        [archive_requests(&gone).len(), archive_requests(&stale).len(), archive_requests(&good).len()],
        [1, 1, 1]
    );
}

#[test]
fn redirect_loops_end() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let circle = archive_server(&bytes, |_, _, stream, _| {
        respond(stream, "302 Found", &[&format!("Location: {PATH}")], b"");
    });
    fetch(&context, &circle, "").failed(3, &["too many redirects"]);
}

#[test]
fn a_body_may_not_be_larger_than_announced() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let lying = archive_server(&bytes, |_, _, stream, bytes| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 3u64 << 30);
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(bytes));
    });
    fetch(&context, &lying, "").failed(3, &["are more than the limit of"]);
}

#[test]
fn a_proxy_is_used_and_named_and_no_proxy_is_honoured() {
    let mut context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let good = archive_server(&bytes, |_, request, stream, bytes| answer_range(request, stream, bytes));
    context.env.insert("http_proxy".into(), "http://127.0.0.1:1".into());
    fetch(&context, &good, "").failed(3, &["the environment names a proxy: http_proxy=http://127.0.0.1:1"]);
    assert!(good.log.lock().unwrap().is_empty());
    context.env.insert("http_proxy".into(), "http://me:secret@127.0.0.1:1".into());
    let failed = fetch(&context, &good, "").failed(3, &["http_proxy=http://…@127.0.0.1:1"]);
    assert!(!failed.stderr.contains("secret"), "{}", failed.stderr);
    context.env.insert("NO_PROXY".into(), "127.0.0.1".into());
    fetch(&context, &good, "").ok();
}

/// Returns the https URL of a server that answers everything in plain HTTP.
fn server_without_tls() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut hello = [0; 1024];
            let _ = stream.read(&mut hello);
            respond(&mut stream, "400 Bad Request", &[], b"");
        }
    });
    url
}

#[test]
fn a_connection_that_can_never_work_is_tried_once_and_explained_in_one_line() {
    let context = TestContext::new();
    // No resolver is asked for a label of more than 63 characters.
    let host = "a".repeat(64);
    let without_tls = server_without_tls();
    for (server, why) in [
        (format!("http://{host}"), format!("no address for {host}")),
        ("http://127.0.0.1:1".to_owned(), "connection refused".to_owned()),
        (without_tls, "the server does not use TLS".to_owned()),
    ] {
        let ran = context.run(&format!("fetch 6.1.7 --fc --mirror {server}"));
        let error = format!("cannot fetch {server}/pub/linux/kernel/v6.x/sha256sums.asc: {why}");
        let ran = ran.failed(3, &[&format!("error: {error}\nhint: ")]);
        assert_eq!(ran.stderr.matches(&error).count(), 1, "{}", ran.stderr);
    }
}

#[test]
fn a_connection_that_is_lost_before_the_answer_is_retried() {
    let context = TestContext::new();
    let silent = servers::serve(|_, _| {});
    let ran = fetch(&context, &silent, "").failed(3, &["; trying again (attempt 4 of 4)\n"]);
    assert_eq!(silent.log.lock().unwrap().len(), 4);
    assert!(!ran.stderr.contains("(os error"), "{}", ran.stderr);
}

#[test]
fn a_git_server_is_named_once() {
    let context = TestContext::new();
    let url = "http://127.0.0.1:1/x";
    let ran = context.run(&format!("fetch 6.1.7 --ch --source git+{url}#y"));
    let ran =
        ran.failed(3, &[&format!("error: cannot fetch {url}#y: Failed to connect to 127.0.0.1 port 1")]);
    assert_eq!(ran.stderr.matches(url).count(), 2, "in the phase and in the error: {}", ran.stderr);
}
