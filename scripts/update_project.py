"""A project with a catalog, for the workflow that updates it: a repository with a remote, a server on loopback with
kernel.org's layout, and scripts in place of gh and QEMU."""

import functools
import hashlib
import http.server
import json
import lzma
import pathlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import threading

from workflows import ROOT, expect

# Lists, creates and authenticates as gh does. Pull requests are files in $GH_STATE.
GH = """#!/usr/bin/env python3
import json, os, pathlib, sys
words, state = sys.argv[1:], pathlib.Path(os.environ["GH_STATE"])
assert os.environ["GH_TOKEN"] == "t0ken", "no token"
given = dict(zip(words[2::2], words[3::2]))
if words[:2] == ["pr", "list"]:
    assert (given["--state"], given["--json"], given["--jq"]) == ("open", "number", "length"), words
    print(len([one for one in state.iterdir() if json.loads(one.read_text())["--head"] == given["--head"]]))
elif words[:2] == ["pr", "create"]:
    given["body"] = pathlib.Path(given["--body-file"]).read_text()
    (state / str(len(list(state.iterdir())) + 1)).write_text(json.dumps(given))
else:
    sys.exit(f"gh does not know {words}")
"""
CHECKS = ["block eth0", "network eth0", "vsock device", "config", "cgroup2 cpu memory", "overlay", "veth", "bridge",
          "nftables", "iptables", "namespaces"]
CONSOLE = "\n".join(
    ["[ 0.0] Linux version VERSION", "[ 1.25] kcompile: init", "[ 1.25] kcompile: release VERSION"]
    + [line for n in range(4) for line in (f"[ 2.0] kcompile: load {n} x", f"[ 2.0] kcompile: loaded {n} 0")]
    + [f"[ 3.0] kcompile: check {check.split(' ')[0]} 0 {' '.join(check.split(' ')[1:])}" for check in CHECKS]
    + ["[ 4.0] kcompile: end", ""]
)
# Prints the console of a good boot, with the version of the kernel.
QEMU = """#!/bin/sh
for word; do [ "$last" != -kernel ] || kernel=$word; last=$word; done
version=$(grep -ao 'Linux version [0-9.]*' "$kernel" | head -n 1 | cut -d ' ' -f 3)
sed "s/VERSION/$version/" "$(dirname "$0")/console"
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def release(version):
    """Returns the tarball of the miniature tree with this version."""
    top = f"linux-{version}"
    tree = io.BytesIO()
    with tarfile.open(fileobj=tree, mode="w") as tar:
        for path in sorted((ROOT / "tests/mini-linux").rglob("*")):
            info = tar.gettarinfo(path, f"{top}/{path.relative_to(ROOT / 'tests/mini-linux')}")
            content = path.read_bytes() if info.isreg() else None
            if info.name == f"{top}/Makefile":
                content = re.sub(rb"SUBLEVEL = \d+", f"SUBLEVEL = {version.split('.')[2]}".encode(), content)
                content = re.sub(rb"^VERSION = \d+", b"VERSION = 6", content, flags=re.MULTILINE)
                content = re.sub(rb"PATCHLEVEL = \d+", b"PATCHLEVEL = 1", content)
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if content is not None else None)
    return lzma.compress(tree.getvalue(), preset=0)


class Project:
    def __init__(self, temp, kcompile, configs):
        self.temp, self.root = temp, pathlib.Path(temp)
        self.work, self.remote = self.root / "work", self.root / "remote.git"
        bin_dir, self.state = self.root / "kcompile/bin", self.root / "pull-requests"
        for directory in [bin_dir, self.state, self.work]:
            directory.mkdir(parents=True)
        shutil.copy(kcompile, bin_dir / "kcompile")
        for name, text in [("gh", GH), ("qemu-system-x86_64", QEMU), ("console", CONSOLE)]:
            (bin_dir / name).write_text(text)
            (bin_dir / name).chmod(0o755)
        self.env = {
            "GH_STATE": str(self.state),
            "KCOMPILE_MIRROR": self.serve(),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "UPDATE_OPTIONS": f"--data={self.records()}\n",
        }
        self.catalog(self.work / configs if configs else self.work / "configs")
        if not configs:
            (self.work / "kcompile.toml").write_text('require = ["none"]\n')
        self.git("init", "--quiet", "-b", "main")
        subprocess.run(["git", "init", "--quiet", "--bare", self.remote], check=True)
        self.git("remote", "add", "origin", str(self.remote))
        self.git("add", "--all")
        self.git("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", "x")
        # What the checkout has besides its commit stays.
        (self.work / "untracked").write_text("x")

    def catalog(self, configs):
        (configs / "firecracker").mkdir(parents=True)
        (configs / "kernels.toml").write_text(
            '# ours\n[[kernel]]\nversion = "6.1.7"\nflavor = "firecracker"\narch = ["amd64"]\nstatus = "supported"\n'
        )
        config = (ROOT / "tests/suite/support/context.rs").read_text().split('CONFIG: &str = "\\\n', 1)[1].split('";', 1)[0]
        config = config.replace("\\\n", "").replace("\\n", "\n")
        (configs / "firecracker/linux-x86_64-6.1.7.config").write_text(config)

    def records(self):
        """Writes a CVE record, so that no server is asked for records. Returns its directory."""
        versions = [{"version": "6.1.9", "lessThanOrEqual": "6.1.*", "status": "unaffected"}]
        affected = {"vendor": "Linux", "product": "Linux", "defaultStatus": "affected", "versions": versions}
        affected["programFiles"] = ["init/main.c"]
        record = {
            "dataType": "CVE_RECORD",
            "cveMetadata": {"cveId": "CVE-2024-1001", "state": "PUBLISHED"},
            "containers": {"cna": {"title": "a fault", "affected": [affected]}},
        }
        directory = self.root / "vulns"
        directory.mkdir()
        (directory / "CVE-2024-1001.json").write_text(json.dumps(record))
        return directory

    def serve(self):
        files = self.root / "kernel.org"
        directory = files / "pub/linux/kernel/v6.x"
        directory.mkdir(parents=True)
        sums = ""
        for version in ["6.1.7", "6.1.9"]:
            tarball = release(version)
            (directory / f"linux-{version}.tar.xz").write_bytes(tarball)
            sums += f"{hashlib.sha256(tarball).hexdigest()}  linux-{version}.tar.xz\n"
        (directory / "sha256sums.asc").write_text(sums)
        for version in ["6.1.8", "6.1.9"]:
            (directory / f"ChangeLog-{version}").write_text(f"commit {'0a' * 20}\n")
        releases = [{"version": "6.1.9", "moniker": "longterm", "iseol": False}]
        (files / "releases.json").write_text(json.dumps({"latest_stable": {"version": "6.1.9"}, "releases": releases}))
        handler = functools.partial(Quiet, directory=files)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    def git(self, *words):
        env = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null"}
        done = subprocess.run(["git", *words], cwd=self.work, env=env, check=True, capture_output=True, text=True)
        return done.stdout

    def updates(self):
        return self.root / "updates"

    def pushed(self):
        """Returns the branches of the remote."""
        return self.git("ls-remote", "--heads", "origin").split()[1::2]

    def pull_requests(self):
        return [json.loads(path.read_text()) for path in sorted(self.state.iterdir())]

    def close(self):
        for path in self.state.iterdir():
            path.unlink()

    def patch(self, name):
        """Returns a patch that adds a file."""
        return f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+x\n"

    def hand_over(self, changes):
        """Makes what the job that builds hands over to the other job."""
        directory = self.updates() / "firecracker-6.1.7"
        shutil.rmtree(self.updates(), ignore_errors=True)
        directory.mkdir(parents=True)
        files = {"branch": "kcompile-update/firecracker-6.1.7\n", "title": "x\n", "report.md": "x\n", "patch": self.patch("new")}
        for name, text in (files | changes).items():
            (directory / name).write_text(text)

    def expect_pull_request(self):
        """Checks the only pull request, its branch and its report."""
        branch = "kcompile-update/firecracker-6.1.7"
        expect(self.pushed() == [f"refs/heads/{branch}"], f"pushed branches: {self.pushed()}")
        found = self.pull_requests()
        expect(len(found) == 1, f"pull requests: {found}")
        (request,) = found
        expect((request["--head"], request["--base"]) == (branch, "main"), f"{request}")
        expect(request["--title"] == "kernels: update Linux 6.1.7 for firecracker to 6.1.9", f"{request}")
        for text in ["## Linux 6.1.7 to 6.1.9 for Firecracker", "Shortlog: 2 commits", "fixes 1 CVE", "boot to init, amd64 | 1.25 s"]:
            expect(text in request["body"], f"{text!r} is not in:\n{request['body']}")
        changed = self.git("diff", "--name-status", f"origin/{branch}~1", f"origin/{branch}") if self.fetch() else ""
        for line in ["configs/kernels.toml", "linux-x86_64-6.1.9.config", "kcompile.lock"]:
            expect(line in changed, f"{line} is not in the commit:\n{changed}")
        expect("report" not in changed and "untracked" not in changed, f"the commit has other files:\n{changed}")
        expect((self.work / "untracked").exists() and "work" in self.git("worktree", "list"), "the checkout was changed")
        expect(len(self.git("worktree", "list").splitlines()) == 1, "a work tree is left")

    def fetch(self):
        self.git("fetch", "--quiet", "origin")
        return True
