//! Malicious git servers on loopback. Each fetch ends in time with an error and leaves nothing.

use crate::support::context::{RunResult, TestContext, has_tool};
use crate::support::git::{COMMIT, repository, sh};
use crate::support::servers::{self, Request, Server, respond};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// Fetches with a stall timeout of two seconds.
fn fetch(context: &TestContext, url: &str) -> RunResult {
    context.run(&format!("fetch 6.1.7 --ch --source git+{url}/linux/.git --stall-timeout 2"))
}

/// Checks that it failed in time and left no files in the cache and no processes.
#[track_caller]
fn gives_up(context: &TestContext, url: &str, says: &[&str]) {
    let began = Instant::now();
    fetch(context, url).failed(3, &[&format!("cannot fetch {url}/linux/.git#ch-6.1.7: ")]).failed(3, says);
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    for dir in ["git", "trees", "tmp"] {
        assert_eq!(context.names(&format!("cache/{dir}")), [""; 0], "{dir}");
    }
    let cache = context.path("cache");
    let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|process| {
        let words = fs::read(process.path().join("cmdline")).ok()?;
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        (words.contains(cache.as_str()) || words.contains(url)).then_some(words)
    });
    assert_eq!(processes.collect::<Vec<_>>(), [""; 0]);
}

/// Sends the head of an endless answer, and then calls `send` until the client hangs up.
fn endless(stream: &mut TcpStream, kind: &str, mut send: impl FnMut(&mut TcpStream) -> std::io::Result<()>) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n");
    if stream.write_all(head.as_bytes()).is_ok() {
        while send(stream).is_ok() {}
    }
}

/// Waits until the client hangs up.
fn silent(stream: &mut TcpStream) {
    while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {}
}

fn packet(text: &[u8]) -> Vec<u8> {
    [format!("{:04x}", text.len() + 4).as_bytes(), text].concat()
}

const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";
const RESULT: &str = "application/x-git-upload-pack-result";

/// Forwards a request to another server and sends its answer.
fn forward(request: &Request, server: &Server, stream: &mut TcpStream) {
    let mut there = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    let length = request.body.len();
    let mut head = format!("{} {} HTTP/1.1\r\nContent-Length: {length}\r\n", request.method, request.path);
    for name in ["content-type", "git-protocol"] {
        if let Some(value) = request.headers.get(name) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    let head = format!("{head}\r\n");
    there.write_all(head.as_bytes()).and_then(|()| there.write_all(&request.body)).unwrap();
    let mut bytes = Vec::new();
    there.read_to_end(&mut bytes).unwrap();
    let _ = stream.write_all(&bytes);
}

/// Returns a server of `context`'s repository. When the client asks for objects, `answer` answers.
fn honest_until_the_pack(
    context: &TestContext,
    answer: impl Fn(&mut TcpStream) + Send + Sync + 'static,
) -> Server {
    let honest = servers::git(context.path("repos").as_str());
    servers::serve(move |request: &Request, stream| {
        if request.body.windows(13).any(|window| window == b"command=fetch") {
            return answer(stream);
        }
        forward(request, &honest, stream);
    })
}

#[test]
fn silent_git_servers_time_out() {
    if !has_tool("git") {
        return;
    }
    let context = TestContext::new();
    // Silent after the connection, also with git's own protocol.
    let server = servers::serve(|_, stream| silent(stream));
    gives_up(&context, &server.url, &["the server did not list its references within 2 s"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("git://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || listener.incoming().for_each(|stream| silent(&mut stream.unwrap())));
    gives_up(&context, &url, &["the server did not list its references within 2 s"]);
    // Silent after the first bytes.
    let server = servers::serve(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-");
        silent(stream);
    });
    gives_up(&context, &server.url, &["the server did not list its references within 2 s"]);
}

#[test]
fn endless_git_responses_are_aborted() {
    if !has_tool("git") {
        return;
    }
    let context = TestContext::new();
    let server = servers::serve(|_, stream| {
        endless(stream, ADVERTISEMENT, |stream| {
            let hash = "1".repeat(40);
            let refs: Vec<u8> = (0..500)
                .flat_map(|_| packet(format!("{hash} refs/heads/{}\n", "x".repeat(200)).as_bytes()))
                .collect();
            stream.write_all(&refs)
        });
    });
    gives_up(&context, &server.url, &[]);
    let server = servers::serve(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(format!("X-Header: {}\r\n", "x".repeat(1000)).as_bytes()).is_ok() {}
    });
    gives_up(&context, &server.url, &[]);
}

#[test]
fn missing_or_endless_packs_are_aborted() {
    if !has_tool("git") {
        return;
    }
    let context = TestContext::new();
    repository(&context);
    let server = honest_until_the_pack(&context, silent);
    gives_up(&context, &server.url, &[]);
    // Only sends progress messages.
    let server = honest_until_the_pack(&context, |stream| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {RESULT}\r\n\r\n");
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&packet(b"packfile\n")));
        let news: Vec<u8> = packet(format!("\x02{}\n", "counting ".repeat(100)).as_bytes()).repeat(100);
        while stream.write_all(&news).is_ok() {}
    });
    gives_up(&context, &server.url, &["the server sends progress messages without end"]);
    // Sends the start of a pack, and then nothing.
    let server = honest_until_the_pack(&context, |stream| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {RESULT}\r\n\r\n");
        let pack = packet(b"\x01PACK\0\0\0\x02\0\0\xff\xff");
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&packet(b"packfile\n")));
        let _ = stream.write_all(&pack);
        silent(stream);
    });
    gives_up(&context, &server.url, &[]);
}

#[test]
fn git_redirects_to_another_host_are_refused() {
    if !has_tool("git") {
        return;
    }
    let context = TestContext::new();
    repository(&context);
    let honest = servers::git(context.path("repos").as_str());
    let to = honest.url.clone();
    let other = servers::serve(move |request, stream| {
        respond(stream, "302 Found", &[&format!("Location: {to}{}", request.path)], b"");
    });
    gives_up(&context, &other.url, &["the server redirects to another host, 127.0.0.1:"]);
    // Redirects within the server are followed.
    let moving = servers::serve(move |request, stream| {
        if request.path.starts_with("/linux/.git") {
            let path = request.path.replace("/linux/.git", "/moved/linux/.git");
            return respond(stream, "301 Moved Permanently", &[&format!("Location: {path}")], b"");
        }
        let path = request.path.replace("/moved", "");
        forward(&Request { path, ..request.clone() }, &honest, stream);
    });
    fetch(&context, &moving.url).ok();
}

#[test]
fn silent_proxies_time_out_and_are_named() {
    if !has_tool("git") {
        return;
    }
    let mut context = TestContext::new();
    let proxy = servers::serve(|_, stream| silent(stream));
    context.env.insert("https_proxy".into(), proxy.url.replace("http://", "http://me:secret@"));
    let began = Instant::now();
    let ran = fetch(&context, "https://127.0.0.1:2").failed(
        3,
        &[
            "the server did not list its references within 2 s",
            "the environment names a proxy: https_proxy=http://…@127.0.0.1",
        ],
    );
    assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
}

#[test]
fn git_configuration_of_the_user_is_ignored() {
    if !has_tool("git") {
        return;
    }
    let mut context = TestContext::new();
    let repo = repository(&context);
    let server = servers::git(context.path("repos").as_str());
    let asked = servers::files([]);
    let config = format!(
        "[url \"{}/\"]\n\tinsteadOf = {}/\n[core]\n\tattributesFile = ~/attributes\n",
        asked.url, server.url
    );
    fs::write(context.path("home/.gitconfig"), config).unwrap();
    fs::write(context.path("home/attributes"), "* export-ignore\n").unwrap();
    // Neither do the attributes of the tree.
    let attributes = "README export-ignore\nMakefile text eol=crlf working-tree-encoding=UTF-16LE\n\
        odd export-subst ident text eol=crlf\n";
    sh(&repo, "echo '$Format:%H$ $Id$' >odd; git add odd");
    fs::write(repo.join(".gitattributes"), attributes).unwrap();
    sh(&repo, "git add .gitattributes");
    sh(&repo, COMMIT);
    let checked_out = |name: &str| {
        let show = Command::new("git")
            .args(["cat-file", "blob", &format!("ch-6.1.7:{name}")])
            .current_dir(&repo)
            .output();
        show.unwrap().stdout
    };
    for url in [server.url.clone(), context.path("repos").into_string()] {
        let url = if url.starts_with('/') { format!("{url}/linux") } else { format!("{url}/linux/.git") };
        let cache = format!("{}-cache", &url[..1]);
        context.env.insert("GIT_DIR".into(), "/nowhere".into());
        let ran = context.run(&format!("fetch 6.1.7 --ch --source git+{url} --cache-dir {cache}")).ok();
        let tree = camino::Utf8PathBuf::from(ran.stdout.split(' ').next().unwrap());
        for name in ["README", "Makefile", "odd", ".gitattributes"] {
            let made = fs::read(tree.join(name)).unwrap();
            assert_eq!(String::from_utf8_lossy(&made), String::from_utf8_lossy(&checked_out(name)), "{name}");
        }
    }
    assert_eq!(*asked.log.lock().unwrap(), [""; 0]);
}
