//! What an image says of the kernel in it: its flavor and its config.

use crate::kernel::Flavor;
use crate::kernel::binary::ikconfig;
use crate::oci::layer_entries::{Found, FoundKind};
use crate::oci::read::Image;
use crate::plan::annotations;
use crate::util::error::{Context, Error, Kind, Result};
use std::io::Read;

/// A kernel's `.config` has about 150 kB.
const LARGEST_CONFIG: u64 = 16 << 20;

/// The flavor: as the image says, else by its title or the layout's name, which begin with it.
pub fn flavor(image: &Image) -> Option<Flavor> {
    if let Some(flavor) = image.own_annotation(annotations::FLAVOR).and_then(|name| name.parse().ok()) {
        return Some(flavor);
    }
    let names = [image.annotation("title"), image.layout.file_name()];
    let is_of = |name: &str, flavor: Flavor| {
        name.starts_with(&format!("{}-kernel", flavor.spec().image_prefix))
            || name.starts_with(flavor.spec().legacy_image)
    };
    let mut names = names.into_iter().flatten();
    names.find_map(|name| Flavor::ALL.iter().copied().find(|&flavor| is_of(name, flavor)))
}

/// The final `.config` of the kernel: `config` beside the modules, or `boot/config-<VERSION>` of
/// a combined image; else the one inside the kernel file (CONFIG_IKCONFIG). `None`: there is none.
pub fn kernel_config(image: &Image) -> Result<Option<String>> {
    let (mut beside, mut inside) = (None, None);
    image.visit(|found, reader| {
        let wrong = || format!("{}: {}", image.layout, found.path);
        match &found.kind {
            FoundKind::File if is_kernel_config(&found.path) => {
                let text = read_config(found, reader, wrong)?;
                if beside.as_ref().is_some_and(|earlier| *earlier != text) {
                    return Err(Error::fetch(format!("{}: a second config, other than the first", wrong())));
                }
                beside = Some(text);
            }
            FoundKind::File if found.path.starts_with("bin/") || found.path.starts_with("boot/") => {
                let text = ikconfig::embedded(reader).context(Kind::Fetch, wrong)?;
                inside = inside.take().or(text);
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(beside.or(inside))
}

/// The text of a config in an image.
pub(crate) fn read_config(
    found: &Found,
    reader: &mut dyn Read,
    wrong: impl Fn() -> String,
) -> Result<String> {
    if found.size > LARGEST_CONFIG {
        return Err(Error::fetch(format!("{}: {} bytes are too many for a config", wrong(), found.size)));
    }
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).context(Kind::Fetch, &wrong)?;
    String::from_utf8(bytes).context(Kind::Fetch, wrong)
}

/// Is it a path at which images have the config of their kernel?
pub(crate) fn is_kernel_config(path: &str) -> bool {
    match path.split('/').collect::<Vec<_>>()[..] {
        ["config"] | ["lib", "modules", _, "config"] => true,
        ["boot", name] => name.starts_with("config-"),
        _ => false,
    }
}
