//! Programs larger than any one kernel may be.

use std::fmt::Write as _;
use std::sync::Arc;

use cerium_artifact::kernel::Body;
use cerium_artifact::{GatherId, Recipe, Step, Tensor, TensorId};
use cerium_ckks::params::{Params, ParamsSpec};
use cerium_compiler::ciphertext::{Context, Data};
use cerium_compiler::ir::text;
use cerium_compiler::kernel::{self, Fusion, KernelOptions};
use cerium_compiler::limb::{Limb, passes};

/// A sum of more products than a kernel has registers (2^16) becomes several kernels.
#[test]
fn a_sum_of_a_hundred_thousand_products() {
    let period = 256;
    let mut data = Data::default();
    data.gathers.push((0..period).collect());
    for i in 0..400 {
        data.tensors.push(Tensor { name: format!("w{i}"), values: vec![0.5; period as usize].into() });
        data.weights.push(Recipe::Gather { tensor: TensorId(i), gather: GatherId(0), factor: 1.0 });
    }
    let params = Params::new(ParamsSpec::insecure(10, 30, 2, 2).unwrap()).unwrap();
    let mut source = String::from("func @main(%x: limb<eval p0>) {\n");
    let mut sum = String::new();
    for weight in 0..400 {
        let _ = writeln!(source, "  %w{weight} = weight() {{index={weight}}}");
        for rotation in 0..period {
            let name = format!("{weight}.{rotation}");
            let _ = writeln!(
                source,
                "  %p{name} = plain(%w{weight}) {{prime=p0, scale=1024.0, rotation={rotation}}}"
            );
            let _ = writeln!(source, "  %m{name} = mul_montgomery(%x, %p{name})");
            if !sum.is_empty() {
                let _ = writeln!(source, "  %s{name} = add({sum}, %m{name})");
                sum = format!("%s{name}");
            } else {
                sum = format!("%m{name}");
            }
        }
    }
    let _ = writeln!(source, "  return {sum}\n}}");
    let mut module = text::read::<Limb>(&source, Context { params, data: Arc::new(data) }).unwrap();
    let Ok(()) = passes::form_dots(&mut module);
    let options = KernelOptions { fusion: Fusion::Full, width: 64, ordered: false };
    let assembled = kernel::assemble(&[module.clone()], &kernel::key_manifest(&module), &options);
    let mut loads = 0;
    for step in &assembled[0][0].steps {
        let Step::Launch(launch) = step else { panic!("there are no calls") };
        let Body::Elementwise { program, blocks } = &launch.body else { panic!("all is elementwise") };
        assert!(program.instructions.len() <= 2048, "kernels stay small enough to compile");
        loads += blocks.iter().map(|block| block.loads.len()).sum::<usize>();
    }
    assert!(loads > 400 * period as usize, "every product is loaded");
}
