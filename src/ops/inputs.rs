//! The inputs of a plan outside of the command line: the user's files, apt's package lists, the local source
//! and the host's compiler. All of them are read without a network.

use super::{compiler_identity, named_files};
use crate::cache::memo::{self, MemoEntry};
use crate::catalog::kernels::Catalog;
use crate::catalog::lockfile::LockFile;
use crate::catalog::text;
use crate::catalog::tool_versions::Tools;
use crate::catalog::toolchain_quirks;
use crate::catalog::{ConfigLibrary, patches};
use crate::host::Host;
use crate::host::process::Interruptible;
use crate::kernel::{SOURCE_FORMS, SourceSpec, source_package};
use crate::plan::request::{Override, Request};
use crate::plan::{Inputs, LocalSource, PinnedCompiler, Text, Toolchain};
use crate::source;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::file_stamp::{self, FileStamp};
use crate::util::fs::digest_file;
use crate::util::read::{Links, open_file};
use crate::util::text::nearest;
use crate::util::threads;
use camino::Utf8Path;
use std::collections::BTreeMap;

/// Memoizing the digest of a smaller program saves no time.
const MIN_MEMOIZED: u64 = 1 << 20;

/// The limit of a config and its overrides. Each setting takes about 100 bytes of memory.
const MAX_SETTINGS: usize = 8 << 20;

/// Reads the inputs of `request`, and changes nothing. Runs the toolchain with `--version` and, for a
/// package, `apt-cache show`. Uses memoized results in `cache_dir`.
pub fn read(
    request: &Request,
    host: &Host,
    library: &ConfigLibrary,
    catalog: &Catalog,
    lock: LockFile,
    cache_dir: &Utf8Path,
) -> Result<Inputs> {
    let config = request.config.as_deref().map(|path| read_config("--config", path)).transpose()?;
    let mut left = MAX_SETTINGS - config.as_ref().map_or(0, |config| config.text.len());
    let mut overrides = Vec::new();
    for over in &request.overrides {
        let text = read_override(over, host, library)?;
        left = left.checked_sub(text.text.len()).ok_or_else(|| {
            let limit = MAX_SETTINGS >> 20;
            Error::usage(format!("{}: config and overrides are larger than {limit} MiB", text.name))
        })?;
        overrides.push(text);
    }
    let mut memo_entries = Vec::new();
    let mut memo = MemoLookup { cache_dir, memo_entries: &mut memo_entries };
    let (toolchain, ldd) = identify_toolchain(request, host, &mut memo)?;
    let local = inspect_source(request, host, &mut memo)?;
    Ok(Inputs {
        library: library.clone(),
        catalog: catalog.clone(),
        config,
        overrides,
        patches: request.patches.as_deref().map(patches::read_dir).transpose()?.unwrap_or_default(),
        lock,
        local,
        tools: Tools::new(&toolchain.identity, ldd.as_deref()),
        toolchain,
        rules: toolchain_quirks::read(library)?,
        memo_entries,
    })
}

/// Reads the config or fragment that `option` names.
fn read_config(option: &str, path: &Utf8Path) -> Result<Text> {
    let text = text::read_config(path).map_err(|error| {
        let error = error.with_option(option);
        if path.exists() { error } else { error.hint("give the path of a .config, or leave out the option") }
    })?;
    Ok(Text { name: path.to_string(), text })
}

fn read_override(over: &Override, host: &Host, library: &ConfigLibrary) -> Result<Text> {
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
        let hint = match nearest(fragment, library.fragments().map(|(name, _)| name)) {
            Some(name) => format!("did you mean --fragment {name}?"),
            None => "`kcompile list --fragments` lists them; give a file by its path".to_owned(),
        };
        return Err(Error::usage(format!(
            "--fragment {fragment}: not a fragment of the catalog, and not a file"
        ))
        .hint(hint));
    }
    read_config("--fragment", &path)
}

/// Memoized results of slow lookups.
struct MemoLookup<'a> {
    /// The cache with earlier results.
    cache_dir: &'a Utf8Path,
    /// New results.
    memo_entries: &'a mut Vec<MemoEntry>,
}

/// A lookup whose result depends only on `inputs`.
struct Lookup {
    key: String,
    inputs: String,
    /// Whether the result may be of an older state than `inputs`. Then it is not memoized.
    is_racy: bool,
}

impl MemoLookup<'_> {
    /// Returns the memoized result, or else that of `find`.
    fn lookup(
        &mut self,
        Lookup { key, inputs, is_racy }: Lookup,
        find: impl FnOnce() -> Result<Option<String>>,
    ) -> Result<Option<String>> {
        if let Some(value) = memo::get(self.cache_dir, &key, &inputs) {
            return Ok(Some(value));
        }
        let value = find()?;
        if let Some(value) = value.clone().filter(|_| !is_racy) {
            self.memo_entries.push(MemoEntry { key, inputs, value });
        }
        Ok(value)
    }
}

fn inspect_source(request: &Request, host: &Host, memo: &mut MemoLookup<'_>) -> Result<Option<LocalSource>> {
    match &request.source {
        SourceSpec::Path(path) if path.is_dir() => {
            let version = source::tree_version(path).map_err(|error| error.with_option("--source"))?;
            source::reject_inside_source(path, memo.cache_dir, "the cache directory", "--cache-dir")?;
            Ok(Some(LocalSource::Directory { version }))
        }
        SourceSpec::Path(path) if path.is_file() => {
            let sha256 = hash_file(path, memo).map_err(|error| error.with_option("--source"))?;
            Ok(Some(LocalSource::Tarball { sha256 }))
        }
        SourceSpec::Path(path) => Err(Error::usage(format!("--source {path}: no such file or directory"))
            .hint(format!("give {SOURCE_FORMS}"))),
        SourceSpec::Apt { package } => {
            let package = package.clone().unwrap_or_else(|| source_package(request.version));
            let Some((inputs, is_racy)) = source::apt_state() else { return Ok(None) };
            let lookup = Lookup { key: format!("apt's candidate of {package}"), inputs, is_racy };
            let candidate = memo.lookup(lookup, || source::apt_candidate(&package, host))?;
            Ok(candidate.and_then(|candidate| {
                let (version, sha256) = candidate.split_once(' ')?;
                Some(LocalSource::Package { version: version.to_owned(), sha256: sha256.parse().ok() })
            }))
        }
        SourceSpec::KernelOrg | SourceSpec::Git { .. } => Ok(None),
    }
}

/// Returns the digest of a file, which is memoized by its stamp.
fn hash_file(path: &Utf8Path, memo: &mut MemoLookup<'_>) -> Result<Sha256> {
    let message = || format!("cannot read {path}");
    let file = open_file(path, Links::Follow).context(Kind::Usage, message)?;
    let metadata = file.metadata().context(Kind::Usage, message)?;
    if metadata.len() > named_files::MAX_FILE {
        return Err(Error::usage(format!("{path}: larger than {} GiB", named_files::MAX_FILE >> 30)));
    }
    let stamp = FileStamp::of(&metadata);
    let lookup = Lookup {
        key: format!("sha256 of {path}"),
        inputs: serde_json::to_string(&stamp).expect("plain numbers"),
        is_racy: stamp.is_racy(file_stamp::now()),
    };
    let mut found = None;
    let recorded = memo.lookup(lookup, || {
        let sha256 = Sha256::of_reader(Interruptible(file)).context(Kind::Usage, message)?;
        found = Some(sha256);
        Ok(Some(sha256.to_string()))
    })?;
    let memoized = recorded.and_then(|recorded| recorded.parse().ok());
    found.or(memoized).ok_or_else(|| Error::usage(message()))
}

/// Returns the make variables that choose the compiler with the versions of the tools, and the version that
/// `ldd` prints for the C library.
fn identify_toolchain(
    request: &Request,
    host: &Host,
    memo: &mut MemoLookup<'_>,
) -> Result<(Toolchain, Option<String>)> {
    let choice = &request.toolchain;
    let mut variables = BTreeMap::new();
    let pinned = host.compiler_for(request.arch);
    let prefix = pinned.map(|compiler| compiler.prefix.clone());
    let cross = prefix.or_else(|| choice.cross_compile.clone()).or_else(|| {
        let foreign = host.arch.is_some_and(|arch| arch != request.arch);
        (foreign && !choice.llvm).then(|| format!("{}-", request.arch.spec().triple))
    });
    let prefix = cross.unwrap_or_default();
    let (default_cc, ld) = if choice.llvm {
        ("clang".to_owned(), "ld.lld".to_owned())
    } else {
        (format!("{prefix}gcc"), format!("{prefix}ld"))
    };
    let cc = choice.cc.clone().unwrap_or(default_cc);
    // The compilers of kernel.org have no C library, so they cannot compile programs for this host.
    let host_cc = if pinned.is_some() {
        "gcc"
    } else if choice.llvm {
        "clang"
    } else if host.arch == Some(request.arch) && prefix.is_empty() {
        &cc
    } else {
        "gcc"
    };
    if choice.llvm {
        variables.insert("LLVM".to_owned(), "1".to_owned());
    }
    // Always set, since the top Makefile of some vendors' trees sets a prefix.
    variables.insert("CROSS_COMPILE".to_owned(), prefix.clone());
    variables.insert("CC".into(), cc.clone());
    variables.insert("HOSTCC".into(), host_cc.to_owned());

    let mut tools =
        vec![("cc", cc.as_str()), ("hostcc", host_cc), ("ld", &ld), ("make", "make"), ("ldd", "ldd")];
    tools.extend(compiler_identity::OTHER_TOOLS.map(|tool| (tool, tool)));
    let versions = tool_versions(tools.iter().map(|(_, command)| *command), host)?;
    let mut identity: BTreeMap<String, String> = tools
        .iter()
        .filter_map(|(tool, command)| Some(((*tool).to_owned(), versions.get(command)?.clone()?)))
        .collect();
    let ldd = identity.remove("ldd");
    let mut commands = compiler_identity::compiler_commands(choice, &cc, host_cc, &ld, &prefix);
    // The rustc of rustup prints no version here, and is not used.
    commands.extend(
        compiler_identity::OTHER_TOOLS
            .map(String::from)
            .into_iter()
            .filter_map(|tool| identity.contains_key(&tool).then(|| (tool.clone(), tool))),
    );
    let root = host.tool_root.as_ref().map(|root| root.digest);
    let programs = if root.is_some() {
        BTreeMap::new()
    } else {
        compiler_identity::digest_programs(&commands, host, |file| match file.metadata() {
            Ok(metadata) if metadata.len() >= MIN_MEMOIZED => hash_file(file, memo),
            _ => digest_file(file, Links::Follow),
        })?
    };
    let compiler =
        pinned.map(|compiler| PinnedCompiler { name: compiler.name.clone(), sha256: compiler.sha256 });
    let launcher = choice.launcher.clone();
    Ok((Toolchain { root, compiler, variables, identity, programs, launcher }, ldd))
}

/// Returns the version that each command prints. All commands run in parallel.
fn tool_versions<'a>(
    commands: impl Iterator<Item = &'a str>,
    host: &Host,
) -> Result<BTreeMap<&'a str, Option<String>>> {
    let mut argvs: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for command in commands {
        let argv = shlex::split(command).filter(|argv| !argv.is_empty());
        let argv = argv.ok_or_else(|| Error::usage(format!("--cc `{command}`: not a command")))?;
        argvs.insert(command, argv);
    }
    std::thread::scope(|scope| {
        let looking = argvs.iter().map(|(command, argv)| {
            Ok((*command, threads::spawn_scoped(scope, move || first_version_line(argv, host))?))
        });
        let looking = looking.collect::<Result<Vec<_>>>()?;
        let found = looking.into_iter().map(|(command, thread)| {
            Ok((command, thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?))
        });
        found.collect()
    })
}

fn first_version_line(argv: &[String], host: &Host) -> Result<Option<String>> {
    let Some(program) = host.find_tool(&argv[0]) else { return Ok(None) };
    let mut args: Vec<&str> = argv[1..].iter().map(String::as_str).collect();
    args.push("--version");
    let output = host.capture_tool(program.as_str(), &args)?.unwrap_or_default();
    let Some(line) = output.lines().next().map(str::trim) else { return Ok(None) };
    // GCC prints the name that it was called by first, which does not matter. A wrapper may print its path,
    // which must not get into images.
    let names = [program.as_str(), argv[0].as_str(), argv[0].rsplit('/').next().unwrap_or_default()];
    let rest = names.into_iter().find_map(|name| line.strip_prefix(name));
    Ok(Some(rest.map_or(line, str::trim_start).to_owned()))
}
