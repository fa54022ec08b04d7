//! The `encode` kernel: raw weights in the memory of a GPU, and plaintexts made of them.

use std::collections::{BTreeSet, HashMap};

use cerium_artifact::Recipe;
use cerium_ckks::basis::Basis;
use cerium_emit::cuda::encode::{self, MAX_LOG_PERIOD, POINTERS};

use super::CudaError;
use super::device::CudaDevice;
use super::error::Purpose;
use super::gpu::{Argument, Call, FunctionIndex, GpuAddress};
use crate::device::EncodeJob;
use crate::memory::{OnTheWay, PlaintextEncoder, PlaintextId};

/// What the kernels make.
pub(super) const ON_THE_WAY: OnTheWay = OnTheWay::Encodings { max_log_period: MAX_LOG_PERIOD };

/// What encode kernels need, in the memory of a GPU.
#[derive(Debug)]
pub(super) struct Encodings {
    /// By logarithm of the period.
    functions: HashMap<u32, FunctionIndex>,
    tables: GpuAddress,
    /// For each encoding the logarithm of its period and its pointers, but for the last.
    rows: HashMap<PlaintextId, (u32, [GpuAddress; POINTERS - 1])>,
    /// Room for the pointers of a batch.
    pointers: GpuAddress,
}

impl CudaDevice {
    /// Puts what the encodings `ids` are made of into the memory of the GPU; `batch` is the most jobs of one call of
    /// [`encode_plaintexts`](Self::encode_plaintexts).
    pub(super) fn place_weights(
        &mut self,
        encoder: &PlaintextEncoder,
        ids: &[PlaintextId],
        batch: usize,
    ) -> Result<Encodings, CudaError> {
        let params = encoder.params();
        let encodings = || ids.iter().map(|&id| encoder.encoding(id));
        let periods: BTreeSet<u32> = encodings().map(|(encoding, _)| encoding.log_period).collect();
        let sources: Vec<_> = periods.iter().map(|&period| (encode::source(params, period), 0)).collect();
        let functions = periods.into_iter().zip(self.gpu().load(&sources)?).collect();

        let tensors: BTreeSet<usize> = encodings().filter_map(|(_, recipe)| tensor(recipe)).collect();
        let words =
            tensors.iter().map(|&tensor| bytemuck::cast_slice(encoder.tensors()[tensor].values.words()));
        let words = self.place(Purpose::Weights, &words.collect::<Vec<&[u8]>>())?;
        let tensors: HashMap<usize, GpuAddress> = tensors.into_iter().zip(words).collect();

        let gathers: BTreeSet<usize> = encodings().filter_map(|(_, recipe)| gather(recipe)).collect();
        let slots = gathers.iter().map(|&gather| bytemuck::cast_slice(&encoder.gathers()[gather]));
        let slots = self.place(Purpose::Weights, &slots.collect::<Vec<&[u8]>>())?;
        let gathers: HashMap<usize, GpuAddress> = gathers.into_iter().zip(slots).collect();

        let bases: Vec<Basis> = encodings().map(|(encoding, _)| encoding.basis).collect();
        let mut known: HashMap<Basis, usize> = HashMap::new();
        let mut primes: Vec<Vec<u32>> = Vec::new();
        for &basis in &bases {
            known.entry(basis).or_insert_with(|| {
                primes.push(encode::primes(params, basis));
                primes.len() - 1
            });
        }
        let parts: Vec<&[u8]> = primes.iter().map(|words| bytemuck::cast_slice(words)).collect();
        let primes = self.place(Purpose::Tables, &parts)?;

        let descriptors: Vec<u32> = encodings()
            .flat_map(|(encoding, recipe)| {
                let tensor = tensor(recipe).expect("other recipes are resident");
                let element = encoder.tensors()[tensor].values.element();
                let (limbs, scale) = (encoding.basis.len(), encoding.scale.0);
                let descriptor = encode::descriptor(recipe, element, encoding.rotation, scale, limbs);
                descriptor.expect("other recipes are resident")
            })
            .collect();
        let tables = encode::tables(params, encoder.encoder());
        let parts = [bytemuck::cast_slice(&descriptors), bytemuck::cast_slice(&tables)];
        let parts = self.place(Purpose::Tables, &parts)?;
        let row = |(index, &id): (usize, &PlaintextId)| {
            let (encoding, recipe) = encoder.encoding(id);
            let descriptor = parts[0].offset(4 * (index * encode::DESCRIPTOR) as u64);
            let tensor = tensors[&tensor(recipe).expect("other recipes are resident")];
            let gather = gather(recipe).map_or(tensor, |gather| gathers[&gather]);
            (id, (encoding.log_period, [descriptor, tensor, gather, primes[known[&encoding.basis]]]))
        };
        let rows = ids.iter().enumerate().map(row).collect();
        let pointers = self.allocate(Purpose::Tables, 8 * (batch * POINTERS) as u64)?;
        Ok(Encodings { functions, tables: parts[1], rows, pointers })
    }

    /// Launches the kernels that encode plaintexts into their places, one for each period.
    pub(super) fn encode_plaintexts(
        &mut self,
        encodings: &Encodings,
        jobs: impl Iterator<Item = (PlaintextId, GpuAddress)>,
    ) -> Result<(), CudaError> {
        let mut batches: HashMap<u32, Vec<u64>> = HashMap::new();
        for (id, to) in jobs {
            let (log_period, row) = encodings.rows[&id];
            let batch = batches.entry(log_period).or_default();
            batch.extend(row.iter().chain([&to]).map(|address| address.0));
        }
        let mut at = encodings.pointers;
        for (log_period, pointers) in batches {
            self.gpu().write(at, bytemuck::cast_slice(&pointers))?;
            // The kernel has no constants.
            let arguments = [at, encodings.tables, encodings.tables].map(Argument::Address);
            self.gpu().call(&Call {
                function: encodings.functions[&log_period],
                grid: [(pointers.len() / POINTERS) as u32, 1],
                block: encode::threads(log_period),
                shared_bytes: 0,
                arguments: arguments.into(),
            })?;
            at = at.offset(8 * pointers.len() as u64);
        }
        Ok(())
    }

    /// Where jobs write.
    pub(super) fn targets<'a>(
        places: &'a [GpuAddress],
        jobs: &'a [EncodeJob],
    ) -> impl Iterator<Item = (PlaintextId, GpuAddress)> + 'a {
        jobs.iter().map(|job| (job.encoding, places[job.place.index()]))
    }
}

fn tensor(recipe: &Recipe) -> Option<usize> {
    match recipe {
        Recipe::Gather { tensor, .. } | Recipe::Diagonal { tensor, .. } => Some(tensor.0 as usize),
        Recipe::Constant { .. } | Recipe::Dft { .. } => None,
    }
}

fn gather(recipe: &Recipe) -> Option<usize> {
    match recipe {
        Recipe::Gather { gather, .. } => Some(gather.0 as usize),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use cerium_artifact::{
        Artifact, Function, GatherId, MatrixBlock, NO_ELEMENT, Plaintext, Tensor, TensorId, WeightId,
        WeightRef,
    };
    use cerium_ckks::basis::Scale;
    use cerium_ckks::encoding::Slots;
    use cerium_ckks::params::{Params, ParamsSpec};
    use rand_core::RngCore;

    use super::super::arch::Arch;
    use super::super::host::{HostGpu, Order};
    use super::super::nvrtc::Nvrtc;
    use super::*;
    use crate::memory::{Form, PlaintextPlan};
    use crate::testing::fresh_rng;

    /// Tensors of all kinds with values of all sizes.
    fn tensors(rng: &mut impl RngCore) -> Vec<Tensor> {
        let exponent =
            |rng: &mut dyn RngCore, range: i32| 2f32.powi(-((rng.next_u32() % range as u32) as i32));
        let single = (0..500).map(|_| (rng.next_u32() as i32) as f32 / 2f32.powi(31) * exponent(rng, 140));
        let single: Vec<f32> = single.collect();
        let half = (0..500).map(|_| (rng.next_u32() % 4096) as f32 - 2048.0).map(|x| x / 2f32.powi(12));
        let mut half: Vec<f32> = half.collect();
        // Subnormal, and no bf16.
        half.extend([3.0 * 2f32.powi(-24), -(2f32.powi(-14) - 2f32.powi(-24)), 1.0 + 2f32.powi(-10), -0.0]);
        let brain =
            (0..500).map(|_| f32::from_bits(0x3f00_0000 + (((rng.next_u32() % 256) << 16) & 0x00ff_0000)));
        let brain: Vec<f32> = brain.collect();
        let tensor = |values: Vec<f32>| Tensor { name: "w".into(), values: values.into() };
        [single, half, brain].map(tensor).into()
    }

    /// An artifact that holds encodings and computes nothing.
    fn artifact(params: &Params, rng: &mut impl RngCore) -> Artifact {
        let log_slots = params.log_n() - 1;
        let mut below = |bound: usize| (rng.next_u64() % bound as u64) as usize;
        let (mut gathers, mut weights, mut plaintexts) = (Vec::new(), Vec::new(), Vec::new());
        let bases = [params.q_basis(), params.p_basis(), params.q_basis().union(params.p_basis())];
        for round in 0..4 {
            for log_period in 0..=log_slots.min(MAX_LOG_PERIOD) {
                let (period, tensor) = (1usize << log_period, TensorId(below(3) as u32));
                let factor = [0.5, -1.75, 1e-3][below(3)];
                weights.push(if round % 2 == 0 {
                    let entry = |i: usize| if i % 7 == 6 { NO_ELEMENT } else { i as u32 % 500 };
                    let start = below(500);
                    gathers.push((0..period).map(|i| entry(i + start)).collect());
                    Recipe::Gather { tensor, gather: GatherId(gathers.len() as u32 - 1), factor }
                } else {
                    let extents = [1 + below(period.min(20)) as u32, 1 + below(period.min(20)) as u32];
                    let strides = [[1, 20], [20, 1], [1, 0]][below(3)];
                    let block = MatrixBlock { first: below(50) as u32, strides, extents, log_period };
                    Recipe::Diagonal { tensor, block, offset: below(period) as u32, factor }
                });
                let basis = bases[below(3)];
                plaintexts.push(Plaintext {
                    weight: WeightRef::Weight(WeightId(weights.len() as u32 - 1)),
                    basis,
                    modulus: basis,
                    // Beyond 64 bits as well.
                    scale: Scale(2f64.powi([30, 50, 70, 87][below(4)]) * 1.1),
                    rotation: below(period) as u32,
                    log_period,
                });
            }
        }
        let main = Function {
            name: "main".into(),
            args: vec![],
            results: vec![],
            weight_params: 0,
            plaintexts,
            frame: 0,
            steps: vec![],
        };
        Artifact {
            name: "plaintexts".into(),
            params: params.spec().clone(),
            programs: vec![vec![main]],
            homes: Vec::new(),
            communication: Vec::new(),
            inputs: vec![],
            outputs: vec![],
            keys: vec![],
            weights,
            gathers,
            tensors: tensors(rng),
            stages: vec![],
            passes: vec![],
            key_plan: None,
            normalization: None,
            model: vec![],
        }
    }

    #[test]
    fn kernels_make_the_words_of_the_encoder() {
        let mut rng = fresh_rng();
        let orders = [Order::Ascending, Order::Descending, Order::Shuffled(rng.next_u64())];
        for (log_n, order) in [(13, orders[0]), (6, orders[1]), (7, orders[2])] {
            let Some(host) = HostGpu::new(order) else {
                println!("skipped: there is no C++ compiler");
                return;
            };
            let params = Params::new(ParamsSpec::insecure(log_n, 40, 4, 3).unwrap()).unwrap();
            let artifact = artifact(&params, &mut rng);
            let plan = PlaintextPlan::new(&artifact, cerium_artifact::DeviceId::default()).unwrap();
            let encoder = PlaintextEncoder::new(&artifact, &plan, &params);
            let ids: Vec<PlaintextId> = plan.ids().collect();
            let mut device = CudaDevice::on(Box::new(host), false);
            let encodings = device.place_weights(&encoder, &ids, ids.len()).unwrap();
            let size = |id: PlaintextId| encoder.encoding(id).0.words();
            let places: Vec<GpuAddress> =
                ids.iter().map(|&id| device.gpu().allocate(4 * size(id) as u64).unwrap().unwrap()).collect();
            device.encode_plaintexts(&encodings, ids.iter().copied().zip(places.iter().copied())).unwrap();
            for (&id, &place) in ids.iter().zip(&places) {
                let mut expected = vec![0; size(id)];
                encoder.encode(id, Form::Limbs, &mut Slots::new(), &mut expected).unwrap();
                let mut words = vec![0; size(id)];
                device.gpu().read(place, bytemuck::cast_slice_mut(&mut words)).unwrap();
                assert!(words == expected, "{:?}", encoder.encoding(id));
            }
        }
    }

    #[test]
    fn kernels_compile_without_spills() {
        let nvrtc = match Nvrtc::load(None) {
            Ok(nvrtc) => nvrtc,
            Err(error) => {
                println!("skipped: {error}");
                return;
            }
        };
        let params = Params::new(ParamsSpec::insecure(13, 40, 4, 3).unwrap()).unwrap();
        for arch in [Arch::SM_80, Arch::SM_90, Arch::SM_100] {
            for log_period in [0, 1, 8, MAX_LOG_PERIOD] {
                let source = encode::source(&params, log_period);
                let compiled = nvrtc.compile(&source.entry, &source.text, arch).unwrap();
                let [resources] = &compiled.resources[..] else { panic!("there is one kernel") };
                println!("{arch}, period 2^{log_period}: {resources:?}");
                assert_eq!((resources.spill_store_bytes, resources.spill_load_bytes), (0, 0));
                assert!(resources.registers <= 128 && resources.shared_bytes <= 48 << 10);
            }
        }
    }
}
