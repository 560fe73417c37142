//! A server with TLS.

use crate::support::context::TestContext;
use crate::support::servers::DIR;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Runs `openssl s_server` with its own certificate, which serves `work/tls`.
pub(crate) struct Tls {
    child: std::process::Child,
    pub url: String,
}

impl Tls {
    pub(crate) fn start(context: &TestContext) -> Tls {
        fs::create_dir_all(context.path(&format!("work/tls{DIR}"))).unwrap();
        // With openssl's default configuration, the certificate would be that of an authority.
        let config = "[req]\ndistinguished_name = dn\nx509_extensions = v3\n[dn]\n\
                      [v3]\nbasicConstraints = CA:FALSE\nsubjectAltName = DNS:localhost\n";
        fs::write(context.path("work/openssl.cnf"), config).unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-config", "openssl.cnf", "-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(context.path("work"))
            .output()
            .unwrap();
        assert!(made.status.success());
        let mut child = Command::new("openssl")
            .args([
                "s_server",
                "-accept",
                "127.0.0.1:0",
                "-key",
                "../key.pem",
                "-cert",
                "../cert.pem",
                "-HTTP",
            ])
            .current_dir(context.path("work/tls"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port =
            lines.find_map(|line| Some(line.ok()?.strip_prefix("ACCEPT 127.0.0.1:")?.trim().to_owned()));
        // The server stops if nobody reads its output.
        std::thread::spawn(move || lines.for_each(drop));
        Tls { child, url: format!("https://localhost:{}", port.unwrap()) }
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
