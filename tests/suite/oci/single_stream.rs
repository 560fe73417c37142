//! A layer is one gzip member or one zstd frame, so readers that stop after the first one read all
//! of it.

use crate::support::context::{TestContext, sha256};
use async_compression::futures::bufread::{GzipDecoder, ZstdDecoder};
use camino::Utf8Path;
use futures_io::AsyncRead;
use serde_json::Value;
use std::fs;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

const SIZE: usize = 5 << 19;

/// Adds bytes that compress to about a half to the kernel file and to a module.
fn grow(tree: &Utf8Path) {
    let mut state = 1_u32;
    let digit = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"0123456789abcdef"[(state >> 28) as usize]
    };
    let bytes: Vec<u8> = std::iter::repeat_with(digit).take(SIZE).collect();
    let blob = tree.join("blob");
    fs::write(&blob, bytes).unwrap();
    for source in ["init/main.c", "drivers/net/dummy.c"] {
        let path = tree.join(source);
        let text = fs::read_to_string(&path).unwrap();
        let asm = format!(r#"asm(".pushsection .rodata, \"a\"\n.incbin \"{blob}\"\n.popsection\n");"#);
        fs::write(&path, format!("{text}\n{asm}\n")).unwrap();
    }
}

/// Returns everything from an asynchronous reader. Readers of memory are always ready.
fn read_async(mut reader: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut context = Context::from_waker(Waker::noop());
    let (mut all, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match Pin::new(&mut reader).poll_read(&mut context, &mut buffer) {
            Poll::Ready(Ok(0)) => return Ok(all),
            Poll::Ready(read) => all.extend_from_slice(&buffer[..read?]),
            Poll::Pending => panic!("a reader over memory waits"),
        }
    }
}

/// Returns the layer of the only image in a layout, and the digest of its tar.
fn layer(layout: &Utf8Path) -> (Vec<u8>, String) {
    let read = |digest: &Value| {
        fs::read(layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"))).unwrap()
    };
    let json = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
    let index = json(fs::read(layout.join("index.json")).unwrap());
    let manifest = json(read(&index["manifests"][0]["digest"]));
    let config = json(read(&manifest["config"]["digest"]));
    let diff_id = config["rootfs"]["diff_ids"][0].as_str().unwrap().to_owned();
    (read(&manifest["layers"][0]["digest"]), diff_id)
}

#[track_caller]
fn check(reader: &str, layout: &str, plain: &[u8], diff_id: &str) {
    assert!(plain.len() > SIZE, "{reader} reads {} bytes of {layout}", plain.len());
    assert_eq!(format!("sha256:{}", sha256(plain)), diff_id, "{reader}: {layout}");
}

#[test]
fn single_stream_readers_read_the_whole_layer() {
    let context = TestContext::new();
    grow(&context.tree("6.1.7", "work/linux"));
    for compression in ["gzip", "zstd"] {
        context.build(&format!("--compression {compression} -o {compression}")).ok();
        for name in ["firecracker-kernel-bin-amd64", "firecracker-kernel-modules-amd64"] {
            let (packed, diff_id) = layer(&context.path("work").join(compression).join(name));
            if compression == "gzip" {
                let mut decoder = flate2::bufread::GzDecoder::new(&packed[..]);
                let mut plain = Vec::new();
                decoder.read_to_end(&mut plain).unwrap();
                check("flate2", name, &plain, &diff_id);
                assert!(decoder.into_inner().is_empty(), "{name}: something follows the member");
                let plain = read_async(GzipDecoder::new(&packed[..])).unwrap();
                check("async-compression, gzip", name, &plain, &diff_id);
            } else {
                let plain = read_async(ZstdDecoder::new(&packed[..])).unwrap();
                check("async-compression, zstd", name, &plain, &diff_id);
                let mut decoder = zstd::Decoder::with_buffer(&packed[..]).unwrap().single_frame();
                let mut plain = Vec::new();
                decoder.read_to_end(&mut plain).unwrap();
                check("zstd", name, &plain, &diff_id);
                assert!(decoder.finish().is_empty(), "{name}: something follows the frame");
            }
        }
    }
}
