//! Whole runs: a seed repeats exactly, and the kept scripts of faults pass.

use std::{fs, path::Path, time::Duration};

use celeriac_sim::{
    faults::{self, Step},
    run::{Plan, run},
};

const LENGTH: Duration = Duration::from_secs(60);

fn plan(seed: u64, faults: Vec<Step>) -> Plan {
    Plan {
        seed,
        faults,
        length: LENGTH,
        workers: 3,
        tasks: 40,
        record: false,
    }
}

#[test]
fn a_seed_repeats_exactly() {
    let of = |seed| run(&plan(seed, faults::draw(seed, LENGTH, 3)));
    let (one, again, other) = (of(5), of(5), of(6));
    assert_eq!(one.records, again.records);
    assert_eq!(one.hash, again.hash);
    assert_ne!(one.hash, other.hash);
}

#[test]
fn every_task_is_accounted_for_in_the_kept_scripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kept");
    let mut played = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let faults = faults::script(&fs::read_to_string(&path).unwrap()).unwrap();
        let account = run(&plan(1, faults)).account;
        assert_eq!(account.violations, [] as [&str; 0], "{}", path.display());
        let done: u64 = ["SUCCESS", "FAILURE"]
            .iter()
            .filter_map(|end| account.ends.get(*end))
            .sum();
        assert!(
            done > 20,
            "{}: only {done} tasks have ended: {:?}",
            path.display(),
            account.ends
        );
        played += 1;
    }
    assert!(played >= 3, "{played} scripts");
}
