use super::*;

fn all() -> Vec<Params> {
    Params::names().into_iter().map(|name| Params::named_insecure(name).unwrap()).collect()
}

#[test]
fn every_named_set_is_secure_or_says_that_it_is_not() {
    for params in all() {
        // Recomputed from the description, not from the accessors under test.
        let spec = params.spec();
        let log_pq: f64 = spec.q.iter().chain(&spec.p).map(|&q| f64::from(q).log2()).sum();
        let table = [(11, 53), (12, 106), (13, 214), (14, 430), (15, 868), (16, 1747), (17, 3523)];
        let secure = table.iter().any(|&(log_n, bits)| spec.log_n == log_n && log_pq <= f64::from(bits));
        assert_eq!(spec.name.starts_with("insecure"), !secure, "{} has log PQ {log_pq:.1}", spec.name);
        assert_eq!(params.security_bits().is_some(), secure);
        assert!((params.log_pq() - log_pq).abs() < 1e-6);
        assert_eq!(Params::named(&spec.name).is_ok(), secure);
    }
}

#[test]
fn levels_stay_within_a_fraction_of_a_bit_of_their_scale() {
    for params in all() {
        let goal = named::NAMED.iter().find(|(n, _)| *n == params.name()).unwrap().1;
        assert_eq!(params.max_level().0, goal.levels.iter().map(|run| run.0).sum());
        assert_eq!(params.basis(params.max_level()), params.q_basis());
        assert!(params.digits().len() <= usize::from(goal.dnum));
        assert!((params.log_q(Level(0)) - f64::from(goal.log_base)).abs() < 4.0);
        let output = params.program_level();
        for level in params.levels() {
            let scale = params.scale(level);
            if level <= output {
                let off = scale.log2() - f64::from(goal.log_scale);
                let most = if level == params.max_level() { 6.0 } else { 0.25 };
                assert!((-0.25..most).contains(&off), "{} {level}: 2^{:.3}", params.name(), scale.log2());
            }
            if level > Level(0) {
                let below = Level(level.0 - 1);
                let log_rescaled = 2.0 * scale.log2() + params.log_q(below) - params.log_q(level);
                let gain = params.bootstrap().filter(|_| below == output).map_or(1.0, |b| b.gain);
                assert!((log_rescaled - (gain * params.scale(below).0).log2()).abs() < 1e-9);
            }
        }
    }
}

#[test]
fn sets_for_bootstrapping_have_the_levels_for_it() {
    for (name, log_scale, program_level, base) in
        [("boot-40", 40.0, 17, 50.0), ("boot-35", 35.0, 21, 50.0), ("boot-30", 30.0, 26, 50.0)]
    {
        for params in
            [name.to_owned(), format!("insecure-{name}")].map(|n| Params::named_insecure(&n).unwrap())
        {
            let (bootstrap, spec) = (params.bootstrap().unwrap(), params.spec().bootstrap.unwrap());
            assert_eq!((bootstrap.input, bootstrap.output), (Level(3), Level(program_level)));
            assert_eq!(params.max_level().0, program_level + spec.eval_mod + spec.coeffs_to_slots);
            assert_eq!((params.q_basis().len(), params.p_basis().len()), (47, 12));
            assert_eq!(params.digits().iter().map(|d| d.len()).collect::<Vec<_>>(), [12, 12, 12, 11]);
            assert!((params.log_q(Level(0)) - base).abs() < 0.5);
            // Lengths of all levels, as promised by the table.
            let length = |level: u8| params.log_q(Level(level)) - params.log_q(Level(level - 1));
            for level in 1..=program_level {
                assert!((length(level) - log_scale).abs() < 0.5, "{name} level {level}: {}", length(level));
            }
            for level in program_level + 1..=params.max_level().0 {
                assert!(length(level) >= log_scale + 9.5, "{name} level {level}: {}", length(level));
                let log_scale = params.scale(Level(level)).log2();
                assert!((log_scale - length(level)).abs() < 8.0, "{name} level {level}: 2^{log_scale}");
            }
            let (sparse, log_q) = (params.sparse_p_basis(), params.log_q(Level(0)));
            assert_eq!(sparse.len(), 2);
            assert!(params.log_product(sparse) >= log_q && params.log_product(sparse) + log_q <= 120.0);
        }
    }
    for log_n in [6, 11, 13] {
        for log_scale in [30, 35, 40] {
            let params = Params::new(ParamsSpec::insecure_boot(log_n, log_scale).unwrap()).unwrap();
            let named = Params::named(&format!("boot-{log_scale}")).unwrap();
            assert!(params.is_insecure());
            assert_eq!(params.spec().levels, named.spec().levels);
            assert_eq!(params.spec().digits, named.spec().digits);
            assert_eq!(params.bootstrap(), named.bootstrap());
        }
    }
    assert!(matches!(ParamsSpec::insecure_boot(12, 38), Err(ParamsError::Bootstrap(_))));
    assert!(matches!(ParamsSpec::insecure_boot(5, 40), Err(ParamsError::RingDegree { .. })));
}

#[test]
fn sets_without_bootstrapping_say_so() {
    let params = Params::named("leveled-14").unwrap();
    assert_eq!(params.bootstrap(), None);
    assert_eq!(params.program_level(), params.max_level());
}

#[test]
fn digits_divide_q_and_none_exceeds_p() {
    for params in all() {
        let union = params.digits().iter().fold(Basis::EMPTY, |union, &digit| {
            assert!(union.intersection(digit).is_empty());
            assert!(params.log_product(digit) <= params.log_p() + 1e-9);
            union.union(digit)
        });
        assert_eq!(union, params.q_basis());
        assert!(params.q_basis().intersection(params.p_basis()).is_empty());
        assert_eq!(params.q_basis().len() + params.p_basis().len(), params.moduli().len());
    }
}

#[test]
fn descriptions_survive_their_canonical_bytes() {
    for params in all() {
        let bytes = params.spec().to_bytes();
        let spec = ParamsSpec::from_bytes(&bytes).unwrap();
        assert_eq!(&spec, params.spec());
        assert_eq!(Params::new(spec).unwrap(), params);
        for len in 0..bytes.len() {
            assert_eq!(ParamsSpec::from_bytes(&bytes[..len]), None);
        }
        assert_eq!(ParamsSpec::from_bytes(&[&bytes[..], &[0]].concat()), None);
    }
}

#[test]
fn test_sets_of_many_shapes_exist() {
    for (log_n, log_scale, levels, dnum) in
        [(4, 30, 3, 2), (5, 35, 4, 3), (7, 40, 6, 3), (9, 45, 2, 1), (11, 28, 5, 6), (13, 33, 7, 4)]
    {
        let params = Params::new(ParamsSpec::insecure(log_n, log_scale, levels, dnum).unwrap()).unwrap();
        assert!(params.is_insecure());
        assert_eq!(params.max_level(), Level(levels));
    }
}

#[test]
fn bad_descriptions_are_refused() {
    let good = Params::named("leveled-13").unwrap().spec().clone();
    let refused = |change: &dyn Fn(&mut ParamsSpec)| {
        let mut spec = good.clone();
        change(&mut spec);
        Params::new(spec).expect_err("a damaged description must be refused")
    };
    assert!(matches!(refused(&|s| s.name = "two words".into()), ParamsError::BadName { .. }));
    assert!(matches!(
        refused(&|s| s.name = "insecure-but-unmarked".into()),
        ParamsError::InsecureName { .. }
    ));
    assert!(matches!(refused(&|s| s.insecure = true), ParamsError::InsecureName { .. }));
    assert!(matches!(refused(&|s| s.log_n = 18), ParamsError::RingDegree { .. }));
    assert!(matches!(refused(&|s| s.log_n = 12), ParamsError::Insecure { .. }));
    assert!(matches!(
        refused(&|s| s.q[0] += 2),
        ParamsError::Modulus { .. } | ParamsError::NotNttPrime { .. }
    ));
    assert!(matches!(
        refused(&|s| s.q[1] = 998_244_353 + 18),
        ParamsError::Modulus { .. } | ParamsError::NotNttPrime { .. }
    ));
    assert!(matches!(refused(&|s| s.q[0] = s.p[0]), ParamsError::RepeatedPrime { .. }));
    assert!(matches!(refused(&|s| s.p.clear()), ParamsError::Malformed(_)));
    assert!(matches!(refused(&|s| s.q.clear()), ParamsError::Malformed(_)));
    assert!(matches!(refused(&|s| s.levels.clear()), ParamsError::Malformed(_)));
    assert!(matches!(refused(&|s| s.digits[0] += 1), ParamsError::Malformed(_)));
    assert!(matches!(refused(&|s| s.digits.push(0)), ParamsError::Malformed(_)));
    assert!(matches!(refused(&|s| s.digits = vec![s.q.len() as u8]), ParamsError::Digit { .. }));
    assert!(matches!(refused(&|s| s.levels[0].end = 200), ParamsError::Level { .. }));
    assert!(matches!(refused(&|s| s.levels.swap(0, 1)), ParamsError::Level { .. }));
    assert!(matches!(refused(&|s| s.log_scale = 40), ParamsError::Level { .. }));
    assert!(matches!(refused(&|s| s.log_scale = 200), ParamsError::Malformed(_)));
    let boot = |change: &dyn Fn(&mut ParamsSpec, &mut BootstrapSpec)| {
        let mut spec = Params::named("boot-40").unwrap().spec().clone();
        let mut bootstrap = spec.bootstrap.unwrap();
        change(&mut spec, &mut bootstrap);
        Params::new(ParamsSpec { bootstrap: Some(bootstrap), ..spec })
    };
    assert!(boot(&|_, _| ()).is_ok());
    assert!(matches!(boot(&|_, b| b.eval_mod = 0), Err(ParamsError::Bootstrap(_))));
    assert!(matches!(boot(&|_, b| b.eval_mod = 30), Err(ParamsError::Bootstrap(_))));
    assert!(matches!(boot(&|_, b| b.coeffs_to_slots = 255), Err(ParamsError::Bootstrap(_))));
    assert!(matches!(boot(&|_, b| b.slots_to_coeffs = 17), Err(ParamsError::Bootstrap(_))));
    assert!(matches!(boot(&|_, b| b.log_ratio = 31), Err(ParamsError::Bootstrap(_))));
    // Levels longer than the scale are none for programs.
    assert!(matches!(boot(&|_, b| b.eval_mod = 1), Err(ParamsError::Level { .. })));
    // A level 0 of three primes needs three of P: too many for the sparse secret.
    let wide = boot(&|s, _| s.levels[0] = Window { start: 3, end: 6 });
    assert!(matches!(wide, Err(ParamsError::SparseModulus { .. } | ParamsError::Level { .. })), "{wide:?}");
    assert!(matches!(Params::named("nonsense"), Err(ParamsError::UnknownName { .. })));
    assert!(matches!(Params::named("insecure-test"), Err(ParamsError::InsecureNotAllowed { .. })));
}
