//! `kcompile list`: prints the catalog as a table or as JSON.

use crate::catalog::ConfigLibrary;
use crate::catalog::kernels::{Catalog, Entry};
use crate::cli::args::FlavorArgs;
use crate::cli::output::{self, print, print_painted, render_items, render_json, width};
use crate::cli::paint;
use crate::cli::resolve::CatalogFiles;
use crate::host::Host;
use crate::kconfig::requirements::{self, Profile, RequirementStatus, SupportLevel};
use crate::kernel::{Arch, Flavor, KernelVersion, SourceSpec, Variant, VariantChoice, VersionRequest};
use crate::plan::{BaseConfig, ConfigSet, DEFAULT_BRANCH};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use crate::util::text::wrap;
use camino::Utf8PathBuf;
use clap::Args;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::process::ExitCode;

/// Headings and widths of the columns.
const COLUMNS: [(&str, usize); 8] = [
    ("VERSION", 8),
    ("ARCH", 5),
    ("STATUS", 9),
    ("SOURCE", 10),
    ("PIN", 3),
    ("CONFIG", 6),
    ("END OF LIFE", 11),
    ("KUBERNETES", 14),
];
/// The prefix of Kubernetes profiles. The newest one decides the column.
const KUBERNETES: &str = "kubernetes-";

const EXAMPLES: &str = "\
Examples:
  kcompile list                          all kernels of the catalog
  kcompile list 6.1 --fc                 the kernels of a series
  kcompile list --variant minimal        the kernels for sandboxes
  kcompile list --fragments              the fragments for --fragment
  kcompile list --json                   the catalog, for a script

Columns:
  STATUS       supported (built and booted) or untested
  SOURCE       kernel.org, or a branch of cloud-hypervisor/linux
  PIN          whether the catalog has the SHA-256 of the source
  CONFIG       the version or series whose config is used
  END OF LIFE  the last release of the series. `!` means that it is past
  KUBERNETES   what the version allows; numbers refer to notes below. Options
               are open until the kernel is configured (kcompile check)

--json prints the kernels of all variants as `items`, and `series` and `fragments`.

Exit codes: 0 ok, 2 usage error.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ListArgs {
    /// List only this version or series
    #[arg(value_name = "VERSION")]
    version: Option<VersionRequest>,
    #[command(flatten)]
    hypervisor: FlavorArgs,
    /// Variant: node, minimal or all
    ///
    /// The default is node.
    #[arg(long, value_name = "VARIANT")]
    variant: Option<VariantChoice>,
    /// List the config fragments for --fragment
    #[arg(long)]
    fragments: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Read your own catalog from DIR
    ///
    /// Its entries override the built-in ones.
    #[arg(long, value_name = "DIR")]
    configs: Option<Utf8PathBuf>,
}

pub fn list(args: &ListArgs, host: &Host) -> Result<ExitCode> {
    let CatalogFiles { library, mut catalog } = CatalogFiles::read(args.configs.as_deref(), host)?;
    if args.fragments {
        print(&if args.json { render_items(&fragments_json(&library)) } else { fragments(&library) })?;
        return Ok(ExitCode::SUCCESS);
    }
    keep_selected(args, &library, &mut catalog)?;
    let kubernetes = newest_kubernetes(&library)?;
    if args.json {
        print(&render_json(&json(&library, &catalog, kubernetes.as_ref())))?;
    } else {
        let variant = args.variant.or(library.project.defaults.variant);
        let variants = variant.unwrap_or(VariantChoice::One(Variant::Node)).variants();
        let details =
            Details { library: &library, catalog: &catalog, kubernetes: kubernetes.as_ref(), now: host.now };
        print_painted(&text(&variants, &details), paint::third_word)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes the kernels that are not asked for.
///
/// # Errors
///
/// Exit code 2: no kernel is left.
fn keep_selected(args: &ListArgs, library: &ConfigLibrary, catalog: &mut Catalog) -> Result<()> {
    let flavor =
        args.hypervisor.flavor().or(library.project.defaults.flavor.filter(|_| args.version.is_some()));
    // A version is listed with the entry of its series, and a series with the entries of its versions.
    let is_of = |entry: &Entry, version: VersionRequest| {
        version.admits(entry.request().floor()) || entry.request().admits(version.floor())
    };
    catalog.kernels.retain(|entry| {
        flavor.is_none_or(|flavor| entry.flavor == flavor)
            && args.version.is_none_or(|version| is_of(entry, version))
    });
    match args.version {
        Some(version) if catalog.kernels.is_empty() => {
            Err(Error::usage(format!("the catalog has no Linux {version}"))
                .hint("`kcompile list` lists all kernels"))
        }
        _ => Ok(()),
    }
}

/// Returns the requirement profile of the newest Kubernetes. A user's library may have none.
fn newest_kubernetes(library: &ConfigLibrary) -> Result<Option<Profile>> {
    let minor = |name: &String| name.rsplit('.').next().and_then(|minor| minor.parse::<u32>().ok());
    let of_version = requirements::names(library).into_iter().filter(|name| name.starts_with(KUBERNETES));
    of_version.max_by_key(minor).map(|name| requirements::read(library, &name)).transpose()
}

/// Formats the source as a value of `--source`.
fn source(entry: &Entry) -> String {
    match (&entry.source, &entry.flavor.spec().source) {
        (Some(source), _) => source.clone(),
        (None, source @ SourceSpec::Git { reference: None, .. }) => {
            format!("{source}#{DEFAULT_BRANCH}{}", entry.request())
        }
        (None, source) => source.to_string(),
    }
}

fn json(library: &ConfigLibrary, catalog: &Catalog, kubernetes: Option<&Profile>) -> Value {
    let kernel = |entry: &Entry| {
        let version = entry.request().floor();
        let configs = |variant: Variant| {
            let config = |arch: &Arch| {
                let base = base_config(library, entry, *arch, variant);
                (arch.to_string(), base.map_or(Value::Null, |base| base.name().into()))
            };
            entry.arch.iter().map(config).collect::<serde_json::Map<_, _>>()
        };
        let kubernetes = kubernetes.map(|profile| {
            let (fitness, unmet) = requirements::support(profile, version);
            let reasons = unmet.iter().map(|rule| {
                json!({ "wanted": rule.version, "level": rule.level, "reason": rule.reason, "source": rule.source })
            });
            json!({
                "profile": profile.name,
                "verdict": fitness,
                "reasons": reasons.collect::<Vec<_>>(),
                "options": RequirementStatus::Undecided,
            })
        });
        json!({
            "version": entry.version,
            "flavor": entry.flavor,
            "arch": entry.arch,
            "status": entry.status,
            "source": source(entry),
            "supported_source": entry.supported_source,
            "sha256": entry.sha256.map(Sha256::oci),
            "configs": configs(Variant::Node),
            "minimal": { "status": entry.minimal, "configs": configs(Variant::Minimal) },
            "end_of_life": catalog.end_of_life(version),
            "kubernetes": kubernetes,
            "note": entry.note,
        })
    };
    json!({
        "revision": library.revision().oci(),
        "items": catalog.kernels.iter().map(kernel).collect::<Vec<_>>(),
        "series": catalog.series,
        "fragments": fragments_json(library),
    })
}

fn fragments_json(library: &ConfigLibrary) -> Vec<Value> {
    library.fragments().map(|(name, what)| json!({ "name": name, "description": what })).collect()
}

fn text(variants: &[Variant], details: &Details<'_>) -> String {
    let mut text = String::new();
    for &flavor in Flavor::ALL {
        for &variant in variants {
            text.push_str(&table(flavor, variant, details));
        }
    }
    if let Some(profile) = details.kubernetes.filter(|_| variants.contains(&Variant::Node)) {
        let what = format!(
            "KUBERNETES by the rules of profile {0} about kernel versions: \"full\" meets all of them, \"limited\" does \
             not meet a recommendation, \"below\" does not meet a requirement (*). Its options are open: the \
             version's Kconfig may drop any of them. `kcompile check VERSION --configure --for {0}` checks them",
            profile.name
        );
        text.push_str(&indented(&what, 0));
        for (index, rule) in profile.kernel.iter().enumerate() {
            let required = if rule.level == requirements::Level::Recommended { "" } else { "*" };
            let reason = format!("{} ({})", rule.reason, rule.version);
            let lines = indented(&reason, 5);
            let number = format!("{:>3}{required:1}", index + 1);
            text.push_str(&lines.replacen("    ", &number, 1));
        }
        text.push('\n');
    }
    text.push_str(&indented("! the series has ended, so kernel.org fixes no more bugs in it.", 0));
    if variants == [Variant::Node] {
        text.push_str(&indented("`kcompile list --variant minimal` lists the kernels for sandboxes.", 0));
    }
    text.push_str(&indented("`kcompile list --fragments` lists the config fragments.", 0));
    text
}

/// Formats the kernels of a flavor and variant, the newest first.
fn table(flavor: Flavor, variant: Variant, details: &Details<'_>) -> String {
    let kernels = details.catalog.kernels.iter();
    let mut of_flavor: Vec<&Entry> = kernels.filter(|entry| entry.flavor == flavor).collect();
    if of_flavor.is_empty() {
        return String::new();
    }
    let (title, flag) = (flavor.spec().title, flavor.spec().flag);
    let mut text = match variant {
        Variant::Node => format!("{title} (--{flag})\n"),
        Variant::Minimal => format!("{title}, {variant} (--{flag} --variant {variant})\n"),
    };
    text.push_str(&row(&COLUMNS.map(|(heading, _)| heading.to_owned())));
    of_flavor.sort_by_key(|entry| Reverse(entry.request().floor()));
    for entry in of_flavor {
        for arch in &entry.arch {
            text.push_str(&row(&cells(entry, *arch, variant, details)));
        }
        // A note is about the kernel of a node.
        let note = entry.note.as_deref().filter(|_| variant == Variant::Node);
        text.push_str(&indented(note.unwrap_or_default(), COLUMNS[0].1 + 2));
    }
    text + "\n"
}

fn base_config<'a>(
    library: &'a ConfigLibrary,
    entry: &Entry,
    arch: Arch,
    variant: Variant,
) -> Option<BaseConfig<'a>> {
    BaseConfig::of(library, ConfigSet { flavor: entry.flavor, arch, variant }, entry.request().floor())
}

/// Formats each fragment with its description.
fn fragments(library: &ConfigLibrary) -> String {
    let fragment =
        |(name, what): (&str, &str)| indented(what, 14).replacen(&" ".repeat(12), &format!("  {name:10}"), 1);
    library.fragments().map(fragment).collect()
}

/// Where the cells of the table come from.
struct Details<'a> {
    library: &'a ConfigLibrary,
    catalog: &'a Catalog,
    kubernetes: Option<&'a Profile>,
    /// In seconds since 1970.
    now: u64,
}

fn cells(entry: &Entry, arch: Arch, variant: Variant, details: &Details<'_>) -> [String; 8] {
    let Details { library, catalog, now, .. } = *details;
    let kubernetes = details.kubernetes.filter(|_| variant == Variant::Node);
    let version = entry.request().floor();
    let config = base_config(library, entry, arch, variant).map(|base| base.version.in_catalog());
    let source = source(entry);
    // The pin is the digest of kernel.org's tarball.
    let pinned = entry.sha256.is_some() && source == "kernel.org";
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    [
        entry.version.clone(),
        arch.to_string(),
        entry.status_of(variant).name().to_owned(),
        source.strip_prefix("git#").unwrap_or(&source).to_owned(),
        if pinned { "yes" } else { "-" }.to_owned(),
        or_dash(config),
        or_dash(catalog.end_of_life(version).map(|end| {
            if catalog.end_date(version, now).is_some() { format!("{end}!") } else { end.to_owned() }
        })),
        or_dash(kubernetes.map(|profile| support(profile, version))),
    ]
}

/// Formats the support by `version`, such as `limited 1,8-9`, with the numbers of the profile's rules.
fn support(profile: &Profile, version: KernelVersion) -> String {
    let (level, unmet) = requirements::support(profile, version);
    let word = match level {
        SupportLevel::Full => "full",
        SupportLevel::Limited => "limited",
        SupportLevel::BelowMinimum => "below",
    };
    let numbers = (1..).zip(&profile.kernel).filter(|(_, rule)| unmet.contains(rule));
    let numbers: Vec<usize> = numbers.map(|(number, _)| number).collect();
    format!("{word} {}", ranges(&numbers)).trim_end().to_owned()
}

/// Formats 1, 3, 4, 5 as `1,3-5`.
fn ranges(numbers: &[usize]) -> String {
    let range = |run: &[usize]| match run {
        [only] => only.to_string(),
        run => format!("{}-{}", run[0], run[run.len() - 1]),
    };
    numbers.chunk_by(|one, next| one + 1 == *next).map(range).collect::<Vec<_>>().join(",")
}

/// Formats a row of the table. Cells that are too wide are truncated.
fn row(cells: &[String; 8]) -> String {
    let widths = COLUMNS.map(|(_, width)| width);
    let fitted: [String; 8] = std::array::from_fn(|column| truncate(&cells[column], widths[column]));
    output::row(fitted.each_ref().map(String::as_str), widths)
}

fn truncate(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let start: String = text.chars().take(width - 1).collect();
    format!("{start}…")
}

/// Wraps `text` to lines that begin with `indent` spaces.
fn indented(text: &str, indent: usize) -> String {
    let lines = wrap(text, width() - indent).into_iter();
    lines.map(|line| format!("{}{line}\n", " ".repeat(indent))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fit_whatever_is_in_them() {
        let wide = row(&std::array::from_fn(|_| "a text that is too wide for any column".to_owned()));
        assert_eq!(wide.trim_end().chars().count(), width(), "{wide}");
        let note = indented(&"words ".repeat(30), 10);
        assert!(note.lines().count() > 1 && note.lines().all(|line| line.len() <= width()), "{note}");
    }

    #[test]
    fn runs_of_numbers_are_short() {
        assert_eq!(ranges(&[1, 3, 4, 5, 9]), "1,3-5,9");
        assert_eq!(ranges(&[]), "");
    }
}
