//! Servers on loopback for HTTP and for git over HTTP through git's CGI program.

use crate::support::context::{TestContext, sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// A server that lives as long as the test process.
pub(crate) struct Server {
    pub url: String,
    /// The request lines in order.
    pub log: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    /// Returns the start of a Range request.
    pub fn range_start(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
    }
}

/// Serves these files by path (with a leading slash). Everything else is 404.
pub(crate) fn files(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Server {
    let files: BTreeMap<String, Vec<u8>> = files.into_iter().collect();
    serve(move |request, stream| match files.get(&request.path) {
        Some(bytes) => respond(stream, "200 OK", &[], bytes),
        None => respond(stream, "404 Not Found", &[], b"no such file"),
    })
}

/// The directory of 6.x on kernel.org.
pub(crate) const DIR: &str = "/pub/linux/kernel/v6.x";

/// Serves these releases of 6.x like kernel.org, from the miniature tree.
pub(crate) fn mirror(context: &TestContext, versions: &[&str]) -> Server {
    let mut all = Vec::new();
    let mut list = String::new();
    for version in versions {
        let bytes = fs::read(context.tarball(version, "xz")).unwrap();
        list.push_str(&format!("{}  linux-{version}.tar.xz\n", sha256(&bytes)));
        all.push((format!("{DIR}/linux-{version}.tar.xz"), bytes));
    }
    all.push((format!("{DIR}/sha256sums.asc"), list.into_bytes()));
    files(all)
}

/// Serves the git repositories below `root` with `git http-backend`.
pub(crate) fn git(root: &str) -> Server {
    let root = root.to_owned();
    serve(move |request, stream| {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let mut backend = Command::new("git")
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", &root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*")
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("REQUEST_METHOD", &request.method)
            .env("CONTENT_TYPE", request.headers.get("content-type").map_or("", String::as_str))
            .env("CONTENT_LENGTH", request.body.len().to_string())
            .env("GIT_PROTOCOL", request.headers.get("git-protocol").map_or("", String::as_str))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        backend.stdin.take().unwrap().write_all(&request.body).unwrap();
        let answer = backend.wait_with_output().unwrap().stdout;
        let split = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..split].to_vec()).unwrap();
        let status =
            head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
        let headers: Vec<&str> = head.lines().filter(|line| !line.starts_with("Status")).collect();
        respond(stream, &status, &headers, &answer[split + 4..]);
    })
}

/// Serves with `handle`, with a thread for each connection.
pub fn serve(handle: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let log = Arc::new(Mutex::new(Vec::new()));
    let (seen, handle) = (log.clone(), Arc::new(handle));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (seen, handle, mut stream) = (seen.clone(), handle.clone(), stream.unwrap());
            std::thread::spawn(move || {
                let Some(request) = read_request(&stream) else { return };
                let range = request.headers.get("range").map_or(String::new(), |range| format!(" {range}"));
                seen.lock().unwrap().push(format!("{} {}{range}", request.method, request.path));
                handle(&request, &mut stream);
            });
        }
    });
    Server { url, log }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = u64::from_str_radix(size.trim(), 16).ok()?;
            (&mut reader).take(size).read_to_end(&mut body).ok()?;
            reader.read_line(&mut String::new()).ok()?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = headers.get("content-length") {
        (&mut reader).take(length.parse().ok()?).read_to_end(&mut body).ok()?;
    }
    Some(Request { method, path, headers, body })
}

/// Sends a complete, correct answer.
pub fn respond(stream: &mut TcpStream, status: &str, headers: &[&str], body: &[u8]) {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    headers.iter().for_each(|header| head.push_str(&format!("{header}\r\n")));
    // A client may close the connection early.
    let _ = stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(body));
}
