//! Damaged files: an error or a valid value, never a panic and never an allocation out of proportion.

use cerium_models::import::{onnx, safetensors};
use cerium_models::picture::Picture;
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, remembering the largest single request.
struct Watching;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every method passes its arguments unchanged to the system's allocator, whose contract is the same.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// No file here is larger than 64 KiB; nothing read from one needs more than this at once.
const BOUND: usize = 8 << 20;

fn demo(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mnist");
    std::fs::read(folder.join(name)).expect("the demo network is part of the project")
}

fn digit_png() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = png::Encoder::new(&mut bytes, 40, 40).write_header().expect("a valid header");
    let pixels: Vec<u8> = (0..1600u32).map(|i| (i * i % 251) as u8).collect();
    writer.write_image_data(&pixels).expect("enough pixels");
    writer.finish().expect("memory");
    bytes
}

/// What may happen to a file on its way.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Vec<(prop::sample::Index, u8)>),
    Truncate(prop::sample::Index),
    Extend(Vec<u8>),
    Insert(prop::sample::Index, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        prop::collection::vec((index(), 1..=u8::MAX), 1..8).prop_map(Damage::Flip),
        index().prop_map(Damage::Truncate),
        prop::collection::vec(any::<u8>(), 1..64).prop_map(Damage::Extend),
        (index(), prop::collection::vec(any::<u8>(), 1..16))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
    ]
}

/// Damages the beginning (where structure is) and the whole of a file with equal chance.
fn apply(bytes: &mut Vec<u8>, damage: &Damage, near: usize) {
    let reach = near.clamp(1, bytes.len());
    match damage {
        Damage::Flip(flips) => flips.iter().for_each(|(at, mask)| bytes[at.index(reach)] ^= mask),
        Damage::Truncate(at) => bytes.truncate(at.index(bytes.len())),
        Damage::Extend(more) => bytes.extend(more),
        Damage::Insert(at, more) => {
            let at = at.index(reach);
            bytes.splice(at..at, more.iter().copied());
        }
    }
}

fn check(mut bytes: Vec<u8>, damages: &[Damage], near: usize, read: impl Fn(&[u8])) {
    damages.iter().for_each(|damage| {
        if !bytes.is_empty() {
            apply(&mut bytes, damage, near);
        }
    });
    LARGEST.store(0, Ordering::Relaxed);
    read(&bytes);
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < BOUND, "an allocation of {largest} bytes for a file of {}", bytes.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn onnx_files(damages in prop::collection::vec(damage(), 1..4), near in prop_oneof![Just(200usize), Just(usize::MAX)]) {
        check(demo("mnist.onnx"), &damages, near, |bytes| match onnx::parse(bytes) {
            Ok(graph) => assert!(graph.nodes().all(|(_, node)| node.elements() > 0)),
            Err(error) => assert!(!error.to_string().is_empty()),
        });
    }

    #[test]
    fn onnx_structure(damages in prop::collection::vec(damage(), 1..3), at in any::<prop::sample::Index>()) {
        // Nodes and tensor headers lie between the weights: rotate the place where "near" begins.
        let file = demo("mnist.onnx");
        let interesting: Vec<usize> = file
            .windows(4)
            .enumerate()
            .filter(|(_, w)| matches!(*w, b"Conv" | b"Gemm" | b"Relu" | b"pads" | b"weig" | b"bias" | b"logi" | b"imag"))
            .map(|(i, _)| i.saturating_sub(12))
            .collect();
        let start = interesting[at.index(interesting.len())];
        let (head, tail) = file.split_at(start);
        let mut tail = tail.to_vec();
        damages.iter().for_each(|damage| if !tail.is_empty() { apply(&mut tail, damage, 48) });
        check([head, &tail].concat(), &[], 0, |bytes| drop(onnx::parse(bytes)));
    }

    #[test]
    fn safetensors_files(damages in prop::collection::vec(damage(), 1..4), near in prop_oneof![Just(400usize), Just(usize::MAX)]) {
        check(demo("mnist.safetensors"), &damages, near, |bytes| match safetensors::parse(bytes) {
            Ok(tensors) => assert!(tensors.values().all(|t| t.first_not_finite().is_none())),
            Err(error) => assert!(!error.to_string().is_empty()),
        });
    }

    #[test]
    fn png_files(damages in prop::collection::vec(damage(), 1..4), near in prop_oneof![Just(60usize), Just(usize::MAX)]) {
        check(digit_png(), &damages, near, |bytes| drop(Picture::from_png(bytes).and_then(|p| p.to_digit())));
    }
}
