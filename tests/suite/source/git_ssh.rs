//! git over ssh with a real sshd on loopback. Only uses the agent's key and never prompts.

use crate::support::context::{TestContext, has_tool};
use crate::support::git::{repository, sh};
use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

/// Debian's path of the server, which is in no user's PATH.
const SSHD: &str = "/usr/sbin/sshd";

/// An agent that ends with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts an sshd for each connection, which only accepts the key `key`. Returns the port.
fn serve(context: &TestContext) -> u16 {
    let config = format!(
        "HostKey {0}/host\nAuthorizedKeysFile {0}/key.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n",
        context.path("ssh")
    );
    fs::write(context.path("ssh/config"), config).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = context.path("ssh/config");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = OwnedFd::from(stream.unwrap());
            // In inetd mode the connection is standard input and output.
            let server = Command::new(SSHD)
                .args(["-i", "-e", "-f", config.as_str()])
                .stdin(stream.try_clone().unwrap())
                .stdout(stream)
                .stderr(Stdio::null())
                .spawn();
            server.unwrap().wait().unwrap();
        }
    });
    port
}

#[test]
fn git_over_ssh_uses_the_agent_and_never_prompts() {
    if !has_tool("ssh-keygen") || !has_tool("ssh-agent") || !has_tool("git") {
        return;
    }
    if !fs::exists(SSHD).unwrap() {
        crate::support::context::skipped("sshd is not installed");
        return;
    }
    if !rustix::process::geteuid().is_root() {
        crate::support::context::skipped("only root's sshd can take in a user here");
        return;
    }
    let mut context = TestContext::new();
    repository(&context);
    sh(
        &context.path("."),
        "mkdir ssh; ssh-keygen -q -t ed25519 -N '' -f ssh/host; ssh-keygen -q -t ed25519 -N '' -f ssh/key",
    );
    // Debian's sshd needs this directory, which a fresh installation may lack.
    let _ = fs::create_dir_all("/run/sshd");
    let port = serve(&context);
    let fetch =
        format!("fetch 6.1.7 --ch --source git+ssh://root@127.0.0.1:{port}{}", context.path("repos/linux"));

    // A host with an unknown key is refused.
    context.run(&fetch).failed(3, &["host key is known for", "hint: the server's key is not in"]);
    let host_key = fs::read_to_string(context.path("ssh/host.pub")).unwrap();
    let host_key: Vec<&str> = host_key.split_whitespace().take(2).collect();
    fs::create_dir(context.path("home/.ssh")).unwrap();
    let known = format!("[127.0.0.1]:{port} {}\n", host_key.join(" "));
    fs::write(context.path("home/.ssh/known_hosts"), known).unwrap();

    context
        .run(&fetch)
        .failed(3, &["Permission denied (publickey)", "hint: add the key for this server to the ssh agent"]);
    assert!(context.names("cache/trees").is_empty());

    let socket = context.path("ssh/agent");
    let agent = Command::new("ssh-agent").args(["-D", "-a", socket.as_str()]).stdout(Stdio::piped()).spawn();
    let mut agent = Agent(agent.unwrap());
    // sshd prints the address when it listens.
    let mut said = String::new();
    let out = agent.0.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut said).unwrap();
    sh(&context.path("ssh"), &format!("SSH_AUTH_SOCK={socket} ssh-add -q key"));
    context.env.insert("SSH_AUTH_SOCK".into(), socket.into_string());
    let fetched = context.run(&fetch).ok().says("fetched from its server");
    assert!(fetched.stdout.contains(" 6.1.7 commit:"), "{}", fetched.stdout);
}
