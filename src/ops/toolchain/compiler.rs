//! Unpacks the compilers of kernel.org into the cache, once for each archive.

use super::Toolchain;
use super::entry::{self, ROOT, check, entry_of, lock_name};
use crate::cache::Cache;
use crate::catalog::lockfile::Locked;
use crate::host::{CompilerDir, Host};
use crate::kernel::{Arch, KernelOrgCompiler, SourceDigest};
use crate::plan::KERNEL_ORG;
use crate::report::Reporter;
use crate::source::{self, FetchContext, PrebuiltArchive};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::text::file_name;
use camino::Utf8PathBuf;
use std::fs;

/// Returns the compiler for `arch`. Does not ask the network if the cache has the pinned archive.
///
/// # Errors
///
/// Exit code 3: it cannot be fetched or verified, or is not in the archive.
pub(super) fn open(
    compiler: &KernelOrgCompiler,
    arch: Arch,
    toolchain: &Toolchain<'_>,
    cache: &Cache,
    host: &Host,
    reporter: &Reporter,
) -> Result<CompilerDir> {
    let archive = compiler.archive(host.own_arch()?, arch);
    let (entry, sha256) = open_archive(&archive, toolchain, cache, host, reporter)?;
    let path = entry.join(ROOT);
    let bin = path.join(compiler.bin_dir(arch));
    if !bin.is_dir() {
        let (name, bin) = (file_name(&archive), compiler.bin_dir(arch));
        return Err(Error::fetch(format!("{name} has no directory {bin} below its top directory")));
    }
    entry::record_use(&entry, &toolchain.spec.to_string());
    let prefix = compiler.prefix(arch);
    Ok(CompilerDir { name: toolchain.spec.to_string(), arch, sha256, path, bin, prefix })
}

/// Returns the entry of an archive of kernel.org, and its digest.
fn open_archive(
    archive: &str,
    toolchain: &Toolchain<'_>,
    cache: &Cache,
    host: &Host,
    reporter: &Reporter,
) -> Result<(Utf8PathBuf, Sha256)> {
    let origin = format!("{KERNEL_ORG}/{archive}");
    // Others wait while one run downloads the archive.
    let _fetching = cache.lock(&format!("compiler-{}", Sha256::of(&origin).short()), reporter)?;
    let locked = toolchain.locked(&origin)?;
    if let Some(sha256) =
        locked.as_ref().filter(|locked| !locked.unverified).and_then(|locked| locked.digest.sha256())
    {
        let entry = entry_of(cache, sha256);
        let _lock = cache.lock(&lock_name(&entry), reporter)?;
        if check(&entry, cache, reporter)? {
            return Ok((entry, sha256));
        }
    }
    toolchain.check_online()?;
    let scratch = cache.scratch()?;
    let unpacked = scratch.path.join("toolchain");
    fs::create_dir(&unpacked).context(Kind::Build, || format!("cannot write {unpacked}"))?;
    let prebuilt = PrebuiltArchive { path: archive, mirrors: toolchain.mirrors, locked: locked.as_ref() };
    let ctx = FetchContext {
        cache,
        host,
        reporter,
        offline: false,
        stall: toolchain.stall,
        jobs: toolchain.jobs,
        catalog: toolchain.catalog,
        lock: &toolchain.lock()?,
        keyring: &toolchain.keyring,
        require_signature: true,
        keep_archive: false,
        is_unverifiable: false,
        location: None,
    };
    let sha256 = source::fetch_prebuilt(&prebuilt, &unpacked.join(ROOT), &ctx)?;
    entry::finish(&unpacked)?;
    let entry = entry_of(cache, sha256);
    let _lock = cache.lock(&lock_name(&entry), reporter)?;
    if !check(&entry, cache, reporter)? {
        fs::rename(&unpacked, &entry).context(Kind::Build, || format!("cannot write {entry}"))?;
    }
    toolchain.pin(origin, Locked { digest: SourceDigest::Sha256(sha256), unverified: false })?;
    Ok((entry, sha256))
}
