//! Resolves `--image-cache` and the options beside it.

use crate::catalog::project::{FILE, Project};
use crate::cli::args::Options;
use crate::cli::toolchain_choice;
use crate::host::Host;
use crate::image::push::check_prefix;
use crate::image::remote::ImageCaches;
use crate::image::signature::{PublicKey, RequiredSignature};
use crate::kernel::ToolchainSpec;
use crate::report::Reporter;
use crate::util::error::{Error, Result};

/// Returns the image caches of the command line, or else those of the project. A project's caches that cannot be
/// used are left out, with a note.
///
/// # Errors
///
/// Exit code 2: the options do not fit together, a name is wrong, or the key cannot be read.
pub(super) fn resolve(
    options: &Options,
    project: &Project,
    host: &Host,
    reporter: &Reporter,
) -> Result<Option<ImageCaches>> {
    let given = &options.compile.image_cache.image_cache;
    let (origin, names) = if given.is_empty() {
        ("image-cache", &project.defaults.image_cache)
    } else {
        ("--image-cache", given)
    };
    if names.is_empty() {
        return Ok(None);
    }
    let prefixes = names.iter().map(|name| prefix(name).map_err(|error| error.with_option(origin)));
    let prefixes = prefixes.collect::<Result<Vec<_>>>()?;
    let problem = match problem(options, project) {
        Some(problem) => problem,
        None => match signature(options, host)? {
            Some(signature) => return Ok(Some(ImageCaches { prefixes, signature })),
            None => Error::usage("nothing says which key must have signed the images").hint(
                "name the public key with --image-cache-key FILE or image_cache_key in your own config.toml, or accept \
                 images of everybody who can write to the registry with --image-cache-unsigned",
            ),
        },
    };
    if !given.is_empty() {
        return Err(problem.with_option(origin));
    }
    reporter.note(&format!("image-cache of {FILE} is not used: {problem}"));
    Ok(None)
}

/// Returns why no image cache can be used.
fn problem(options: &Options, project: &Project) -> Option<Error> {
    let source = &options.make.source;
    if source.offline {
        return Some(Error::usage("--offline is given").hint("remove one of the options"));
    }
    if source.require_signature {
        let problem =
            Error::usage("--require-signature is given, but the source is not fetched for images of others");
        return Some(problem.hint("remove one of the options"));
    }
    if toolchain_choice::find(&options.make, project).is_some_and(ToolchainSpec::has_all_tools) {
        return None;
    }
    Some(
        Error::usage(
            "tools of this host compile the kernel, and their versions are not enough to tell that another host's \
             tools would write the same image",
        )
        .hint("use an image with all tools: --toolchain oci:DIR[:TAG] or docker://REFERENCE"),
    )
}

fn signature(options: &Options, host: &Host) -> Result<Option<RequiredSignature>> {
    if options.compile.image_cache.image_cache_unsigned {
        return Ok(Some(RequiredSignature::None));
    }
    let given = options.compile.image_cache.image_cache_key.as_ref().map(|path| ("--image-cache-key", path));
    let own = host.user.image_cache_key.as_ref().map(|path| ("image_cache_key in config.toml", path));
    let Some((origin, path)) = given.or(own) else { return Ok(None) };
    let key = PublicKey::read(&host.absolute(path)).map_err(|error| error.with_option(origin))?;
    Ok(Some(RequiredSignature::Key(key)))
}

/// Returns the prefix of repositories in `docker://REGISTRY/PREFIX`.
fn prefix(name: &str) -> Result<String> {
    let Some(prefix) = name.strip_prefix("docker://") else {
        return Err(Error::usage(format!("`{}` is not a registry", name.escape_debug()))
            .hint("expected docker://REGISTRY/PREFIX, such as docker://ghcr.io/foobar"));
    };
    check_prefix(prefix)?;
    Ok(prefix.to_owned())
}
