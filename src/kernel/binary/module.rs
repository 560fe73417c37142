//! The metadata of a kernel module.

use super::Format;
use super::scan::Finder;
use std::io::{self, BufReader, Read};

/// A module with debug information has a few hundred kilobytes, and a large driver some megabytes.
pub const MAX_MODULE: u64 = 512 << 20;
/// `vermagic` has the release of the kernel and a few words.
const MAX_VERMAGIC: usize = 256;
/// The end of a module that `scripts/sign-file` has signed.
pub(super) const SIGNED: &[u8] = b"~Module signature appended~\n";
/// The memory that decompressing an .xz file may take.
const XZ_MEMORY: u64 = 64 << 20;

/// The metadata of a module.
#[derive(Clone, Debug)]
pub struct Module {
    pub format: Format,
    /// The kernel that it was built for, such as `6.1.7 SMP mod_unload`.
    pub vermagic: Option<String>,
    /// Whether it ends in a signature.
    pub is_signed: bool,
    pub uncompressed_size: u64,
}

/// Returns the ending of a module's name that tells its compression, or `None` if the name is not a module's.
pub fn compression(path: &str) -> Option<&str> {
    let (_, end) = path.rsplit_once(".ko")?;
    matches!(end, "" | ".gz" | ".xz" | ".zst").then_some(end)
}

/// Decompresses a module if its name says that it is compressed (CONFIG_MODULE_COMPRESS). The number of bytes
/// has no limit. The caller must stop at [`MAX_MODULE`].
pub fn decompressed<'a>(path: &str, stored: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match compression(path) {
        Some(".gz") => Box::new(flate2::read::MultiGzDecoder::new(stored)),
        Some(".zst") => Box::new(zstd::stream::read::Decoder::new(stored)?),
        Some(".xz") => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(BufReader::new(stored), stream))
        }
        _ => Box::new(stored),
    })
}

impl Module {
    /// Reads the module of this name.
    ///
    /// # Errors
    ///
    /// Reading fails, or the module is not compressed as its name says, or it has more
    /// than 512 MiB when decompressed.
    pub fn read(path: &str, reader: impl Read) -> io::Result<Module> {
        examine(decompressed(path, reader)?)
    }

    /// Returns the release of the kernel, which is the first word of `vermagic`.
    pub fn release(&self) -> Option<&str> {
        self.vermagic.as_deref()?.split(' ').next()
    }
}

fn examine(module: impl Read) -> io::Result<Module> {
    let mut module = module.take(MAX_MODULE + 1);
    let mut vermagic = Finder::new(b"\0vermagic=", |_| true, MAX_VERMAGIC);
    let mut head = Vec::new();
    let mut tail = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let read = module.read(&mut chunk)?;
        let bytes = &chunk[..read];
        if read == 0 {
            break;
        }
        head.extend(bytes.iter().take(1024 - head.len().min(1024)));
        vermagic.feed(bytes);
        tail.extend_from_slice(&bytes[bytes.len().saturating_sub(SIGNED.len())..]);
        tail.drain(..tail.len().saturating_sub(SIGNED.len()));
    }
    if module.limit() == 0 {
        return Err(io::Error::other(format!("the module has more than {MAX_MODULE} bytes")));
    }
    let vermagic = vermagic.finish().map(|text| String::from_utf8_lossy(&text).trim_end().to_owned());
    let uncompressed_size = MAX_MODULE + 1 - module.limit();
    Ok(Module { format: Format::of(&head), vermagic, is_signed: tail == SIGNED, uncompressed_size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const MODULE: &[u8] =
        b"\x7fELF\x02\x01\0\0\0\0\0\0\0\0\0\0\x01\0\x3e\0license=GPL\0vermagic=6.1.7 SMP mod_unload \0end";

    #[test]
    fn a_module_is_read_however_it_is_compressed() {
        let gzip = || {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(MODULE).unwrap();
            gzip.finish().unwrap()
        };
        let xz = || {
            let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
            xz.write_all(MODULE).unwrap();
            xz.finish().unwrap()
        };
        for (name, bytes) in [
            ("a.ko", MODULE.to_vec()),
            ("a.ko.gz", gzip()),
            ("a.ko.xz", xz()),
            ("a.ko.zst", zstd::encode_all(MODULE, 1).unwrap()),
        ] {
            let module = Module::read(name, &bytes[..]).unwrap();
            assert_eq!(module.format, Format::Elf { machine: 62 }, "{name}");
            assert_eq!(module.vermagic.as_deref(), Some("6.1.7 SMP mod_unload"));
            assert_eq!((module.release(), module.is_signed), (Some("6.1.7"), false));
            assert_eq!(module.uncompressed_size, MODULE.len() as u64);
        }
        assert!(Module::read("a.ko.zst", MODULE).is_err());
        assert!(Module::read("a.ko", &[MODULE, SIGNED].concat()[..]).unwrap().is_signed);
    }

    #[test]
    fn modules_are_known_by_their_names() {
        assert_eq!(compression("kernel/net/a.ko"), Some(""));
        assert_eq!(compression("a.ko.xz"), Some(".xz"));
        assert_eq!((compression("a.kobject"), compression("modules.dep")), (None, None));
    }
}
