//! The whole way of a program to a GPU, with the host in its place: emitted text, memory, bindings, graphs.

use cerium_runtime::CpuDevice;
use cerium_runtime::cuda::CudaDevice;
use cerium_runtime::cuda::host::{HostGpu, Order};
use cerium_runtime::suite::Case;
use rand_core::RngCore;

use crate::fresh_rng;

#[test]
fn random_programs_give_the_words_of_the_cpu() {
    let mut rng = fresh_rng();
    // The smallest ring, and one whose transforms have several warps.
    for log_n in [4, 11] {
        let order = Order::Shuffled(rng.next_u64());
        let Some(host) = HostGpu::new(order) else {
            println!("skipped: there is no C++ compiler");
            return;
        };
        let case = Case::random(&mut rng, log_n);
        let (expected, counted) =
            case.session(Box::new(CpuDevice::new(2).unwrap())).unwrap().run(&case.inputs).unwrap();
        let mut session = case.session(Box::new(CudaDevice::on(Box::new(host), false))).unwrap();
        // Twice: nothing of the first run may show in the second.
        for _ in 0..2 {
            let (outputs, profile) = session.run(&case.inputs).unwrap();
            for (output, expected) in outputs.iter().zip(&expected) {
                assert!(output.words() == expected.words(), "ring 2^{log_n}, {order:?}");
            }
            assert_eq!(profile.usage.total().launches, counted.usage.total().launches);
        }
    }
}
