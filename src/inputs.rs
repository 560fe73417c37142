//! Everything outside the command line that a plan depends on, read before the plan is made: the
//! user's files, what apt's lists and the local source tell without a network, and which compiler
//! this host has.

use crate::digest::Sha256;
use crate::error::{Context, Error, Kind, Result};
use crate::host::Host;
use crate::kernel::Catalog;
use crate::library::{Library, read_text};
use crate::lockfile::LockFile;
use crate::plan::{Inputs, LocalSource, Text, Toolchain};
use crate::process;
use crate::request::{Override, Request, SourceSpec, source_package};
use crate::toolchain::{self, Tools};
use crate::{patches, source};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;
use std::fs::File;

/// Reads what `request` names; `lock` is the lock file in force. Touches nothing; runs `--version` of the
/// toolchain and, for a package, `apt-cache show`.
pub fn read(
    request: &Request,
    host: &Host,
    (library, catalog): (&Library, &Catalog),
    lock: LockFile,
) -> Result<Inputs> {
    let config = request.config.as_deref().map(read_file).transpose()?;
    let overrides =
        request.overrides.iter().map(|over| read_override(over, host, library)).collect::<Result<_>>()?;
    let toolchain = identify_toolchain(request, host)?;
    Ok(Inputs {
        library: library.clone(),
        catalog: catalog.clone(),
        config,
        overrides,
        patches: request.patches.as_deref().map(patches::read_dir).transpose()?.unwrap_or_default(),
        lock,
        local: look_at_source(request, host)?,
        tools: Tools::new(&toolchain.identity, first_version_line(&["ldd".to_owned()], host).as_deref()),
        toolchain,
        rules: toolchain::read(library)?,
    })
}

fn read_file(path: &Utf8Path) -> Result<Text> {
    Ok(Text { name: path.to_string(), text: read_text(path)? })
}

fn read_override(over: &Override, host: &Host, library: &Library) -> Result<Text> {
    let fragment = match over {
        Override::Set(line) => {
            return Ok(Text { name: format!("--set {}", line.trim_end()), text: line.clone() });
        }
        Override::Fragment(fragment) => fragment,
    };
    let name = format!("configs/fragments/{fragment}.config");
    if let Some(text) = library.text(&name) {
        return Ok(Text { name, text: text.to_owned() });
    }
    let path = host.absolute(fragment.as_str().into());
    if !path.exists() {
        let known: Vec<&str> = library.fragments().map(|(name, _)| name).collect();
        let known = if known.is_empty() {
            "the catalog has none".into()
        } else {
            format!("the catalog has {}", known.join(", "))
        };
        return Err(Error::usage(format!(
            "--fragment {fragment}: neither a fragment of the catalog nor a file"
        ))
        .hint(format!("{known}; a file is given by its path")));
    }
    read_file(&path)
}

fn look_at_source(request: &Request, host: &Host) -> Result<Option<LocalSource>> {
    match &request.source {
        SourceSpec::Path(path) if path.is_dir() => {
            let version = source::tree_version(path)?;
            Ok(Some(LocalSource::Directory { version }))
        }
        SourceSpec::Path(path) if path.is_file() => {
            let file = File::open(path).context(Kind::Usage, || format!("cannot read {path}"))?;
            let sha256 = Sha256::of_reader(file).context(Kind::Usage, || format!("cannot read {path}"))?;
            Ok(Some(LocalSource::Tarball { sha256 }))
        }
        SourceSpec::Path(path) => Err(Error::usage(format!("--source {path}: no such file or directory"))
            .hint("kernel.org, git[+URL][#REF], apt[:PACKAGE], or the path of a tarball or directory")),
        SourceSpec::Apt { package } => {
            let package = package.clone().unwrap_or_else(|| source_package(request.version));
            Ok(source::apt_candidate(&package, host)
                .map(|(version, sha256)| LocalSource::Package { version, sha256 }))
        }
        SourceSpec::KernelOrg | SourceSpec::Git { .. } => Ok(None),
    }
}

/// The make variables that choose the compiler, and what the tools say of themselves.
fn identify_toolchain(request: &Request, host: &Host) -> Result<Toolchain> {
    let choice = &request.toolchain;
    let mut variables = BTreeMap::new();
    let cross = choice.cross_compile.clone().or_else(|| {
        let foreign = host.arch.is_some_and(|arch| arch != request.arch);
        (foreign && !choice.llvm).then(|| format!("{}-", request.arch.triple()))
    });
    let prefix = cross.unwrap_or_default();
    let (cc, ld) = match choice.llvm {
        true => (choice.cc.clone().unwrap_or("clang".into()), "ld.lld".to_owned()),
        false => (choice.cc.clone().unwrap_or(format!("{prefix}gcc")), format!("{prefix}ld")),
    };
    if choice.llvm {
        variables.insert("LLVM".to_owned(), "1".to_owned());
    }
    // Always said: vendors' trees have a prefix of their own written into the top Makefile.
    variables.insert("CROSS_COMPILE".to_owned(), prefix.clone());
    variables.insert("CC".into(), cc.clone());
    let host_cc = match (choice.llvm, host.arch == Some(request.arch) && prefix.is_empty()) {
        (true, _) => "clang",
        (false, true) => cc.as_str(),
        (false, false) => "gcc",
    };
    variables.insert("HOSTCC".into(), host_cc.to_owned());

    let mut identity = BTreeMap::new();
    for (tool, command) in [("cc", cc.as_str()), ("hostcc", host_cc), ("ld", &ld), ("make", "make")] {
        let words = shlex::split(command).filter(|words| !words.is_empty());
        let words = words.ok_or_else(|| Error::usage(format!("--cc `{command}`: not a command")))?;
        if let Some(line) = first_version_line(&words, host) {
            identity.insert(tool.to_owned(), line);
        }
    }
    Ok(Toolchain { variables, identity, launcher: choice.launcher.clone() })
}

fn first_version_line(words: &[String], host: &Host) -> Option<String> {
    let program: Utf8PathBuf = host.find_program(&words[0])?;
    let mut args: Vec<&str> = words[1..].iter().map(String::as_str).collect();
    args.push("--version");
    let output = process::capture(program.as_str(), &args, &host.child_env).ok()?;
    // GCC puts the name that it was called by first: two names of one compiler are one compiler.
    let line = output.lines().next()?.trim();
    Some(line.strip_prefix(words[0].rsplit('/').next()?).map_or(line, str::trim_start).to_owned())
}
