//! What is kept in the corpus passes, and so does some chance that is the same each time.

use std::path::Path;
use std::sync::Mutex;

use portico_fuzz::engine::{read_corpus, run_once};
use portico_fuzz::{Campaign, FUZZERS};

const RUNS: u64 = 300;

#[test]
fn everything_in_the_corpus_passes_and_means_something() {
    for fuzzer in FUZZERS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(fuzzer.name);
        let corpus = read_corpus(&folder).expect("the corpus can be read");
        assert!(!corpus.is_empty(), "{} has no corpus", fuzzer.name);
        let mut marks = std::collections::HashSet::new();
        for input in corpus {
            match run_once(fuzzer, &input) {
                Ok(found) => marks.extend(found),
                Err(message) => panic!("{} fails on {input:02x?}: {message}", fuzzer.name),
            }
        }
        assert!(marks.len() > 20, "{}: only {} things happen", fuzzer.name, marks.len());
    }
}

#[test]
fn a_little_chance_finds_nothing() {
    for fuzzer in FUZZERS {
        let current = Mutex::default();
        let report = Campaign::new(fuzzer, 7, &current).run(&[], |runs| runs < RUNS);
        assert!(report.failure.is_none(), "{}: {:?}", fuzzer.name, report.failure);
        assert!(report.marks > 10, "{}: {} marks", fuzzer.name, report.marks);
    }
}
