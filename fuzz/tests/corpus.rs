//! The kept corpus, without any fuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use fastpath_fuzz::{TARGETS, target};

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

#[test]
fn every_file_of_the_corpus_passes() {
    for (name, check) in TARGETS {
        let mut files: Vec<PathBuf> =
            fs::read_dir(corpus().join(name)).expect(name).map(|entry| entry.expect(name).path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{name} has no corpus");
        for file in files {
            eprintln!("{}", file.display()); // the last one said is the one that failed
            check(&fs::read(&file).expect("a file"));
        }
    }
}

#[test]
fn every_native_corpus_has_a_target() {
    let entries = fs::read_dir(corpus()).expect("the corpus is there");
    let names: BTreeSet<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().unwrap()).collect();
    let orphans: Vec<_> = names.iter().filter(|name| name.starts_with("native-") && target(name).is_none()).collect();
    assert!(orphans.is_empty(), "{orphans:?}");
}
