//! Reads arbitrary bytes as a receipt.
#![no_main]

use camino::Utf8Path;
use kcompile::internals::ReceiptFile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("it is writable");
    if let Ok(Some(receipt)) = ReceiptFile::read(Utf8Path::from_path(file.path()).expect("UTF-8")) {
        receipt.tools();
    }
});
