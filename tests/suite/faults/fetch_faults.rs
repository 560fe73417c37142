//! Other faults of fetches. Earlier work must stay intact.

use crate::support::context::{RunResult, TestContext, has_tool, sha256};
use crate::support::downloads::{
    PATH, answer_range, archive_requests, archive_server, fetch, partial_file_name, send_part,
};
use crate::support::servers::{self, respond};
use crate::support::tls::Tls;
use std::fs;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const DIR: &str = "/pub/linux/kernel/v6.x";

fn release(context: &TestContext) -> Vec<u8> {
    fs::read(context.tarball("6.1.7", "xz")).unwrap()
}

#[track_caller]
fn nothing_left(context: &TestContext) {
    for dir in ["trees", "archives", "partial", "tmp"] {
        assert_eq!(context.names(&format!("cache/{dir}")), [""; 0], "{dir}");
    }
}

#[test]
fn downloads_of_two_files_are_never_joined() {
    let context = TestContext::new();
    let bytes = release(&context);
    let half = bytes.len() / 2;
    let mut other = bytes.clone();
    other[half..].reverse();
    // The second answer ignores the range and sends another file of the same size.
    let changing = archive_server(&bytes, move |count, _, stream, bytes| match count {
        0 => send_part(stream, bytes, half),
        _ => respond(stream, "200 OK", &[], &other),
    });
    fetch(&context, &changing, "").failed(3, &["checksum mismatch for linux-6.1.7.tar.xz"]);
    nothing_left(&context);
    // A 206 for another range than requested.
    let shifted = archive_server(&bytes, move |count, request, stream, bytes| match count {
        0 => send_part(stream, bytes, half),
        2.. => answer_range(request, stream, bytes),
        _ => {
            let range = format!("Content-Range: bytes {}-{}/{}", half + 1, bytes.len() - 1, bytes.len());
            respond(stream, "206 Partial Content", &[&range], &bytes[half + 1..]);
        }
    });
    fetch(&context, &shifted, "").failed(3, &["the server resumed at another place"]);
    assert_eq!(context.names("cache/trees"), [""; 0]);
    fetch(&context, &shifted, "").ok();
    assert_eq!(
        archive_requests(&shifted)[2..],
        [format!("GET {PATH} bytes={half}-")],
        "what came before was kept"
    );
}

#[test]
fn http_refusals_name_status_and_url_and_are_not_retried() {
    let context = TestContext::new();
    let bytes = release(&context);
    for status in
        ["400 Bad Request", "403 Forbidden", "404 Not Found", "410 Gone", "416 Range Not Satisfiable"]
    {
        let refusing = archive_server(&bytes, move |_, _, stream, _| respond(stream, status, &[], b""));
        fetch(&context, &refusing, "")
            .failed(3, &[&format!("cannot fetch {}{PATH}: HTTP status {status}", refusing.url), "hint: "]);
        assert_eq!(archive_requests(&refusing).len(), 1, "{status}");
        assert_eq!(context.names("cache/trees"), [""; 0]);
    }
    // The partial file is longer than the file. The server has nothing at that offset, so the
    // download starts again.
    let strict = archive_server(&bytes, |_, request, stream, bytes| match request.range_start() {
        Some(start) if start >= bytes.len() => {
            let range = format!("Content-Range: bytes */{}", bytes.len());
            respond(stream, "416 Range Not Satisfiable", &[&range], b"");
        }
        _ => answer_range(request, stream, bytes),
    });
    let twice = [&bytes[..], &bytes[..]].concat();
    fs::write(context.path("cache/partial").join(partial_file_name(&strict, &bytes)), twice).unwrap();
    fetch(&context, &strict, "").ok();
    assert_eq!(
        archive_requests(&strict),
        [format!("GET {PATH} bytes={}-", 2 * bytes.len()), format!("GET {PATH}")]
    );
}

#[test]
fn retry_after_is_respected() {
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        let context = TestContext::new();
        let bytes = release(&context);
        // kcompile's own pause would be half a second.
        let busy = archive_server(&bytes, move |count, request, stream, bytes| match count {
            0 => respond(stream, status, &["Retry-After: 2"], b""),
            _ => answer_range(request, stream, bytes),
        });
        let since = Instant::now();
        fetch(&context, &busy, "")
            .ok()
            .says(&format!("cannot fetch {}{PATH}: HTTP status {status}; trying again", busy.url));
        assert!(since.elapsed() >= Duration::from_secs(2), "{:?}", since.elapsed());
        assert_eq!(archive_requests(&busy).len(), 2);
    }
}

#[test]
fn a_slow_download_that_stalls_is_kept_for_resuming() {
    let context = TestContext::new();
    let bytes = release(&context);
    let dying = archive_server(&bytes, |count, request, stream, bytes| match count {
        // Sends a byte every tenth of a second until the client hangs up.
        0 => {
            send_part(stream, bytes, 100);
            for byte in &bytes[100..] {
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        // Sends the head of an answer and nothing else until the client hangs up.
        1 => {
            let start = request.range_start().unwrap();
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\n\r\n",
                bytes.len() - start,
                bytes.len() - 1,
                bytes.len()
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.read(&mut [0]));
        }
        2 => respond(stream, "404 Not Found", &[], b""),
        _ => answer_range(request, stream, bytes),
    });
    let ran = fetch(&context, &dying, "--stall-timeout 1").failed(
        3,
        &[
            ": stalled at ",
            " bytes per second; trying again",
            ": no data for 1 s; trying again",
            "HTTP status 404",
        ],
    );
    assert!(ran.stderr.contains(&format!(" of {} bytes: ", bytes.len())), "{}", ran.stderr);
    let partial = fs::read(context.path("cache/partial").join(partial_file_name(&dying, &bytes))).unwrap();
    assert!(partial.len() >= 100 && bytes.starts_with(&partial), "{} bytes", partial.len());
    fetch(&context, &dying, "").ok();
    assert_eq!(archive_requests(&dying)[3..], [format!("GET {PATH} bytes={}-", partial.len())]);
}

#[test]
fn a_resumed_download_must_be_the_same_file() {
    let context = TestContext::new();
    let bytes = release(&context);
    let half = bytes.len() / 2;
    let grown = |total: u64| {
        archive_server(&bytes, move |_, request, stream, bytes| match request.range_start() {
            None => send_part(stream, bytes, half),
            Some(start) => {
                let range = format!("Content-Range: bytes {start}-{}/{total}", total - 1);
                respond(stream, "206 Partial Content", &[&range], &bytes[start..]);
            }
        })
    };
    let kept = |server: &servers::Server| {
        fs::metadata(context.path("cache/partial").join(partial_file_name(server, &bytes))).unwrap().len()
    };
    let (total, before) = (bytes.len() as u64 + 1, bytes.len());
    let says = format!("the size of the file changed from {before} to {total} bytes");
    let server = grown(total);
    fetch(&context, &server, "").failed(3, &[&says, "hint: "]);
    assert_eq!(kept(&server), half as u64);
    let server = grown(9_999_999_999_999);
    fetch(&context, &server, "").failed(3, &["are more than the limit of"]);
    assert_eq!(kept(&server), half as u64);
    assert_eq!(context.names("cache/trees"), [""; 0]);
}

#[test]
fn a_truncated_or_slow_checksum_list_is_fetched_again() {
    let context = TestContext::new();
    let bytes = release(&context);
    let list = format!("{}  linux-6.1.7.tar.xz\n", sha256(&bytes)).into_bytes();
    let count = AtomicUsize::new(0);
    let server = servers::serve(move |request, stream| match request.path.as_str() {
        PATH => respond(stream, "200 OK", &[], &bytes),
        path if path.ends_with("sha256sums.asc") => match count.fetch_add(1, Ordering::SeqCst) {
            0 => send_part(stream, &list, 10),
            // Sends a byte every tenth of a second until the client hangs up.
            1 => {
                send_part(stream, &list, 0);
                for byte in &list {
                    if stream.write_all(&[*byte]).is_err() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            _ => respond(stream, "200 OK", &[], &list),
        },
        _ => respond(stream, "404 Not Found", &[], b""),
    });
    fetch(&context, &server, "--stall-timeout 1")
        .ok()
        .says("sha256sums.asc: got 10 bytes: the connection was lost; trying again (attempt 2 of 4)")
        .says(" bytes: stalled at ");
    let lists = server.log.lock().unwrap().iter().filter(|line| line.contains("sha256sums")).count();
    assert_eq!(lists, 3);
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    if !has_tool("openssl") {
        return;
    }
    let mut context = TestContext::new();
    let tls = Tls::start(&context);
    context.env.insert("SSL_CERT_FILE".into(), context.path("work/cert.pem").into_string());
    // The certificate is trusted, but is for `localhost`.
    let url = tls.url.replace("localhost", "127.0.0.1");
    context
        .run(&format!("fetch 6.1.7 --fc --mirror {url}"))
        .failed(3, &[&format!("cannot fetch {url}"), ": invalid certificate: ", "hint: ", "SSL_CERT_FILE"]);
    assert_eq!(context.names("cache/trees"), [""; 0]);
}

#[test]
fn an_unreachable_proxy_is_named_for_git() {
    let mut context = TestContext::new();
    let proxy = servers::serve(|_, stream| respond(stream, "502 Bad Gateway", &[], b""));
    for url in [&proxy.url, "http://127.0.0.1:1"] {
        context.env.insert("https_proxy".into(), url.to_owned());
        let proxy = format!("the environment names a proxy: https_proxy={url}");
        context
            .run("fetch 6.1.7 --ch --source git+https://127.0.0.1:2/x")
            .failed(3, &["cannot fetch https://127.0.0.1:2/x#ch-6.1.7", &proxy]);
    }
    assert_eq!(*proxy.log.lock().unwrap(), ["CONNECT 127.0.0.1:2"], "it is asked first");
}

#[test]
fn a_damaged_repository_is_fetched_again() {
    if !has_tool("git") {
        return;
    }
    let context = TestContext::new();
    crate::support::git::repository(&context);
    let server = servers::git(context.path("repos").as_str());
    let args = format!("fetch 6.1.7 --ch --source git+{}/linux/.git", server.url);
    let before = context.run(&args).ok().digests();
    let spoil = |script: &str| {
        let script = format!("chmod -R u+w trees && rm -rf trees && cd git/*/objects && {script}");
        let ran = std::process::Command::new("sh")
            .args(["-ec", &script])
            .current_dir(context.path("cache"))
            .status();
        assert!(ran.unwrap().success());
    };
    for damage in [
        "for pack in pack/*.pack; do chmod u+w $pack; printf x | dd of=$pack bs=1 seek=200 conv=notrunc status=none; done",
        "for pack in pack/*.pack; do chmod u+w $pack; truncate -s 100 $pack; done",
        "rm -rf pack",
    ] {
        spoil(damage);
        assert_eq!(context.run(&args).ok().digests(), before, "{damage}");
    }
}

/// Returns failed fetches of 6.1.7, with names.
fn faults(context: &TestContext, bytes: &[u8]) -> Vec<(&'static str, RunResult)> {
    let serve = |answer: fn(&mut std::net::TcpStream, &[u8])| {
        let server = archive_server(bytes, move |_, _, stream, bytes| answer(stream, bytes));
        fetch(context, &server, "--stall-timeout 1")
    };
    let damaged = |bytes: &[u8]| {
        let list = format!("{}  linux-6.1.7.tar.xz\n", sha256(bytes));
        let server = servers::files([
            (PATH.to_owned(), bytes.to_vec()),
            (format!("{DIR}/sha256sums.asc"), list.into_bytes()),
        ]);
        fetch(context, &server, "")
    };
    let mut flipped = bytes.to_vec();
    flipped[bytes.len() / 2] ^= 1;
    vec![
        ("refused", serve(|stream, _| respond(stream, "403 Forbidden", &[], b""))),
        ("other bytes", serve(|stream, bytes| respond(stream, "200 OK", &[], &bytes[1..]))),
        ("in a loop", serve(|stream, _| respond(stream, "302 Found", &[&format!("Location: {PATH}")], b""))),
        ("truncated", damaged(&bytes[..bytes.len() / 2])),
        ("damaged", damaged(&flipped)),
        ("no archive", damaged(b"hello")),
        ("no server", context.run("fetch 6.1.7 --fc --mirror http://127.0.0.1:1")),
        ("no repository", context.run("fetch 6.1.7 --ch --source git+http://127.0.0.1:1/x")),
        ("no network", context.run("fetch 6.1.7 --fc --offline")),
    ]
}

#[test]
fn failed_fetches_leave_earlier_work_intact() {
    let context = TestContext::new();
    let bytes = release(&context);
    let earlier = fs::read(context.tarball("6.1.8", "xz")).unwrap();
    let list = format!("{}  linux-6.1.8.tar.xz\n", sha256(&earlier));
    let mirror = servers::files([
        (format!("{DIR}/linux-6.1.8.tar.xz"), earlier),
        (format!("{DIR}/sha256sums.asc"), list.into_bytes()),
    ]);
    context.run(&format!("6.1.8 --fc --config mini.config --mirror {}", mirror.url)).ok();
    let places = ["cache/trees", "cache/archives", "work/out"];
    let before = places.map(|dir| context.snapshot(dir));
    for (fault, ran) in faults(&context, &bytes) {
        assert_eq!(ran.code, 3, "{fault}: {}", ran.stderr);
        // The file that records the use of an entry may change.
        for (dir, before) in places.iter().zip(&before) {
            assert_eq!(context.snapshot(dir), *before, "{fault}, in {dir}");
        }
        assert_eq!(context.names("cache/tmp"), [""; 0], "{fault}");
    }
    context.run("6.1.8 --fc --config mini.config --offline").ok();
}
